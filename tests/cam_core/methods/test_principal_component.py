"""Eigen-CAM and Eigen-Grad-CAM against numpy's full singular value decomposition, and their sign."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.linalg import ArpackNoConvergence
from small_evidence import PLANES, VOLUMES, evidence

from cam_core.errors import ExplanationFailed
from cam_core.method import method_named
from cam_core.methods.principal_component import first_projection

SIZES = pytest.mark.parametrize(("channels", "cells"), [(3, PLANES), (50, VOLUMES), (90, VOLUMES)])
"""More cells than channels and the other way round."""

DIRECTLY = pytest.mark.parametrize("dense", [128, 8])
"""Up to which size eigenvectors are found directly."""


@pytest.fixture(autouse=True)
def solver(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "dense" in request.fixturenames:
        monkeypatch.setattr("cam_core.methods.principal_component.DENSE", request.getfixturevalue("dense"))


def slow_projection(planes: np.ndarray) -> np.ndarray:
    """``O v1`` of the whole decomposition, with whatever sign it comes."""
    rows = planes.reshape(len(planes), -1).T.astype(float)
    _, _, right = np.linalg.svd(rows, full_matrices=False)
    return (rows @ right[0]).reshape(planes.shape[1:])


@SIZES
@DIRECTLY
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_eigen_cam_is_the_first_projection(
    channels: int, cells: tuple[int, ...], signed: bool, seed: int, dense: int
) -> None:
    given = evidence(channels=channels, cells=cells, signed=signed, seed=seed)
    found = method_named("eigen-cam").maps(given).values
    slow = slow_projection(given.activations)
    activity = np.abs(given.activations.astype(float)).mean(axis=0)
    slow = slow if (slow * activity).sum() >= 0 else -slow
    assert found.shape == (2, *cells)
    assert np.array_equal(found[0], found[1])
    assert found[0] == pytest.approx(slow, rel=1e-4, abs=1e-5 * float(np.abs(slow).max()))
    if not signed:
        assert found.min() >= -1e-6 * found.max()


@SIZES
@DIRECTLY
@pytest.mark.parametrize("seed", range(2))
def test_eigen_grad_cam_is_the_first_projection_of_the_products(
    channels: int, cells: tuple[int, ...], seed: int, dense: int
) -> None:
    given = evidence(channels=channels, cells=cells, seed=seed)
    found = method_named("eigen-grad-cam").maps(given).values
    hirescam = method_named("hirescam").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        slow = slow_projection(given.gradients[index].astype(float) * given.activations)
        slow = slow if (slow * hirescam[index]).sum() >= 0 else -slow
        assert found[index] == pytest.approx(slow, rel=1e-4, abs=1e-5 * float(np.abs(slow).max()))


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e15])
def test_the_sign_and_form_do_not_depend_on_the_scale_or_on_the_order_of_channels(scale: float) -> None:
    given = evidence(signed=True, channels=40)
    found = method_named("eigen-cam").maps(given).values[0]
    shuffled = given.activations[np.random.default_rng(1).permutation(40)] * np.float32(scale)
    other = method_named("eigen-cam").maps(evidence(activations=shuffled)).values[0]
    assert other / other.max() == pytest.approx(found / found.max(), abs=1e-4)


def test_planes_that_are_all_zero_have_a_projection_of_zero() -> None:
    assert not first_projection(np.zeros((4, 6)), np.zeros(6)).any()
    assert not first_projection(np.zeros((6, 4)), np.zeros(4)).any()


@pytest.mark.parametrize("dense", [8])
def test_the_iteration_gives_the_same_bits_every_time(dense: int) -> None:
    given = evidence(channels=50, cells=VOLUMES, signed=True)
    found = method_named("eigen-cam").maps(given).values
    assert all(np.array_equal(method_named("eigen-cam").maps(given).values, found) for _ in range(5))


def test_where_the_iteration_does_not_end_the_direct_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object, **__: object) -> None:
        raise ArpackNoConvergence("no end", np.zeros(0), np.zeros((0, 0)))

    given = evidence(channels=50, cells=VOLUMES, signed=True)
    expected = method_named("eigen-cam").maps(given).values
    monkeypatch.setattr("cam_core.methods.principal_component.DENSE", 8)
    monkeypatch.setattr("cam_core.methods.principal_component.eigsh", endless)
    assert np.array_equal(method_named("eigen-cam").maps(given).values, expected)


def test_without_a_hint_the_largest_value_is_positive() -> None:
    planes = np.array([[-3.0, 1.0], [-3.0, 1.0]])
    found = first_projection(planes, np.zeros(2))
    assert found == pytest.approx([np.sqrt(18), -np.sqrt(2)])


@pytest.mark.parametrize("name", ["eigen-cam", "eigen-grad-cam"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_is_no_number_has_no_component(name: str, odd: float) -> None:
    given = evidence()
    given.activations[0, 0, 0] = odd
    with pytest.raises(ExplanationFailed, match="not finite numbers"):
        method_named(name).maps(given)
