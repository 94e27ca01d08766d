"""Pictures of explanations for a radiologist: overlay, panel and notice; a picture is never used for measuring.

Words and colour bars stand beside the anatomy, never on it. The colour's opacity follows the map, so where the model
saw nothing the picture is untouched, and where it saw most the anatomy still shows through.
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
from cam_core.picture import OverlayPicture, OverlayStyle
from cam_core.saliency import Region, SaliencyMap, regions
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
    """Draw one map over its image, with a legend beside it.

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
    _check(image, saliency, finding)
    style = style or OverlayStyle()
    if found is None:
        found = regions(saliency, spacing_mm=image.spacing_mm)
    scale = display_scale(image.shape, style.maximum_side)
    tile = coloured_tile(plain_tile(image, scale), saliency, style)
    outline(tile, found, scale)
    pixels = beside(tile, overlay_caption(saliency, finding, found, model, style), tile.size)
    return OverlayPicture(pixels=pixels, anatomy=(0, 0, tile.width, tile.height), scale=scale)


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
    scale = display_scale(image.shape, min(style.maximum_side, PANEL_SIDE))
    plain = plain_tile(image, scale)
    tiles = [Titled(title="Original, unmarked", tile=PillowImage.fromarray(plain).convert("RGB"))]
    for saliency, found in zip(explanation.maps, explanation.regions, strict=True):
        _check(image, saliency, explanation.finding)
        tile = coloured_tile(plain, saliency, style)
        outline(tile, found, scale)
        tiles.append(Titled(title=tile_title(saliency, explanation), tile=tile))
    pixels, (left, top) = grid(tiles, panel_caption(explanation, model, style))
    width, height = tiles[0].tile.size
    return OverlayPicture(pixels=pixels, anatomy=(left, top, left + width, top + height), scale=scale)


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
        return OverlayPicture(pixels=beside(None, blocks, NOTICE_SIZE), anatomy=None, scale=1.0)
    scale = display_scale(image.shape, style.maximum_side)
    tile = PillowImage.fromarray(plain_tile(image, scale)).convert("RGB")
    return OverlayPicture(pixels=beside(tile, blocks, tile.size), anatomy=(0, 0, tile.width, tile.height), scale=scale)


def _check(image: Image, saliency: SaliencyMap, finding: Finding) -> None:
    if saliency.fit.source_shape != image.shape:
        raise OverlayError(f"the map is of an image of {saliency.fit.source_shape}, this one is {image.shape}")
    if saliency.label != finding.label.name:
        raise OverlayError(f"the map explains {saliency.label!r}, the finding is {finding.label.name!r}")
