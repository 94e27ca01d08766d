"""Pictures of explanations for a radiologist: overlay, panel and notice; a picture is never used for measuring.

Words and colour bars stand beside the anatomy, never on it. The colour's opacity follows the map, so where the model
saw nothing the picture is untouched, and where it saw most the anatomy still shows through. A map that says nothing
draws no colour and no outline: the words say why.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image as PillowImage

from cam_core.canvas import Titled, beside, grid
from cam_core.caption import notice_caption, overlay_caption, panel_caption, tile_title
from cam_core.errors import OverlayError
from cam_core.explanation import Explanation
from cam_core.finding import Finding
from cam_core.image import Image
from cam_core.legend import AMBER, WHITE
from cam_core.normalisation import scale_of
from cam_core.picture import OverlayPicture, OverlayStyle
from cam_core.region import Region, regions
from cam_core.saliency import SaliencyMap
from cam_core.tile import coloured_tile, display_scale, outline, plain_tile

__all__ = ["OverlayPicture", "OverlayStyle", "render_notice", "render_overlay", "render_panel"]

PANEL_SIDE = 768
"""Longest side of one picture of a panel, pixel."""

NOTICE_SIZE = (1024, 768)
"""Width and height of a notice without a picture, pixel."""


def render_overlay(
    image: Image,
    saliency: SaliencyMap,
    finding: Finding,
    *,
    model: str,
    style: OverlayStyle | None = None,
    found: Sequence[Region] | None = None,
) -> OverlayPicture:
    """Draw one map over its image, with a legend beside it; a volume's map is drawn by `cam_core.volume_overlay`.

    Parameters
    ----------
    image : Image
    saliency : SaliencyMap
    finding : Finding
        What the map explains.
    model : str
        Name and version, for the legend.
    style : OverlayStyle, optional
    found : sequence of Region, optional
        The map's regions, when they are known already.

    Raises
    ------
    OverlayError
        When the map belongs to another image or finding.
    """
    check(image.shape, saliency, finding)
    style = style or OverlayStyle()
    if saliency.is_blank:
        found = ()
    elif found is None:
        found = regions(saliency, spacing_mm=image.spacing_mm)
    scale, levels = display_scale(image, style.maximum_side), scale_of(saliency, style.normalisations)
    tile = coloured_tile(plain_tile(image, scale), saliency, levels, style)
    outline(tile, found, scale)
    pixels = beside(tile, overlay_caption(saliency, finding, found, model, style), tile.size)
    return OverlayPicture(pixels=pixels, anatomy=(0, 0, tile.width, tile.height), scale=scale, normalisations=(levels,))


def render_panel(
    image: Image, explanation: Explanation, *, model: str, style: OverlayStyle | None = None
) -> OverlayPicture:
    """Draw the unmarked image and every map of one finding side by side, with one legend.

    Raises
    ------
    OverlayError
        When a map belongs to another image or finding.
    """
    style = style or OverlayStyle()
    scale = display_scale(image, min(style.maximum_side, PANEL_SIDE))
    levels = tuple(scale_of(saliency, style.normalisations) for saliency in explanation.maps)
    plain = plain_tile(image, scale)
    tiles = [Titled(title="Original, unmarked", tile=PillowImage.fromarray(plain).convert("RGB"))]
    for saliency, found, level in zip(explanation.maps, explanation.planar_regions, levels, strict=True):
        check(image.shape, saliency, explanation.finding)
        tile = coloured_tile(plain, saliency, level, style)
        outline(tile, () if saliency.is_blank else found, scale)
        colour = AMBER if saliency.is_blank else WHITE
        tiles.append(Titled(title=tile_title(saliency, explanation), tile=tile, colour=colour))
    pixels, (left, top) = grid(tiles, panel_caption(explanation, model, style))
    width, height = tiles[0].tile.size
    return OverlayPicture(
        pixels=pixels, anatomy=(left, top, left + width, top + height), scale=scale, normalisations=levels
    )


def render_notice(
    image: Image | None, title: str, lines: Sequence[str], *, style: OverlayStyle | None = None
) -> OverlayPicture:
    """Draw a clinical answer that has no map: the untouched image, or none, with a title and the reasons beside it.

    Parameters
    ----------
    image : Image or None
    title : str
        For example "AI not performed".
    lines : sequence of str
        The reasons, one paragraph each.
    """
    style = style or OverlayStyle()
    blocks = notice_caption(title, lines, style)
    if image is None:
        return OverlayPicture(pixels=beside(None, blocks, NOTICE_SIZE), anatomy=None, scale=(1.0, 1.0))
    scale = display_scale(image, style.maximum_side)
    tile = PillowImage.fromarray(plain_tile(image, scale)).convert("RGB")
    return OverlayPicture(pixels=beside(tile, blocks, tile.size), anatomy=(0, 0, tile.width, tile.height), scale=scale)


def check(shape: tuple[int, ...], saliency: SaliencyMap, finding: Finding) -> None:
    """Raise OverlayError when a map is not of an image or volume of this shape, or not of this finding."""
    if saliency.fit.source_shape != shape:
        raise OverlayError(f"the map is of an image of {saliency.fit.source_shape}, this one is {shape}")
    if saliency.label != finding.label.name:
        raise OverlayError(f"the map explains {saliency.label!r}, the finding is {finding.label.name!r}")
