"""Occlusion sensitivity against plain loops, and the tiling that it makes of a grid."""

from __future__ import annotations

import numpy as np
import pytest
from small_evidence import asked

from cam_core.errors import ExplanationFailed
from cam_core.method import method_named
from cam_core.methods.occlusion import tiling
from cam_core.registration import cells_on_grid

GRIDS = [(224, 224), (32, 32), (31, 100), (8, 9), (299, 47), (32, 64, 64), (4, 8, 9), (5, 33, 17), (96, 96, 96)]


@pytest.mark.parametrize("grid", GRIDS)
def test_patches_are_equal_overlap_and_cover_the_grid_exactly(grid: tuple[int, ...]) -> None:
    made = tiling(grid)
    covered = np.zeros(grid, int)
    for patch in made.patches:
        assert covered[patch].shape == made.size
        covered[patch] += 1
    assert covered.min() >= 1
    assert len(made.patches) == np.prod(made.count) <= (225 if len(grid) == 2 else 343)
    for side, stride, size, count in zip(grid, made.stride, made.size, made.count, strict=True):
        assert (count - 1) * stride + size == side
        assert 2 * stride <= size < 3 * stride
    middles = [tuple((side.start + side.stop - 1) / 2 for side in patch) for patch in made.patches]
    place = made.registration
    for at, middle in zip(np.ndindex(*made.count), middles, strict=True):
        assert middle == tuple(start + i * step for start, i, step in zip(place.start, at, place.step, strict=True))


@pytest.mark.parametrize("variant", ["mean", "zero"])
@pytest.mark.parametrize(("grid", "cells"), [((16, 22), (4, 4)), ((4, 9, 12), (2, 3, 3))])
def test_values_are_what_the_logit_loses(variant: str, grid: tuple[int, ...], cells: tuple[int, ...]) -> None:
    source = np.random.default_rng(2)
    given = source.normal(0.7, 1, size=(2, *grid)).astype(np.float32)
    weights = source.normal(size=(given.size, 3)).astype(np.float32)

    def model(batch: np.ndarray) -> np.ndarray:
        return np.tanh(batch.reshape(len(batch), -1) @ weights / 20).astype(np.float32)

    found = method_named(f"occlusion:{variant}").maps(
        asked(model, given, np.ones((3, *cells), np.float32), labels=(2, 0))
    )
    made = tiling(grid)
    assert found.registration == made.registration
    assert found.baseline is not None
    for patch, at in zip(made.patches, np.ndindex(*made.count), strict=True):
        covered = given.copy()
        for channel in covered:
            channel[patch] = channel.mean() if variant == "mean" else 0
        covered[:] = np.where(covered == given, given, covered)
        loss = model(given[None])[0].astype(float) - model(covered[None])[0]
        assert found.values[(slice(None), *at)] == pytest.approx(loss[[2, 0]], rel=1e-3, abs=1e-5)
    assert found.values.min() < 0 < found.values.max()


def test_the_map_peaks_where_the_model_looks() -> None:
    given = np.random.default_rng(0).normal(size=(1, 64, 80)).astype(np.float32)
    given[:, 40:46, 20:26] = 9

    def model(batch: np.ndarray) -> np.ndarray:
        return np.clip(batch, 5, None).mean(axis=(1, 2, 3))[:, None]

    found = method_named("occlusion").maps(asked(model, given, np.ones((2, 4, 5), np.float32), labels=(0,)))
    assert found.registration is not None
    spread = cells_on_grid(found.values, found.registration, (64, 80))[0]
    at = np.unravel_index(spread.argmax(), spread.shape)
    assert np.hypot(at[0] - 42.5, at[1] - 22.5) <= 4


def test_scores_that_are_no_numbers_fail_loudly() -> None:
    given = np.ones((1, 16, 16), np.float32)

    def broken(batch: np.ndarray) -> np.ndarray:
        return np.full((len(batch), 1), np.nan, np.float32)

    with pytest.raises(ExplanationFailed, match="not finite"):
        method_named("occlusion").maps(asked(broken, given, np.ones((2, 4, 4), np.float32), labels=(0,)))
