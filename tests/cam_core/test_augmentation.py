"""A changed picture is the one that a slow reading of the change gives; its border stays border."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import cos, floor, pi, sin

import numpy as np
import pytest

from cam_core.augmentation import Change, changed, draw
from cam_core.card import Augmentations
from cam_core.image import fit_to
from cam_core.model_input import Fitted

STILL = Change(shift=np.zeros(2), rotation=0.0, zoom=1.0, mirrored=False, brightness=0.0, contrast=1.0, noise=None)


def fitted(grid: tuple[int, ...], channels: int = 1, source: tuple[int, ...] | None = None) -> Fitted:
    """Noise on a grid; a source of another shape leaves a black border."""
    fit = fit_to(source or grid, grid, "pad")
    values = np.random.default_rng(2).uniform(0.2, 0.8, (*grid, channels)).astype(np.float32)
    return Fitted(values=values, fit=fit, pitch=(1.0,) * len(grid))


def slow(plane: np.ndarray, change: Change, pitch: tuple[float, ...], outside: float) -> np.ndarray:
    """Every pixel for itself: where it comes from in the body, and what its neighbours there weigh."""
    axes, sizes = plane.ndim, plane.shape
    made = np.zeros(sizes)
    for place in np.ndindex(*sizes):
        off = [place[i] - (sizes[i] - 1) / 2 - change.shift[i] * sizes[i] for i in range(axes)]
        row, column = off[-2] * pitch[-2], off[-1] * pitch[-1]
        if change.mirrored:
            column = -column
        row, column = (
            (cos(change.rotation) * row + sin(change.rotation) * column) / change.zoom,
            (-sin(change.rotation) * row + cos(change.rotation) * column) / change.zoom,
        )
        off[-2], off[-1] = row / pitch[-2], column / pitch[-1]
        read = [off[i] + (sizes[i] - 1) / 2 for i in range(axes)]
        for corner in product((0, 1), repeat=axes):
            cell = [floor(read[i]) + corner[i] for i in range(axes)]
            weight = np.prod([1 - abs(read[i] - cell[i]) for i in range(axes)])
            there = all(0 <= cell[i] < sizes[i] for i in range(axes))
            made[place] += weight * (plane[tuple(cell)] if there else outside)
    return made


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("pitch", [(1.0, 1.0), (0.5, 2.0)])
def test_a_picture_moves_as_a_slow_reading_says(mirrored: bool, pitch: tuple[float, ...]) -> None:
    picture = replace(fitted((11, 14), channels=3), pitch=pitch)
    change = replace(STILL, shift=np.array([0.1, -0.07]), rotation=0.3, zoom=1.2, mirrored=mirrored)
    made = changed(picture, change, 0.25)
    assert made.shape == (11, 14, 3)
    assert made.dtype == np.float32
    for channel in range(3):
        expected = slow(picture.values[..., channel], change, pitch, 0.25)
        np.testing.assert_allclose(made[..., channel], expected, atol=1e-6)


def test_a_volume_turns_in_the_plane_and_shifts_along_every_axis() -> None:
    picture = replace(fitted((5, 7, 6)), pitch=(4.0, 1.0, 1.5))
    change = replace(STILL, shift=np.array([0.2, 0.05, -0.1]), rotation=-0.2, zoom=0.9)
    made = changed(picture, change, 0.0)
    np.testing.assert_allclose(made[..., 0], slow(picture.values[..., 0], change, picture.pitch, 0.0), atol=1e-6)


def test_a_quarter_turn_keeps_lengths_in_the_body() -> None:
    values = np.zeros((9, 9, 1), np.float32)
    values[4 + 4, 4] = 1  # four rows of 0.5 mm below the centre
    picture = Fitted(values=values, fit=fit_to((9, 9), (9, 9), "pad"), pitch=(0.5, 1.0))
    made = changed(picture, replace(STILL, rotation=pi / 2), 0.0)[..., 0]
    place = np.unravel_index(made.argmax(), made.shape)
    assert place[0] == 4
    assert abs(int(place[1]) - 4) == 2  # two columns of 1 mm


def test_no_change_is_no_change_and_a_mirror_is_exact() -> None:
    picture = fitted((8, 10), channels=3)
    assert (changed(picture, STILL, 0.0) == picture.values).all()
    assert (changed(picture, replace(STILL, mirrored=True), 0.0) == picture.values[:, ::-1]).all()


def test_brightness_contrast_and_noise_change_the_film_and_not_its_border() -> None:
    picture = fitted((8, 8), source=(8, 4))
    picture.values[:, :2] = picture.values[:, 6:] = 0
    noise = np.random.default_rng(4).normal(0, 0.05, (8, 8)).astype(np.float32)
    made = changed(picture, replace(STILL, brightness=0.25, contrast=1.5, noise=noise), 0.0)[..., 0]
    film = picture.values[:, 2:6, 0]
    expected = np.clip(0.5 + 1.5 * (film - 0.5) + 0.25 + noise[:, 2:6], 0, 1)
    np.testing.assert_allclose(made[:, 2:6], expected, atol=1e-6)
    assert expected.max() == 1
    assert not made[:, :2].any()
    assert not made[:, 6:].any()


def test_the_border_moves_with_the_film() -> None:
    picture = fitted((8, 8), source=(8, 4))
    picture.values[...] = 0
    picture.values[:, 2:6] = 0.5
    made = changed(picture, replace(STILL, shift=np.array([0.0, 0.125]), brightness=0.2), 0.0)[..., 0]
    np.testing.assert_allclose(made, [[0, 0, 0, 0.7, 0.7, 0.7, 0.7, 0]] * 8, atol=1e-6)


ALL = Augmentations(shift=0.1, rotation=10, scale=0.2, brightness=0.1, contrast=0.3, noise=0.05, mirror_invariant=True)


def test_draws_stay_within_the_card_and_fill_it() -> None:
    drawn = [draw(ALL, (6, 6), np.random.default_rng((7, number))) for number in range(2000)]
    for amounts, most in (
        ([one.shift[0] for one in drawn], 0.1),
        ([one.shift[1] for one in drawn], 0.1),
        ([one.rotation for one in drawn], np.radians(10)),
        ([one.zoom - 1 for one in drawn], 0.2),
        ([one.brightness for one in drawn], 0.1),
        ([one.contrast - 1 for one in drawn], 0.3),
    ):
        assert np.abs(amounts).max() <= most
        np.testing.assert_allclose(np.std(amounts), most / np.sqrt(3), rtol=0.05)
        assert abs(np.mean(amounts)) < 4 * most / np.sqrt(3 * 2000)
    assert 0.45 < np.mean([one.mirrored for one in drawn]) < 0.55
    np.testing.assert_allclose(np.std([one.noise for one in drawn]), 0.05, rtol=0.02)


def test_one_more_augmentation_leaves_the_others_as_they_were() -> None:
    few = draw(Augmentations(rotation=10), (6, 6), np.random.default_rng(3))
    more = draw(ALL, (6, 6), np.random.default_rng(3))
    assert few.rotation == more.rotation
    assert (few.brightness, few.contrast, few.zoom, few.mirrored, few.noise) == (0, 1, 1, False, None)
    assert not few.shift.any()
