"""Tests of the image and its invertible way to a model's grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cam_core.errors import ImageError
from cam_core.image import Image, Volume, fit_to, from_grid, grey, grid_positions, to_grid, with_channels
from cam_core.resample import resize, sample_linear

sizes = st.integers(2, 90)


@settings(max_examples=60, deadline=None)
@given(rows=sizes, columns=sizes, grid=st.tuples(sizes, sizes), mode=st.sampled_from(["pad", "stretch"]))
def test_a_fit_maps_corners_inside_the_grid_and_back(rows: int, columns: int, grid: tuple[int, int], mode: str) -> None:
    fit = fit_to((rows, columns), grid, mode)  # type: ignore[arg-type]
    for axis, size in enumerate((rows, columns)):
        first, last = fit.offset[axis], size * fit.scale[axis] + fit.offset[axis]
        assert 0 <= first < last <= grid[axis] + 1e-9
        assert (last - fit.offset[axis]) / fit.scale[axis] == pytest.approx(size)
    if mode == "stretch":
        assert fit.offset == (0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(20, 80),
    columns=st.integers(20, 80),
    grid=st.tuples(st.integers(20, 80), st.integers(20, 80)),
    mode=st.sampled_from(["pad", "stretch"]),
    slope=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_a_plane_survives_the_way_there_and_back(
    rows: int, columns: int, grid: tuple[int, int], mode: str, slope: tuple[float, float]
) -> None:
    """A tilted plane comes back in its place, to a third of a pixel, wherever neither filter touches an edge."""
    y, x = np.mgrid[:rows, :columns]
    plane = (slope[0] * y / rows + slope[1] * x / columns).astype(np.float32)
    fit = fit_to((rows, columns), grid, mode)  # type: ignore[arg-type]
    back = from_grid(to_grid(plane, fit, 0.0), fit)
    assert back.shape == plane.shape
    margin = [int(np.ceil(2 + 2 / scale)) for scale in fit.scale]
    inner = (slice(margin[0], rows - margin[0]), slice(margin[1], columns - margin[1]))
    allowed = (abs(slope[0]) / rows + abs(slope[1]) / columns) / 3 + 1e-5
    assert np.abs(back[inner] - plane[inner]).max(initial=0) < allowed


def test_the_grid_is_torchs_antialiased_bilinear_resize() -> None:
    pixels = np.random.default_rng(0).random((97, 61), dtype=np.float32)
    for shape in ((32, 20), (140, 200), (97, 30), (1, 1)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(pixels)[None, None], shape, mode="bilinear", antialias=True, align_corners=False
        )[0, 0].numpy()
        assert np.abs(resize(pixels, shape) - expected).max() < 1e-5


def test_padding_is_centred_and_has_its_value() -> None:
    fit = fit_to((40, 20), (32, 32), "pad")
    grid = to_grid(np.ones((40, 20), np.float32), fit, 0.25)
    assert (grid[:, :8] == 0.25).all()
    assert (grid[:, 24:] == 0.25).all()
    assert np.allclose(grid[:, 8:24], 1)


def test_positions_of_pixel_centres_on_the_grid() -> None:
    fit = fit_to((40, 20), (80, 80), "pad")
    rows, columns = grid_positions(fit, (40, 20))
    assert rows[0] == pytest.approx(0.5)
    assert rows[-1] == pytest.approx(78.5)
    assert columns[0] == pytest.approx(20.5)


def test_sampling_between_cells_and_holding_edges() -> None:
    plane = np.array([[0.0, 2.0], [4.0, 6.0]], np.float32)
    found = sample_linear(plane, [np.array([-3.0, 0.5, 9.0]), np.array([0.25])])
    assert found[:, 0] == pytest.approx([0.5, 2.5, 4.5])
    assert sample_linear(plane[:1, :1], [np.array([0.0, 5.0]), np.array([1.0])]).tolist() == [[0.0], [0.0]]


def test_a_volume_is_sampled_trilinearly() -> None:
    source = np.random.default_rng(2)
    values = source.random((2, 4, 5, 6), dtype=np.float32)
    positions = [source.uniform(-1, size, 7) for size in (4, 5, 6)]
    found = sample_linear(values, positions)
    slow = np.stack(
        [
            ndimage.map_coordinates(
                one.astype(np.float64), np.meshgrid(*positions, indexing="ij"), order=1, mode="nearest"
            )
            for one in values
        ]
    )
    assert found == pytest.approx(slow, abs=1e-5)


def test_a_volume_is_resized_like_its_planes_and_its_lines() -> None:
    volume = np.random.default_rng(3).random((9, 12, 10), dtype=np.float32)
    found = resize(volume, (4, 6, 20))
    planes = np.stack([resize(plane, (6, 20)) for plane in volume])
    lines = np.stack([resize(planes[:, i], (4, 20)) for i in range(6)], axis=1)
    assert found == pytest.approx(lines, abs=1e-5)


def test_a_padded_volume_keeps_the_proportions_of_the_body() -> None:
    """10 slices of 5 mm and 100 rows of 0.5 mm are the same length, so they fill the grid alike."""
    fit = fit_to((10, 100, 50), (64, 64, 64), "pad", (5.0, 0.5, 0.5))
    assert fit.scale == pytest.approx((6.4, 0.64, 0.64))
    assert fit.offset == (0.0, 0.0, 16.0)
    voxels = np.random.default_rng(4).random((10, 100, 50), dtype=np.float32)
    grid = to_grid(voxels, fit, 0.25)
    assert (grid[:, :, :16] == 0.25).all()
    back = from_grid(grid, fit)
    assert back.shape == voxels.shape
    smooth = ndimage.uniform_filter(voxels, (1, 3, 3))
    assert np.corrcoef(back.ravel(), smooth.ravel())[0, 1] > 0.8
    shifted = np.roll(smooth, 2, axis=1)
    assert np.corrcoef(back.ravel(), shifted.ravel())[0, 1] < 0.3
    rows = grid_positions(fit, (10, 100, 50))
    assert rows[0][0] == pytest.approx(0.5 * 6.4 - 0.5)
    assert rows[2][0] == pytest.approx(16 + 0.5 * 0.64 - 0.5)


@pytest.mark.parametrize(
    ("voxels", "spacing"),
    [
        (np.zeros((3, 3), np.float32), None),
        (np.zeros((0, 3, 3), np.float32), None),
        (np.full((2, 2, 2), np.inf, np.float32), None),
        (np.zeros((2, 2, 2), np.float32), (1.0, 0.0, 1.0)),
    ],
)
def test_what_is_no_volume_is_refused(voxels: np.ndarray, spacing: tuple[float, float, float] | None) -> None:
    with pytest.raises(ImageError):
        Volume(voxels=voxels, spacing_mm=spacing)


def test_colour_becomes_luminance_and_grey_is_repeated() -> None:
    colour = np.zeros((2, 2, 3), np.float32)
    colour[0, 0] = (1, 0, 0)
    colour[0, 1] = (0, 1, 0)
    colour[1, 0] = (0, 0, 1)
    assert grey(colour) == pytest.approx(np.array([[0.299, 0.587], [0.114, 0.0]]))
    assert with_channels(colour, 1).shape == (2, 2, 1)
    repeated = with_channels(grey(colour), 3)
    assert (repeated[..., 0] == repeated[..., 2]).all()
    assert with_channels(colour, 3) is colour


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((3, 3, 4), np.float32),
        np.zeros((0, 3), np.float32),
        np.full((2, 2), np.nan, np.float32),
        np.zeros(4, np.float32),
    ],
)
def test_what_is_no_picture_is_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ImageError):
        Image(pixels=pixels, spacing_mm=None)


def test_a_fit_for_another_shape_is_refused() -> None:
    with pytest.raises(ImageError, match="the fit is for"):
        to_grid(np.zeros((5, 5), np.float32), fit_to((4, 4), (8, 8), "pad"), 0)


@pytest.mark.parametrize("spacing", [(0.0, 0.2), (-1.0, 1.0), (float("nan"), 1.0), (0.5, float("inf"))])
def test_a_picture_with_an_impossible_spacing_is_refused(spacing: tuple[float, float]) -> None:
    with pytest.raises(ImageError, match="spacing"):
        Image(pixels=np.zeros((4, 4), np.float32), spacing_mm=spacing)
