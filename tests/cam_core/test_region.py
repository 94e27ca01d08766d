"""Tests of the regions of a picture's map against shapes of known size and slow counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import points_in_poly

from cam_core.contour import outer_lines
from cam_core.image import fit_to
from cam_core.part import LEAST_SHARE
from cam_core.region import Region, regions
from cam_core.registration import Registration, input_registration
from cam_core.saliency import SaliencyMap, place
from cam_core.threshold import OTSU, Threshold, fixed_level, level_of, share_of_maximum

CELLS, GRID = 32, 256


def saliency(values: np.ndarray, shape: tuple[int, int] = (256, 256), mode: str = "pad") -> SaliencyMap:
    return SaliencyMap(
        values=values.astype(np.float32),
        method="grad-cam",
        variant="",
        title="Grad-CAM",
        label="finding 0",
        fit=fit_to(shape, (GRID, GRID), mode),  # type: ignore[arg-type]
        registration=Registration(start=(0.0, 0.0), step=(8.0, 8.0), measured=True),
    )


def blob(row: float, column: float, size: float, height: float = 1.0) -> np.ndarray:
    """A Gaussian on the cells; positions and size in cells."""
    y, x = np.mgrid[:CELLS, :CELLS]
    return height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))


def polygon_area(line: np.ndarray) -> float:
    x, y = line.T
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))) / 2


def test_a_blob_has_its_area_peak_and_outline() -> None:
    """Half of a Gaussian's maximum lies at 1.1774 sigma."""
    one = saliency(blob(12, 18, 3))
    (found,) = regions(one, spacing_mm=(0.2, 0.4))
    radius = 1.17741 * 3 * 8
    assert found.area_pixels == pytest.approx(np.pi * radius**2, rel=0.03)
    assert polygon_area(found.contour) == pytest.approx(found.area_pixels, rel=0.02)
    assert found.area_mm2 == pytest.approx(found.area_pixels * 0.08)
    assert found.peak == pytest.approx((18 * 8 + 0.5, 12 * 8 + 0.5), abs=1)
    assert found.peak_value == pytest.approx(1, abs=0.01)
    assert 0.5 < found.mean_value < 1
    assert found.share == pytest.approx(0.5, abs=0.03)  # mass of a Gaussian within its half maximum
    assert (found.threshold_kind, found.threshold_fraction) == ("share", 0.5)
    assert found.threshold_level == pytest.approx(0.5, abs=0.01)
    distance = np.hypot(found.contour[:, 0] - 144.5, found.contour[:, 1] - 96.5)
    assert distance == pytest.approx(np.full(len(distance), radius), abs=2)
    x0, y0, x1, y1 = found.box
    assert (x0, x1) == pytest.approx((144.5 - radius, 144.5 + radius), abs=2)
    assert (y0, y1) == pytest.approx((96.5 - radius, 96.5 + radius), abs=2)


def test_an_ellipse_in_pixels_is_a_disc_in_millimetres() -> None:
    """Rows of 0.2 mm and columns of 0.5 mm: a disc of 25 mm radius is 250 pixels high and 100 wide."""
    y, x = (np.mgrid[:700, :300] + 0.5).astype(np.float64)
    away = np.hypot((y - 350) * 0.2, (x - 150) * 0.5)
    one = saliency(np.zeros((1, 1)), shape=(700, 300))
    one = replace(
        one,
        values=np.clip(1 - away / 50, 0, None).astype(np.float32),  # half of its maximum at 25 mm
        fit=fit_to((700, 300), (700, 300), "stretch"),
        registration=input_registration((700, 300)),
    )
    (found,) = regions(one, spacing_mm=(0.2, 0.5), threshold=fixed_level(0.5))
    assert found.area_mm2 == pytest.approx(np.pi * 25**2, rel=0.005)
    x0, y0, x1, y1 = found.box
    assert ((x1 - x0) * 0.5, (y1 - y0) * 0.2) == pytest.approx((50, 50), abs=1.5)
    assert np.hypot((found.contour[:, 0] - 150) * 0.5, (found.contour[:, 1] - 350) * 0.2) == pytest.approx(25, abs=0.6)


def test_areas_in_mm_only_with_spacing() -> None:
    assert regions(saliency(blob(12, 18, 3)))[0].area_mm2 is None


def test_regions_scale_with_the_image_and_its_borders() -> None:
    """On a picture four times as large and twice as high as wide, padded to the grid."""
    one = saliency(blob(12, 18, 2), shape=(2048, 1024))
    (found,) = regions(one)
    assert found.area_pixels == pytest.approx(np.pi * (1.17741 * 16 * 8) ** 2, rel=0.05)
    assert found.peak == pytest.approx(((18 * 8 + 0.5 - 64) * 8, (12 * 8 + 0.5) * 8), abs=8)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(256, 256), (100, 37), (600, 1400), (3, 50), (1, 1)]),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    threshold=st.sampled_from([0.05, 0.5, 0.95, OTSU, fixed_level(0.3), fixed_level(0.7)]),
    plateaus=st.booleans(),
)
def test_every_region_is_inside_its_image_and_closed(
    seed: int, shape: tuple[int, int], cells: tuple[int, int], threshold: Threshold | float, plateaus: bool
) -> None:
    values = np.random.default_rng(seed).uniform(-0.5, 1, cells)
    if plateaus:
        values = np.round(values * 10) / 10
    one = saliency(values, shape=shape, mode="stretch")
    found = regions(one, threshold=threshold, limit=4)
    assert sum(each.share for each in found) <= 1 + 1e-9
    assert [each.share for each in found] == sorted((each.share for each in found), reverse=True)
    assert [each.number for each in found] == list(range(1, len(found) + 1))
    for each in found:
        check_region(each, shape)
    if one.is_blank:
        assert found == ()
    elif not isinstance(threshold, Threshold) or threshold.kind != "fixed":
        assert found
    again = regions(one, threshold=threshold, limit=4)
    assert [(each.box, each.peak, each.share, each.contour.tobytes()) for each in again] == [
        (each.box, each.peak, each.share, each.contour.tobytes()) for each in found
    ]


def check_region(each: Region, shape: tuple[int, int]) -> None:
    assert len(each.contour) >= 4
    assert (each.contour[0] == each.contour[-1]).all()
    assert polygon_area(each.contour) > 0
    assert each.contour.min() >= 0
    assert (each.contour.max(axis=0) <= (shape[1], shape[0])).all()
    x0, y0, x1, y1 = each.box
    assert 0 <= x0 < x1 <= shape[1]
    assert 0 <= y0 < y1 <= shape[0]
    assert x0 <= each.peak[0] <= x1
    assert y0 <= each.peak[1] <= y1
    assert 0 < each.area_pixels <= shape[0] * shape[1] + 1e-6
    assert each.threshold_level <= each.mean_value <= each.peak_value + 1e-6
    assert 0 < each.threshold_fraction <= 1
    assert each.number <= each.of


def test_regions_agree_with_a_flood_fill_over_the_placed_map() -> None:
    values = blob(6, 6, 1) + blob(24, 24, 3, 0.8) + blob(6, 24, 1.5, 0.9)
    one = saliency(values, shape=(512, 512))
    placed = place(one, (512, 512)).astype(np.float64)
    level = 0.5 * placed.max()
    expected = sorted(flooded(placed, level), key=lambda spots: -sum(placed[spot] for spot in spots))
    found = regions(one)
    assert len(found) == len(expected) == 3
    for each, spots in zip(found, expected, strict=True):
        rows, columns = zip(*spots, strict=True)
        assert each.area_pixels == len(spots)
        assert each.box == (min(columns), min(rows), max(columns) + 1, max(rows) + 1)
        assert each.share == pytest.approx(sum(placed[spot] for spot in spots) / placed.sum())
        top = max(spots, key=lambda spot: (placed[spot], -spot[0], -spot[1]))
        assert each.peak == (top[1] + 0.5, top[0] + 0.5)
        middles = [(column + 0.5, row + 0.5) for row, column in spots]
        assert points_in_poly(middles, each.contour).mean() > 0.99  # type: ignore[no-untyped-call]


def flooded(values: np.ndarray, level: float) -> list[list[tuple[int, int]]]:
    """Connected pixels, eight neighbours, one at a time."""
    left = {(int(row), int(column)) for row, column in np.argwhere(values >= level)}
    parts = []
    while left:
        part, edge = [], [left.pop()]
        while edge:
            row, column = edge.pop()
            part.append((row, column))
            near = {(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += sorted(near)
        parts.append(part)
    return parts


def test_most_evidence_comes_first_and_few_are_kept() -> None:
    values = blob(6, 6, 1) + blob(24, 24, 3, 0.8) + blob(6, 24, 1.5, 0.9) + blob(24, 6, 0.8, 0.4)
    found = regions(saliency(values))
    assert len(found) == 3
    assert found[0].peak == pytest.approx((24 * 8 + 0.5, 24 * 8 + 0.5), abs=2)
    assert len(regions(saliency(values), limit=2)) == 2
    assert regions(saliency(values), limit=0) == ()
    assert len(regions(saliency(values), threshold=0.2)) == 4


def test_equal_peaks_and_equal_regions_are_in_reading_order() -> None:
    """Two plateaus of equal height and size: nothing but their place can order them."""
    values = np.zeros((CELLS, CELLS))
    values[20:25, 3:8] = values[5:10, 22:27] = 2.0
    first, second = regions(saliency(values))
    assert first.peak_value == second.peak_value == 2.0
    assert first.share == pytest.approx(second.share, abs=1e-6)
    assert first.box[1] < second.box[1]
    x, y = first.peak
    assert (x, y) == pytest.approx((22 * 8 + 0.5, 5 * 8 + 0.5), abs=1)  # the plateau's upper left corner


def test_otsu_finds_the_level_that_parts_best() -> None:
    """A slow search: of all levels, the one with the largest variance between the two classes."""
    one = saliency(blob(12, 18, 3) + 0.15 * blob(25, 8, 6) + 0.02 * np.random.default_rng(1).random((CELLS, CELLS)))
    (found, *_) = regions(one, threshold=OTSU)
    placed = place(one, (512, 512))
    positive = np.sort(placed[placed > 0].astype(np.float64))
    sums, number = np.cumsum(positive), np.arange(1, positive.size + 1)
    low, high = sums / number, (sums[-1] - sums) / np.maximum(positive.size - number, 1)
    between = number * (positive.size - number) * (low - high) ** 2
    best = positive[int(np.argmax(between))]
    assert found.threshold_kind == "otsu"
    assert found.threshold_level == pytest.approx(best, abs=positive[-1] / 128)  # two of its 256 steps
    assert found.threshold_fraction == pytest.approx(found.threshold_level / placed.max())
    scaled = regions(replace(one, values=one.values * np.float32(1e-30)), threshold=OTSU)[0]
    assert scaled.threshold_fraction == pytest.approx(found.threshold_fraction, rel=1e-4)


def test_a_fixed_level_is_in_the_maps_own_values() -> None:
    (found,) = regions(saliency(3 * blob(12, 18, 3)), threshold=fixed_level(1.5))
    (half,) = regions(saliency(3 * blob(12, 18, 3)))
    assert found.area_pixels == pytest.approx(half.area_pixels, rel=0.01)
    assert (found.threshold_kind, found.threshold_level) == ("fixed", 1.5)
    assert found.threshold_fraction == pytest.approx(0.5, abs=0.01)
    assert regions(saliency(3 * blob(12, 18, 3)), threshold=fixed_level(3.5)) == ()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, np.nan])
def test_shares_outside_the_map_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="not between 0 and 1"):
        regions(saliency(blob(3, 3, 1)), threshold=share)


@pytest.mark.parametrize(
    ("kind", "value"), [("fixed", 0.0), ("fixed", -1.0), ("fixed", None), ("fixed", np.inf), ("otsu", 0.4)]
)
def test_thresholds_that_are_none(kind: str, value: float | None) -> None:
    with pytest.raises(ValueError, match="threshold"):
        Threshold(kind=kind, value=value)  # type: ignore[arg-type]


def test_levels_of_maps_all_alike() -> None:
    same = np.full((4, 4), 2.5, np.float32)
    assert level_of(OTSU, same) == 2.5
    assert level_of(share_of_maximum(0.5), same) == 1.25
    assert level_of(share_of_maximum(0.5), np.full((2, 2), 1e-45, np.float32)) > 0


def test_a_map_the_same_everywhere_has_no_region() -> None:
    assert regions(saliency(np.ones((CELLS, CELLS)), shape=(300, 200), mode="stretch")) == ()


def test_a_map_high_all_over_is_one_region_of_the_whole_image() -> None:
    (found,) = regions(saliency(1 + 0.1 * blob(5, 5, 3), shape=(300, 200), mode="stretch"))
    assert found.box == (0, 0, 200, 300)
    assert found.area_pixels == pytest.approx(60000)
    assert found.share == pytest.approx(1)


def test_parts_that_only_just_reach_the_level_have_an_outline() -> None:
    """A second plateau of exactly half of the maximum."""
    values = np.zeros((CELLS, CELLS))
    values[4:9, 4:9], values[20:26, 20:26] = 1.0, 0.5
    first, second = regions(saliency(values))
    assert (first.peak_value, second.peak_value) == (1.0, 0.5)
    assert polygon_area(second.contour) == pytest.approx(second.area_pixels, rel=0.1)


def test_regions_tell_their_number_how_many_there_are_and_which_were_too_small() -> None:
    """Two blobs and a speck of a hundredth of their width."""
    values = blob(8, 8, 2) + blob(24, 22, 2, 0.9) + blob(4, 28, 0.15, 0.7)
    one = saliency(values)
    first, second = regions(one)
    assert [(each.number, each.of, each.specks) for each in (first, second)] == [(1, 2, 1), (2, 2, 1)]
    (only,) = regions(one, limit=1)
    assert (only.number, only.of) == (1, 2)
    assert first.share >= second.share > LEAST_SHARE


def test_outer_lines_leave_holes_out_and_never_shrink_to_nothing() -> None:
    ring = np.zeros((20, 20), np.float32)
    ring[4:14, 5:15], ring[7:11, 8:12] = 1.0, 0.0
    (line,) = outer_lines(ring, 0.5)
    assert polygon_area(line) == pytest.approx(100, abs=1)
    dots = np.zeros((9, 9), np.float32)
    dots[0, 0], dots[4, 2:7] = 0.5, 0.5
    long, dot = outer_lines(dots, 0.5)
    assert polygon_area(long) == pytest.approx(5)
    assert polygon_area(dot) == pytest.approx(1)
    assert ndimage.label(dots)[1] == 2
    assert outer_lines(dots, 0.6) == []
