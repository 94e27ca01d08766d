"""Occlusion sensitivity against captum and MONAI: the same patches, averaged over each pixel as they do it."""

import numpy as np
import peers
import pytest
import torch
from small_networks import Case

from cam_core.methods.occlusion import Tiling, tiling

TOLERANCE = 1e-5
CASES = ("smooth head", "volume")
LABELS_COMPARED = (0, 3)


def per_pixel(losses: np.ndarray, tiles: Tiling, grid: tuple[int, ...]) -> np.ndarray:
    """For every pixel of the grid the mean loss (*grid) of all patches that cover it."""
    total, covered = np.zeros(grid), np.zeros(grid)
    for loss, patch in zip(losses.ravel(), tiles.patches, strict=True):
        total[patch] += loss
        covered[patch] += 1
    return total / covered


def _losses(ours, one: Case, variant: str, label: int) -> np.ndarray:
    return per_pixel(ours(one, f"occlusion:{variant}")[label], tiling(one.grid), one.grid)


@pytest.mark.parametrize("variant", ["mean", "zero"])
@pytest.mark.parametrize("name", CASES)
def test_captum(case, ours, name, variant):
    library = peers.needed("captum")
    one, tiles = case(name), tiling(case(name).grid)
    cover = torch.full_like(one.batch, float(one.batch.double().mean()) if variant == "mean" else 0.0)
    for label in LABELS_COMPARED:
        theirs = library.Occlusion(one.module).attribute(
            one.batch,
            sliding_window_shapes=(1, *tiles.size),
            strides=(1, *tiles.stride),
            baselines=cover,
            target=label,
            perturbations_per_eval=64,
        )[0, 0]
        losses = _losses(ours, one, variant, label)
        np.testing.assert_allclose(losses, theirs.detach().numpy(), rtol=0, atol=TOLERANCE * np.abs(losses).max())


@pytest.mark.parametrize("name", CASES)
def test_monai(case, ours, name):
    """MONAI gives the covered logits themselves, not what is lost."""
    library = peers.needed("monai")
    one, tiles = case(name), tiling(case(name).grid)
    occlusion = library.OcclusionSensitivity(
        one.module,
        mask_size=tiles.size,
        n_batch=64,
        mode=0.0,
        overlap=[1 - stride / size - 1e-9 for stride, size in zip(tiles.stride, tiles.size, strict=True)],
        activate=False,
        verbose=False,
    )
    with torch.no_grad():
        covered = np.asarray(occlusion(one.batch)[0][0])
        whole = one.module(one.batch)[0].numpy()
    for label in LABELS_COMPARED:
        losses = _losses(ours, one, "zero", label)
        np.testing.assert_allclose(
            whole[label] - losses, covered[label], rtol=0, atol=TOLERANCE * np.abs(covered[label]).max()
        )
