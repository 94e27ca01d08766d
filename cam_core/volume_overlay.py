"""Pictures of a volume's map for a radiologist: one plane, or the planes that matter side by side.

All planes of a map are coloured on one scale, that of the whole volume, so a faint slice looks faint. Cuts across the
slices keep the proportions of the body, however thick the slices are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from cam_core.canvas import Titled, beside, grid
from cam_core.caption import ending, finding_words, map_words, region_words, warnings
from cam_core.errors import OverlayError
from cam_core.finding import Finding
from cam_core.image import Volume
from cam_core.legend import Rule
from cam_core.normalisation import scale_of
from cam_core.overlay import check
from cam_core.picture import OverlayPicture, OverlayStyle
from cam_core.saliency import SaliencyMap
from cam_core.tile import Scale, coloured_tile, display_scale, outline, plain_tile
from cam_core.volume_caption import peak_words, plane_name, plane_words, reach_words
from cam_core.volume_region import VolumeRegion, outlines
from cam_core.volume_slice import Plane, image_slice, map_slice

MONTAGE_SIDE = 512
"""Longest side of one picture of a montage, pixel."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeMap:
    """A volume with a map of one finding: what the pictures are of.

    Attributes
    ----------
    volume : Volume
    saliency : SaliencyMap
    finding : Finding
        What the map explains.
    regions : tuple of VolumeRegion
        The map's own, as `cam_core.volume_region.volume_regions` finds them.

    Raises
    ------
    OverlayError
        When the map belongs to another volume or finding.
    """

    volume: Volume
    saliency: SaliencyMap
    finding: Finding
    regions: tuple[VolumeRegion, ...]

    def __post_init__(self) -> None:
        check(self.volume.shape, self.saliency, self.finding)

    @property
    def shown_regions(self) -> tuple[VolumeRegion, ...]:
        """The regions that are outlined: none of a map that is blank."""
        return () if self.saliency.is_blank else self.regions


def key_slices(subject: VolumeMap, *, axis: int = 0, count: int = 7) -> tuple[Plane, ...]:
    """Which planes to show: those through the regions' peaks, then evenly spaced ones; in their order.

    Parameters
    ----------
    subject : VolumeMap
    axis : 0, 1 or 2
        Across which axis the planes lie.
    count : int
        At most so many. Seven make three rows of three with the unmarked one and the legend.
    """
    size = subject.volume.shape[axis]
    chosen = dict.fromkeys(peak_index(region, axis) for region in subject.regions[:count])
    free = [index for index in range(size) if index not in chosen]
    wanted = min(count - len(chosen), len(free))
    even = [free[int((step + 0.5) * len(free) / wanted)] for step in range(wanted)]
    return tuple(Plane(axis=axis, index=index) for index in sorted([*chosen, *even]))


def peak_index(region: VolumeRegion, axis: int) -> int:
    """The plane across an axis on which a region's peak lies."""
    return int(region.peak[2 - axis])


def render_slice(subject: VolumeMap, plane: Plane, *, model: str, style: OverlayStyle | None = None) -> OverlayPicture:
    """Draw one plane of a volume with the map over it and a legend beside it.

    Parameters
    ----------
    subject : VolumeMap
    plane : Plane
    model : str
        Name and version, for the legend.
    style : OverlayStyle, optional

    Raises
    ------
    ValueError
        When the volume has no such plane.
    """
    style = style or OverlayStyle()
    drawn = _draw(subject, plane, style, style.maximum_side)
    blocks = [
        *warnings(style),
        *finding_words(subject.finding),
        Rule(),
        *plane_words(plane, subject.volume),
        Rule(),
        *map_words(subject.saliency, style),
        *region_words(subject.saliency, subject.shown_regions),
        *reach_words(subject.shown_regions, drawn.reached, plane),
        *ending(model),
    ]
    return OverlayPicture(
        pixels=beside(drawn.tile, blocks, drawn.tile.size),
        anatomy=(0, 0, drawn.tile.width, drawn.tile.height),
        scale=drawn.scale,
        normalisations=(scale_of(subject.saliency, style.normalisations),),
    )


def render_montage(
    subject: VolumeMap, planes: Sequence[Plane] | None = None, *, model: str, style: OverlayStyle | None = None
) -> OverlayPicture:
    """Draw several planes of a volume side by side, after the unmarked one through the first region's peak.

    Parameters
    ----------
    subject : VolumeMap
    planes : sequence of Plane, optional
        All across the same axis, so that they are of one size; the `key_slices` unless given.
    model, style
        As `render_slice` takes them.
    """
    style = style or OverlayStyle()
    planes = key_slices(subject) if planes is None else planes
    if len({plane.axis for plane in planes}) != 1:
        raise OverlayError("a montage is of planes across one axis, and of at least one")
    side = min(style.maximum_side, MONTAGE_SIDE)
    drawn = [_draw(subject, plane, style, side) for plane in planes]
    first = _first(subject, planes)
    plain = PillowImage.fromarray(plain_tile(image_slice(subject.volume, first), drawn[0].scale)).convert("RGB")
    tiles = [Titled(title=f"{plane_name(first, subject.volume.shape)}, unmarked", tile=plain)]
    for plane, one in zip(planes, drawn, strict=True):
        title = plane_name(plane, subject.volume.shape)
        peaks = [region.number for region in subject.shown_regions if peak_index(region, plane.axis) == plane.index]
        tiles.append(Titled(title=title + peak_words(peaks), tile=one.tile))
    blocks = [
        *warnings(style),
        *finding_words(subject.finding),
        Rule(),
        *map_words(subject.saliency, style),
        *region_words(subject.saliency, subject.shown_regions),
        *ending(model),
    ]
    pixels, (left, top) = grid(tiles, blocks)
    return OverlayPicture(
        pixels=pixels,
        anatomy=(left, top, left + plain.width, top + plain.height),
        scale=drawn[0].scale,
        normalisations=(scale_of(subject.saliency, style.normalisations),),
    )


def _first(subject: VolumeMap, planes: Sequence[Plane]) -> Plane:
    """The plane that is shown unmarked, too: through the first region's peak if it is among them, else the middle."""
    peaks = [peak_index(region, planes[0].axis) for region in subject.shown_regions]
    return next((plane for peak in peaks for plane in planes if plane.index == peak), planes[len(planes) // 2])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Line:
    contour: NDArray[np.float64]
    number: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Drawn:
    """A plane with its map and outlines; `reached` are the numbers of the regions on it."""

    tile: PillowImage.Image
    scale: Scale
    reached: tuple[int, ...]


def _draw(subject: VolumeMap, plane: Plane, style: OverlayStyle, maximum_side: int) -> _Drawn:
    image = image_slice(subject.volume, plane)
    scale = display_scale(image, maximum_side)
    levels = scale_of(subject.saliency, style.normalisations)
    tile = coloured_tile(plain_tile(image, scale), map_slice(subject.saliency, plane), levels, style)
    lines = [
        _Line(contour=line, number=region.number)
        for region in subject.shown_regions
        for line in outlines(subject.saliency, region, plane)
    ]
    outline(tile, lines, scale, numbered=len(subject.shown_regions) > 1)
    return _Drawn(tile=tile, scale=scale, reached=tuple(dict.fromkeys(line.number for line in lines)))
