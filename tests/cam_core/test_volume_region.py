"""Tests of the regions of a volume's map: spheres and ellipsoids of known volume, counted slowly, on any plane."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import points_in_poly
from small_networks import Case, network, picture

from cam_core.explanation import ExplainOptions, explain
from cam_core.finding import Finding
from cam_core.image import Volume, fit_to
from cam_core.method import method_named
from cam_core.registration import Registration, input_registration
from cam_core.saliency import SaliencyMap, place
from cam_core.threshold import OTSU, fixed_level, share_of_maximum
from cam_core.volume_region import VolumeRegion, mask_on, outlines, slice_outlines, volume_regions, working_shape
from cam_core.volume_slice import Plane, image_slice, map_slice

SPACING = (3.0, 0.7, 0.9)
SHAPE = (30, 96, 80)


def saliency(values: np.ndarray, shape: tuple[int, ...] = SHAPE, grid: int = 64) -> SaliencyMap:
    step = tuple(grid / size for size in values.shape)
    return SaliencyMap(
        values=values.astype(np.float32),
        method="grad-cam",
        variant="",
        title="Grad-CAM",
        label="finding 0",
        fit=fit_to(shape, (grid,) * 3, "stretch"),
        registration=Registration(start=tuple((one - 1) / 2 for one in step), step=step, measured=True),
    )


def on_voxels(values: np.ndarray) -> SaliencyMap:
    """A map whose cells are the voxels."""
    shape = values.shape
    return replace(saliency(values, shape), fit=fit_to(shape, shape, "stretch"), registration=input_registration(shape))


def cone(radii_mm: tuple[float, float, float], centre_mm: tuple[float, float, float]) -> np.ndarray:
    """1 at a centre (slice, row, column), half of it on the ellipsoid of these radii, linear between."""
    lines = ((np.arange(size) + 0.5) * step for size, step in zip(SHAPE, SPACING, strict=True))
    away = np.meshgrid(*lines, indexing="ij")
    norm = sum(((one - at) / radius) ** 2 for one, at, radius in zip(away, centre_mm, radii_mm, strict=True))
    return np.clip(1 - np.sqrt(norm) / 2, 0, None)


@pytest.mark.parametrize(
    ("radii", "centre"),
    [((15, 15, 15), (45, 33, 36)), ((20, 8, 12), (40, 30, 33)), ((9, 16, 7), (46.5, 33.6, 30.15))],
)
def test_an_ellipsoid_has_its_volume_box_peak_and_share(
    radii: tuple[float, float, float], centre: tuple[float, float, float]
) -> None:
    one = on_voxels(cone(radii, centre))
    (found,) = volume_regions(one, spacing_mm=SPACING, threshold=fixed_level(0.5))
    assert found.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.03)
    slow = sum(value >= 0.5 for value in one.values.ravel().tolist())
    assert found.volume_voxels == pytest.approx(slow)
    assert found.volume_mm3 == pytest.approx(found.volume_voxels * np.prod(SPACING))
    x0, y0, z0, x1, y1, z1 = found.box
    for first, last, axis in ((z0, z1, 0), (y0, y1, 1), (x0, x1, 2)):
        ends = (first * SPACING[axis], last * SPACING[axis])
        assert ends == pytest.approx((centre[axis] - radii[axis], centre[axis] + radii[axis]), abs=1.3 * SPACING[axis])
    x, y, z = found.peak
    assert (z * SPACING[0], y * SPACING[1], x * SPACING[2]) == pytest.approx(centre, abs=max(SPACING))
    assert found.peak_value == pytest.approx(1, abs=0.1)
    assert 0.5 < found.mean_value < 1
    # of a cone of height 1 within half its reach: 5/16
    assert found.share == pytest.approx(5 / 16, abs=0.03)
    assert (found.threshold_kind, found.threshold_level) == ("fixed", 0.5)


def test_without_spacing_there_are_voxels_only() -> None:
    (found,) = volume_regions(on_voxels(cone((15, 15, 15), (45, 33, 36))))
    assert found.volume_mm3 is None
    assert found.volume_voxels > 100


def test_corners_connect_and_equal_regions_are_in_reading_order() -> None:
    """Two blocks that touch at a corner are one region; two that don't are ordered by their place."""
    values = np.zeros((16, 16, 16))
    values[2:5, 2:5, 2:5] = values[5:8, 5:8, 5:8] = 1.0
    assert len(volume_regions(on_voxels(values))) == 1
    apart = np.zeros((16, 16, 16))
    apart[10:13, 2:5, 2:5] = apart[2:5, 10:13, 10:13] = 1.0
    first, second = volume_regions(on_voxels(apart))
    assert (first.box[2], second.box[2]) == (2, 10)
    assert first.share == pytest.approx(second.share)
    assert first.peak == pytest.approx((10.5, 10.5, 2.5), abs=0.5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(30, 96, 80), (1, 40, 50), (200, 20, 33), (5, 1, 1)]),
    cells=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    threshold=st.sampled_from([0.1, 0.5, 0.9, OTSU, fixed_level(0.4)]),
)
def test_every_region_is_inside_its_volume(
    seed: int, shape: tuple[int, int, int], cells: tuple[int, int, int], threshold: float
) -> None:
    one = saliency(np.random.default_rng(seed).uniform(-0.5, 1, cells), shape)
    found = volume_regions(one, threshold=threshold, limit=3)
    assert sum(each.share for each in found) <= 1 + 1e-9
    for each in found:
        box = np.array(each.box).reshape(2, 3)
        assert (box[0] >= 0).all()
        assert (box[0] < box[1]).all()
        assert (box[1] <= shape[::-1]).all()
        assert (box[0] <= each.peak).all()
        assert (box[1] >= each.peak).all()
        assert 0 < each.volume_voxels <= np.prod(shape) + 1e-6
        for axis in range(3):
            check_outlines(one, each, Plane(axis=axis, index=min(int(each.peak[2 - axis]), shape[axis] - 1)))


def check_outlines(one: SaliencyMap, region: VolumeRegion, plane: Plane) -> None:
    down, across = (one.fit.source_shape[axis] for axis in plane.shown_axes)
    lines = outlines(one, region, plane)
    assert lines
    for line in lines:
        assert len(line) >= 4
        assert (line[0] == line[-1]).all()
        assert line.min() >= 0
        assert (line.max(axis=0) <= (across, down)).all()


def test_regions_agree_with_a_slow_count_on_the_working_grid() -> None:
    values = np.random.default_rng(5).random((4, 5, 6)) ** 3
    one = saliency(values, shape=(20, 30, 25))
    placed = place(one, working_shape((20, 30, 25))).astype(np.float64)
    found = volume_regions(one, limit=20, threshold=0.4)
    assert len(found) > 1
    seen = np.zeros(placed.shape, dtype=int)
    for each in found:
        whole = np.stack([mask_on(each, 0, index) for index in range(placed.shape[0])])
        assert (placed[whole] >= 0.4 * placed.max() - 1e-6).all()
        assert each.share == pytest.approx(placed[whole].sum() / placed.sum())
        assert each.volume_voxels == pytest.approx(whole.sum() * 20 * 30 * 25 / placed.size)
        assert each.peak_value == pytest.approx(placed[whole].max())
        seen[whole] += 1
        grown = np.argwhere(whole)
        neighbours = {tuple(spot) for step in np.ndindex(3, 3, 3) for spot in (grown + np.array(step) - 1).tolist()}
        inside = {tuple(spot) for spot in grown.tolist()}
        for spot in neighbours - inside:
            if all(0 <= at < size for at, size in zip(spot, placed.shape, strict=True)):
                assert placed[spot] < 0.4 * placed.max() + 1e-6  # nothing high is next to a region and not in it
    assert seen.max() == 1


def test_outlines_hold_a_regions_voxels_on_every_slice_and_cut() -> None:
    one = on_voxels(np.maximum(cone((15, 10, 12), (45, 25, 25)), 0.9 * cone((12, 9, 9), (60, 52, 55))))
    first, second = volume_regions(one, spacing_mm=SPACING)
    placed = one.on_image()
    for axis in range(3):
        for region, other in ((first, second), (second, first)):
            plane = Plane(axis=axis, index=int(region.peak[2 - axis]))
            (line,) = outlines(one, region, plane)
            down, across = (SHAPE[each] for each in plane.shown_axes)
            y, x = np.mgrid[:down, :across] + 0.5
            inside = points_in_poly(np.stack([x.ravel(), y.ravel()], axis=1), line)  # type: ignore[no-untyped-call]
            high = np.take(placed, plane.index, axis=axis) >= region.threshold_level
            for spot in other.peak:
                assert spot > 0
            near = _only(high, region, plane)
            assert (inside.reshape(high.shape) != near).sum() <= 0.12 * near.sum() + 4
    slices = dict(slice_outlines(one, first))
    assert set(slices) <= set(range(first.box[2], first.box[5]))
    assert len(slices) >= first.box[5] - first.box[2] - 2
    assert outlines(one, first, Plane(axis=0, index=0)) == []


def _only(high: np.ndarray, region: VolumeRegion, plane: Plane) -> np.ndarray:
    """What is high inside the region's box."""
    x0, y0, z0, x1, y1, z1 = region.box
    spans = [(z0, z1), (y0, y1), (x0, x1)]
    (top, bottom), (left, right) = (spans[axis] for axis in plane.shown_axes)
    window = np.zeros_like(high)
    window[top:bottom, left:right] = high[top:bottom, left:right]
    return window


def test_a_blank_map_has_no_regions() -> None:
    for values in (np.zeros((4, 4, 4)), np.ones((4, 4, 4)), -np.ones((4, 4, 4)), np.full((4, 4, 4), np.nan)):
        assert volume_regions(saliency(values)) == ()
    rising = saliency(np.arange(8).reshape(2, 2, 2))
    assert volume_regions(rising, threshold=fixed_level(100.0)) == ()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_of_the_map_is_the_slice_of_the_placed_map(axis: int) -> None:
    one = saliency(np.random.default_rng(7).standard_normal((4, 5, 6)))
    placed = one.on_image()
    volume = Volume(voxels=np.random.default_rng(8).random(SHAPE, dtype=np.float32), spacing_mm=SPACING)
    for index in (0, 3, SHAPE[axis] - 1):
        plane = Plane(axis=axis, index=index)
        assert map_slice(one, plane).on_image() == pytest.approx(np.take(placed, index, axis=axis), abs=1e-6)
        image = image_slice(volume, plane)
        assert (image.pixels == np.take(volume.voxels, index, axis=axis)).all()
        assert image.spacing_mm == tuple(SPACING[each] for each in plane.shown_axes)
    for wrong in (Plane(axis=axis, index=SHAPE[axis]), Plane(axis=3, index=0), Plane(axis=axis, index=-1)):
        with pytest.raises(ValueError, match="no plane"):
            map_slice(one, wrong)


def test_a_large_volume_is_never_filled() -> None:
    """The placed map of 512 cubed would be 512 MiB."""
    one = saliency(np.random.default_rng(9).random((8, 16, 16)), shape=(512, 512, 512), grid=128)
    tracemalloc.start()
    found = volume_regions(one, spacing_mm=(0.5, 0.5, 0.5))
    lines = outlines(one, found[0], Plane(axis=1, index=int(found[0].peak[1])))
    plane = place(map_slice(one, Plane(axis=2, index=256)))
    low, high = one.visible_range
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines
    assert plane.shape == (512, 512)
    assert low < high
    assert most < 100 * 2**20


def test_an_explained_volume_has_regions_in_three_dimensions() -> None:
    """Every map of the engine that says something has regions of the chosen kind, with millimetres."""
    image = picture((16, 32, 32))
    case = Case(name="volume", module=network(dimensions=3), target="target", image=image)
    card = case.classifier.card
    findings = [Finding(label=label, logit=1.0, probability=0.8) for label in card.labels[:2]]
    methods = [method_named("cam"), method_named("grad-cam")]
    options = ExplainOptions(region_threshold=share_of_maximum(0.7), regions_per_map=2)
    for one in explain(image, case.classifier, methods, findings, options=options):
        assert one.planar_regions == ((), ())
        assert one.solid_regions == one.regions
        for saliency, found in zip(one.maps, one.solid_regions, strict=True):
            assert bool(found) == (not saliency.is_blank)
            assert len(found) <= 2
            assert saliency.unit == method_named(saliency.method).scale.unit
            for region in found:
                assert region.threshold_fraction == 0.7
                assert region.volume_mm3 == pytest.approx(2 * region.volume_voxels)
    assert any(one.solid_regions[0] for one in explain(image, case.classifier, methods, findings))
