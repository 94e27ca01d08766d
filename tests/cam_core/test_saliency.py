"""Tests of maps, their normalisations, their place and their regions."""

from __future__ import annotations

import numpy as np
import pytest

from cam_core.image import fit_to
from cam_core.registration import Registration
from cam_core.saliency import LEAST_SHARE, SaliencyMap, by_map_maximum, by_range, place, regions

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


def test_normalisations_are_named_and_scale_free() -> None:
    values = np.array([[-1.0, 0.0], [2e-12, 1e-12]], np.float32)
    assert by_map_maximum(values).tolist() == [[0, 0], [1, 0.5]]
    assert not by_map_maximum(-np.ones((2, 2), np.float32)).any()
    assert not by_map_maximum(np.full((2, 2), np.nan, np.float32)).any()
    assert by_range(np.array([-1, 1, 5], np.float32), 0, 4).tolist() == [0, 0.25, 1]
    with pytest.raises(ValueError, match="must be above"):
        by_range(values, 1, 1)


@pytest.mark.parametrize(
    ("values", "blank"),
    [([[0, 0]], True), ([[-1, 0]], True), ([[1, np.nan]], True), ([[np.inf, 0]], True), ([[-1, 1e-30]], False)],
)
def test_blank_maps_are_flagged(values: list[list[float]], blank: bool) -> None:
    one = saliency(np.array(values))
    assert one.is_blank is blank
    if blank:
        assert regions(one) == ()


def test_placing_keeps_raw_values_and_their_place() -> None:
    one = saliency(blob(10, 20, 2, 0.01) - 0.002)
    placed = one.on_image()
    assert placed.shape == (256, 256)
    assert np.unravel_index(placed.argmax(), placed.shape) == (80, 160)
    assert placed[80, 160] == pytest.approx(0.008)
    assert placed.min() == pytest.approx(-0.002)
    half = place(one, (128, 128))
    row, column = np.unravel_index(half.argmax(), half.shape)
    assert row in (39, 40)
    assert column in (79, 80)


def test_a_blob_has_its_area_peak_and_outline() -> None:
    """Half of a Gaussian's maximum lies at 1.1774 sigma."""
    one = saliency(blob(12, 18, 3))
    (found,) = regions(one, spacing_mm=(0.2, 0.4))
    radius = 1.17741 * 3 * 8
    assert found.area_pixels == pytest.approx(np.pi * radius**2, rel=0.03)
    assert found.area_mm2 == pytest.approx(found.area_pixels * 0.08)
    assert found.peak == pytest.approx((18 * 8 + 0.5, 12 * 8 + 0.5), abs=1)
    assert found.peak_value == pytest.approx(1, abs=0.01)
    assert 0.5 < found.mean_value < 1
    assert found.share == pytest.approx(0.5, abs=0.03)  # mass of a Gaussian within its half maximum
    distance = np.hypot(found.contour[:, 0] - 144.5, found.contour[:, 1] - 96.5)
    assert distance == pytest.approx(np.full(len(distance), radius), abs=2)
    x0, y0, x1, y1 = found.box
    assert (x0, x1) == pytest.approx((144.5 - radius, 144.5 + radius), abs=2)
    assert (y0, y1) == pytest.approx((96.5 - radius, 96.5 + radius), abs=2)


def test_areas_in_mm_only_with_spacing() -> None:
    assert regions(saliency(blob(12, 18, 3)))[0].area_mm2 is None


def test_regions_scale_with_the_image_and_its_borders() -> None:
    """On a picture four times as large and twice as high as wide, padded to the grid."""
    one = saliency(blob(12, 18, 2), shape=(2048, 1024))
    (found,) = regions(one)
    assert found.area_pixels == pytest.approx(np.pi * (1.17741 * 16 * 8) ** 2, rel=0.05)
    assert found.peak == pytest.approx(((18 * 8 + 0.5 - 64) * 8, (12 * 8 + 0.5) * 8), abs=8)


@pytest.mark.parametrize("corner", [(0, 0), (0, 31), (31, 31), (16, 31)])
def test_outlines_are_closed_and_inside_the_image(corner: tuple[int, int]) -> None:
    for shape in ((256, 256), (100, 37), (600, 1400)):
        one = saliency(blob(*corner, 4) + blob(16, 16, 2), shape=shape, mode="stretch")
        for found in regions(one):
            assert len(found.contour) >= 4
            assert (found.contour[0] == found.contour[-1]).all()
            assert found.contour.min() >= 0
            assert (found.contour.max(axis=0) <= (shape[1], shape[0])).all()
            x0, y0, x1, y1 = found.box
            assert 0 <= x0 < x1 <= shape[1]
            assert 0 <= y0 < y1 <= shape[0]
            assert x0 <= found.peak[0] <= x1
            assert y0 <= found.peak[1] <= y1


def test_most_evidence_comes_first_and_few_are_kept() -> None:
    values = blob(6, 6, 1) + blob(24, 24, 3, 0.8) + blob(6, 24, 1.5, 0.9) + blob(24, 6, 0.8, 0.4)
    found = regions(saliency(values))
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)
    assert len(found) == 3
    assert found[0].peak == pytest.approx((24 * 8 + 0.5, 24 * 8 + 0.5), abs=2)
    assert len(regions(saliency(values), limit=2)) == 2
    assert len(regions(saliency(values), threshold_fraction=0.2)) == 4
    with pytest.raises(ValueError, match="not between 0 and 1"):
        regions(saliency(values), threshold_fraction=1.0)


def test_a_map_everywhere_high_is_one_region_of_the_whole_image() -> None:
    (found,) = regions(saliency(np.ones((CELLS, CELLS)), shape=(300, 200), mode="stretch"))
    assert found.box == (0, 0, 200, 300)
    assert found.area_pixels == pytest.approx(60000)
    assert found.share == pytest.approx(1)


def test_names_and_titles() -> None:
    one = saliency(np.ones((2, 2)))
    assert (one.name, one.full_title) == ("grad-cam", "Grad-CAM")


def test_regions_tell_their_number_how_many_there_are_and_which_were_too_small() -> None:
    """Two blobs and a speck of a hundredth of their width."""
    values = blob(8, 8, 2) + blob(24, 22, 2, 0.9) + blob(4, 28, 0.15, 0.7)
    one = saliency(values)
    first, second = regions(one)
    assert [(each.number, each.of, each.specks) for each in (first, second)] == [(1, 2, 1), (2, 2, 1)]
    (only,) = regions(one, limit=1)
    assert (only.number, only.of) == (1, 2)
    assert first.share >= second.share > LEAST_SHARE
