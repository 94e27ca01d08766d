"""Tests of the pictures of volumes: true proportions, one scale for all slices, regions where they lie."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cam_core import volume_overlay
from cam_core.errors import OverlayError
from cam_core.finding import Finding
from cam_core.image import Volume, fit_to
from cam_core.legend import Block, Words
from cam_core.normalisation import scale_of
from cam_core.picture import OverlayPicture, OverlayStyle
from cam_core.registration import Registration
from cam_core.saliency import MapCondition, SaliencyMap
from cam_core.volume_overlay import VolumeMap, key_slices, peak_index, render_montage, render_slice
from cam_core.volume_region import volume_regions
from cam_core.volume_slice import Plane

MODEL = "small 0.1"
SHAPE, SPACING = (20, 120, 100), (4.0, 0.8, 0.8)


def ball(centre_mm: tuple[float, float, float], radius: float) -> np.ndarray:
    lines = ((np.arange(size) + 0.5) * step for size, step in zip(SHAPE, SPACING, strict=True))
    away = np.meshgrid(*lines, indexing="ij")
    inside = sum((one - at) ** 2 for one, at in zip(away, centre_mm, strict=True)) < radius**2
    return inside.astype(np.float32)


def saliency(values: np.ndarray) -> SaliencyMap:
    step = tuple(64 / size for size in values.shape)
    return SaliencyMap(
        values=values.astype(np.float32),
        method="grad-cam",
        variant="",
        title="Grad-CAM",
        label="finding 0",
        fit=fit_to(SHAPE, (64, 64, 64), "stretch"),
        registration=Registration(start=tuple((one - 1) / 2 for one in step), step=step, measured=True),
    )


def spots(*centres: tuple[int, int, int]) -> np.ndarray:
    z, y, x = np.mgrid[:10, :12, :10]
    away = [(z - at[0]) ** 2 + (y - at[1]) ** 2 + (x - at[2]) ** 2 for at in centres]
    values = sum(height * np.exp(-one / 1.5) for one, height in zip(away, (1.0, 0.8, 0.7), strict=False))
    return np.where(values > 0.02, values, 0)


@pytest.fixture
def subject(finding: Callable[..., Finding]) -> Callable[..., VolumeMap]:
    def make(values: np.ndarray, voxels: np.ndarray | None = None, **changes: object) -> VolumeMap:
        volume = Volume(voxels=ball((40, 48, 40), 30) if voxels is None else voxels, spacing_mm=SPACING)
        volume = replace(volume, **changes)
        one = saliency(values)
        return VolumeMap(
            volume=volume,
            saliency=one,
            finding=finding(),
            regions=volume_regions(one, spacing_mm=volume.spacing_mm),
        )

    return make


def anatomy(drawn: OverlayPicture) -> np.ndarray:
    assert drawn.anatomy is not None
    x0, y0, x1, y1 = drawn.anatomy
    return drawn.pixels[y0:y1, x0:x1]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_ball_is_round_on_every_cut(axis: int, subject: Callable[..., VolumeMap]) -> None:
    """Slices are five times as far apart as pixels: drawn voxel by voxel, a cut would be squashed to a fifth."""
    one = subject(-spots((5, 6, 5)))
    drawn = render_slice(one, Plane(axis=axis, index=SHAPE[axis] // 2), model=MODEL)
    rows, columns = np.nonzero(anatomy(drawn)[..., 0] > 128)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1, abs=0.08)
    assert drawn.pixels.shape[0] % 2 == drawn.pixels.shape[1] % 2 == 0
    down, across = (each for each in range(3) if each != axis)
    assert drawn.scale[0] / drawn.scale[1] == pytest.approx(SPACING[down] / SPACING[across])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_colour_and_outline_lie_on_the_map(axis: int, subject: Callable[..., VolumeMap]) -> None:
    one = subject(spots((5, 3, 7)), voxels=np.full(SHAPE, 0.5, np.float32))
    (region,) = one.regions
    placed = one.saliency.on_image()
    for index in range(0, SHAPE[axis], 2):
        style = OverlayStyle(palette="viridis")  # the middle of cividis is grey, as the picture is
        drawn = anatomy(render_slice(one, Plane(axis=axis, index=index), model=MODEL, style=style)).astype(int)
        here = np.take(placed, index, axis=axis)
        spread = np.ptp(drawn, axis=2).max()
        assert spread == 0 or here.max() > 0
        assert spread > 8 or here.max() < 0.35 * placed.max()
        reaches = here.max() >= region.threshold_level
        assert (drawn.max() > 240) == reaches
        if reaches:
            rows, columns = np.nonzero(drawn.min(axis=2) > 240)
            high = np.argwhere(here >= region.threshold_level) + 0.5
            factor = np.array(drawn.shape[:2]) / here.shape
            low, top = high.min(axis=0) * factor, high.max(axis=0) * factor
            assert (rows.min(), columns.min()) == pytest.approx(tuple(low), abs=1.5 * factor.max() + 3)
            assert (rows.max(), columns.max()) == pytest.approx(tuple(top), abs=1.5 * factor.max() + 3)


def test_all_slices_are_on_the_volumes_scale(subject: Callable[..., VolumeMap]) -> None:
    """Strong on one slice, half as strong on another: so are the colours, and neither is stretched."""
    values = np.zeros((10, 12, 10))
    values[2], values[7] = 1.0, 0.5
    one = replace(subject(values, voxels=np.full(SHAPE, 0.5, np.float32)), regions=())
    strength = {}
    for index in (5, 15):
        drawn = render_slice(one, Plane(axis=0, index=index), model=MODEL)
        assert drawn.normalisations == (scale_of(one.saliency),)
        strength[index] = np.abs(anatomy(drawn).astype(float) - 128).max()
    faint, strong = strength[15], strength[5]
    assert 0.1 * strong < faint < 0.75 * strong


def test_key_slices_go_through_the_peaks_and_are_even_otherwise(subject: Callable[..., VolumeMap]) -> None:
    one = subject(spots((2, 3, 3), (7, 9, 7)))
    assert len(one.regions) == 2
    for axis in range(3):
        planes = key_slices(one, axis=axis, count=6)
        chosen = [plane.index for plane in planes]
        assert chosen == sorted(set(chosen))
        assert len(chosen) == 6
        assert {peak_index(region, axis) for region in one.regions} <= set(chosen)
        assert max(np.diff([0, *chosen, SHAPE[axis]])) <= SHAPE[axis] / 3
    assert [plane.index for plane in key_slices(one, count=1)] == [peak_index(one.regions[0], 0)]
    assert len(key_slices(one, count=100)) == SHAPE[0]
    blank = subject(-spots((2, 3, 3)))
    assert [plane.index for plane in key_slices(blank, count=4)] == [2, 7, 12, 17]


def said(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], OverlayPicture]) -> list[str]:
    """The words that a picture's legend is given."""
    blocks: list[Block] = []
    for name in ("beside", "grid"):
        inner = getattr(volume_overlay, name)

        def spy(first: object, given: list[Block], *rest: object, inner: Callable[..., object] = inner) -> object:
            blocks.extend(given)
            return inner(first, given, *rest)

        monkeypatch.setattr(volume_overlay, name, spy)
    draw()
    return [block.text for block in blocks if isinstance(block, Words)]


def test_the_legend_says_which_slice_and_which_regions(
    subject: Callable[..., VolumeMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subject(spots((2, 3, 3), (7, 9, 7)))
    first = one.regions[0]
    index = peak_index(first, 0)
    words = said(monkeypatch, lambda: render_slice(one, Plane(axis=0, index=index), model=MODEL))
    assert f"Slice {index + 1} of 20" in words
    assert "2 regions of the volume outlined" in words
    assert f"Region 1 lies on slices {first.box[2] + 1} to {first.box[5]}" in words
    assert "On this slice: region 1" in words
    assert any(line.startswith("Region 1 holds") and line.endswith("cm3") for line in words)
    words = said(monkeypatch, lambda: render_slice(one, Plane(axis=1, index=0), model=MODEL))
    assert "Cut along row 1 of 120" in words
    assert "Slices 4 mm apart, proportions true" in words
    assert "No region lies on this cut" in words
    unknown = subject(spots((2, 3, 3)), spacing_mm=None)
    words = said(monkeypatch, lambda: render_slice(unknown, Plane(axis=2, index=0), model=MODEL))
    assert "No spacing known: proportions may be wrong" in words


def test_a_montage_shows_the_key_slices_after_the_unmarked_one(
    subject: Callable[..., VolumeMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = subject(spots((2, 3, 3), (7, 9, 7)))
    drawn = render_montage(one, model=MODEL, style=OverlayStyle(demonstration_only=True))
    shown = (one.volume.voxels[peak_index(one.regions[0], 0)] * 255 + 0.5).astype(np.uint8)
    reduced = anatomy(drawn)
    assert reduced.shape[0] / reduced.shape[1] == pytest.approx(1.2, abs=0.01)
    assert (np.ptp(reduced.astype(int), axis=2) == 0).all()  # no colour on it
    assert abs(float(reduced.mean()) - float(shown.mean())) < 3
    assert drawn.pixels.shape[0] > 3 * reduced.shape[0]  # nine pictures and the legend: four rows of three
    words = said(monkeypatch, lambda: render_montage(one, model=MODEL))
    assert "2 regions of the volume outlined" in words
    with pytest.raises(OverlayError, match="across one axis"):
        render_montage(one, [Plane(axis=0, index=1), Plane(axis=1, index=1)], model=MODEL)
    with pytest.raises(OverlayError):
        render_montage(one, [], model=MODEL)


def test_a_blank_map_leaves_every_slice_as_it_is_and_says_why(
    subject: Callable[..., VolumeMap], monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = subject(np.full((4, 4, 4), 2.0), voxels=np.random.default_rng(1).random(SHAPE, dtype=np.float32))
    flat = replace(flat, regions=subject(spots((2, 3, 3))).regions)  # another map's regions are not drawn either
    words = said(monkeypatch, lambda: render_slice(flat, Plane(axis=0, index=3), model=MODEL))
    assert f"Nothing to show: {MapCondition.FLAT.value}" in words
    assert not any(line.startswith(("Region", "Outline")) for line in words)
    for index in (0, 3):
        drawn = anatomy(render_slice(flat, Plane(axis=0, index=index), model=MODEL))
        assert (np.ptp(drawn.astype(int), axis=2) == 0).all()
    assert render_montage(flat, model=MODEL).pixels.size


def test_maps_of_other_volumes_are_refused(subject: Callable[..., VolumeMap], finding: Callable[..., Finding]) -> None:
    one = subject(spots((2, 3, 3)))
    with pytest.raises(OverlayError, match="the map is of an image"):
        replace(one, volume=Volume(voxels=one.volume.voxels[1:], spacing_mm=SPACING))
    with pytest.raises(OverlayError, match="the map explains"):
        replace(one, finding=finding(1))
    with pytest.raises(ValueError, match="no plane"):
        render_slice(one, Plane(axis=0, index=20), model=MODEL)
