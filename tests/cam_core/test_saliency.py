"""Tests of maps: what they say, their names and their place on pictures and volumes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cam_core import saliency as saliency_module
from cam_core.image import fit_to
from cam_core.registration import Registration
from cam_core.saliency import MapCondition, SaliencyMap, place

GRID = 256


def saliency(values: np.ndarray, shape: tuple[int, ...] = (256, 256), mode: str = "pad") -> SaliencyMap:
    axes = values.ndim
    return SaliencyMap(
        values=values.astype(np.float32),
        method="grad-cam",
        variant="",
        title="Grad-CAM",
        label="finding 0",
        fit=fit_to(shape, (GRID,) * axes, mode),  # type: ignore[arg-type]
        registration=Registration(start=(0.0,) * axes, step=(8.0,) * axes, measured=True),
    )


def blob(row: float, column: float, size: float, height: float = 1.0) -> np.ndarray:
    """A Gaussian on the cells; positions and size in cells."""
    y, x = np.mgrid[:32, :32]
    return height * np.exp(-((y - row) ** 2 + (x - column) ** 2) / (2 * size**2))


@pytest.mark.parametrize(
    ("values", "condition"),
    [
        ([[0, 0]], MapCondition.NO_POSITIVE_EVIDENCE),
        ([[-1, 0]], MapCondition.NO_POSITIVE_EVIDENCE),
        ([[1, np.nan]], MapCondition.NOT_FINITE),
        ([[np.inf, 0]], MapCondition.NOT_FINITE),
        ([[2e-9, 2e-9]], MapCondition.FLAT),
        ([[1.0, 1.000001]], MapCondition.FLAT),
        ([[1.0, 1.001]], MapCondition.POSITIVE_EVIDENCE),
        ([[-1, 1e-30]], MapCondition.POSITIVE_EVIDENCE),
    ],
)
def test_a_map_says_why_it_says_nothing(values: list[list[float]], condition: MapCondition) -> None:
    one = saliency(np.array(values))
    assert one.condition is condition
    assert one.is_blank is (condition is not MapCondition.POSITIVE_EVIDENCE)
    assert bool(condition.value) is one.is_blank
    told = replace(one, class_evidence=False)
    assert told.condition in (MapCondition.NO_CLASS_EVIDENCE, MapCondition.NOT_FINITE)


def test_evidence_in_the_added_border_only_is_said_to_be_there() -> None:
    """A picture twice as high as wide fills the middle half of the grid's columns."""
    at_the_side = saliency(blob(12, 1, 1) - 0.01, shape=(2048, 1024))
    assert at_the_side.condition is MapCondition.OUTSIDE
    assert place(at_the_side).max() <= 0
    assert saliency(blob(12, 10, 1) - 0.01, shape=(2048, 1024)).condition is MapCondition.POSITIVE_EVIDENCE


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=st.tuples(st.integers(1, 70), st.integers(1, 70)), stretch=st.booleans())
def test_the_visible_range_is_that_of_the_image(seed: int, shape: tuple[int, int], stretch: bool) -> None:
    """A slow oracle: every value between the first and the last pixel centre, read twenty times as finely."""
    values = np.random.default_rng(seed).standard_normal((5, 6)).astype(np.float32)
    one = saliency(values, shape=shape, mode="stretch" if stretch else "pad")
    one = replace(one, registration=Registration(start=(11.0, 3.0), step=(57.0, 44.0), measured=True))
    lines = []
    for axis in (0, 1):
        centres = (np.array([0.5, shape[axis] - 0.5]) * one.fit.scale[axis] + one.fit.offset[axis] - 0.5).tolist()
        cells = [(centre - one.registration.start[axis]) / one.registration.step[axis] for centre in centres]
        lines.append(np.unique([*np.linspace(*cells, 2000), *[c for c in range(6) if cells[0] <= c <= cells[1]]]))
    fine = ndimage.map_coordinates(
        values.astype(np.float64), np.meshgrid(*lines, indexing="ij"), order=1, mode="nearest"
    )
    assert one.visible_range == pytest.approx((fine.min(), fine.max()), abs=1e-6)
    low, high = one.visible_range
    placed = one.on_image()
    assert low - 1e-6 <= placed.min()
    assert placed.max() <= high + 1e-6


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


def test_a_volume_is_placed_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).standard_normal((7, 9, 8)).astype(np.float32)
    one = saliency(values, shape=(40, 33, 28))
    whole = one.on_image()
    monkeypatch.setattr(saliency_module, "BLOCK_VOXELS", 3 * 33 * 28)
    assert (one.on_image() == whole).all()
    lines = [
        ((np.arange(size) + 0.5) * scale + offset - 0.5) / 8
        for size, scale, offset in zip((40, 33, 28), one.fit.scale, one.fit.offset, strict=True)
    ]
    slow = ndimage.map_coordinates(
        values.astype(np.float64), np.meshgrid(*lines, indexing="ij"), order=1, mode="nearest"
    )
    assert whole == pytest.approx(slow, abs=1e-5)


def test_names_and_titles() -> None:
    one = saliency(np.ones((2, 2)))
    assert (one.name, one.full_title) == ("grad-cam", "Grad-CAM")
    other = replace(one, variant="paper")
    assert (other.name, other.full_title) == ("grad-cam:paper", "Grad-CAM (paper)")
