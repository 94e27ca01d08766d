"""Grad-CAM++ and LayerCAM, each against a slow oracle written from its paper."""

from __future__ import annotations

import numpy as np
import pytest
from small_evidence import PLANES, VOLUMES, evidence

from cam_core.method import method_named

BOTH = pytest.mark.parametrize("cells", [PLANES, VOLUMES])


def slow_plus_plus(activations: np.ndarray, gradient: np.ndarray, *, normalised: bool) -> np.ndarray:
    """Equation 19 as it is printed, cell by cell, in double precision; optionally the authors' extra division."""
    total = np.zeros(activations.shape[1:])
    for plane, slope in zip(activations.astype(float), gradient.astype(float), strict=True):
        alpha = np.zeros_like(plane)
        for place in np.ndindex(*plane.shape):
            g = slope[place]
            divisor = 2 * g**2 + plane.sum() * g**3
            alpha[place] = g**2 / divisor if divisor != 0 else 0.0
        if normalised:
            share = alpha[slope > 0].sum()
            alpha = alpha / (share if share != 0 else 1)
        total += (alpha * np.maximum(slope, 0)).sum() * plane
    return np.maximum(total, 0)


@BOTH
@pytest.mark.parametrize("variant", ["paper", "original"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("signed", [False, True])
def test_grad_cam_plus_plus_is_equation_19(variant: str, seed: int, signed: bool, cells: tuple[int, ...]) -> None:
    given = evidence(seed=seed, cells=cells, signed=signed)
    found = method_named(f"grad-cam++:{variant}").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        slow = slow_plus_plus(given.activations, given.gradients[index], normalised=variant == "original")
        assert found[index] == pytest.approx(slow, rel=2e-6, abs=1e-6 * float(slow.max()))


def test_grad_cam_plus_plus_has_no_absolute_guard() -> None:
    """Tiny gradients, as a large feature layer gives, keep their weights."""
    given = evidence()
    assert given.gradients is not None
    tiny = evidence(gradients=given.gradients * np.float32(1e-12))
    found = method_named("grad-cam++").maps(tiny).values[0]
    limit = np.maximum(given.gradients[0], 0).sum(axis=(1, 2)) / 2
    slow = np.maximum((limit[:, None, None] * given.activations).sum(axis=0), 0)
    assert found / found.max() == pytest.approx(slow / slow.max(), rel=1e-4)


@pytest.mark.parametrize("variant", ["paper", "original"])
def test_zero_gradients_and_zero_divisors_weigh_nothing(variant: str) -> None:
    activations = np.ones((2, *PLANES), np.float32)
    activations[1] = 0
    activations[1, 2, 2] = -1
    gradients = np.zeros((1, 2, *PLANES), np.float32)
    gradients[0, 1] = 2  # 2 + S_A g = 0
    given = evidence(activations=activations, labels=(0,), gradients=gradients)
    assert not method_named(f"grad-cam++:{variant}").maps(given).values.any()


@BOTH
@pytest.mark.parametrize("signed", [False, True])
def test_layercam_weighs_every_cell_by_its_own_positive_gradient(cells: tuple[int, ...], signed: bool) -> None:
    given = evidence(cells=cells, signed=signed)
    found = method_named("layercam").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        slow = np.zeros(cells)
        for plane, slope in zip(given.activations, given.gradients[index], strict=True):
            for at in np.ndindex(*cells):
                slow[at] += max(float(slope[at]), 0) * float(plane[at])
        assert found[index] == pytest.approx(np.maximum(slow, 0), rel=1e-5, abs=1e-6)
    assert found.max() > 0
