"""Grad-CAM++: ours is equation 19 of the paper; every library departs from it, each in its own reproduced way."""

from collections.abc import Callable

import numpy as np
import peers
import pytest
from small_networks import Case, network, picture

TOLERANCE = 1e-5
CASES = ("linear head", "smooth head", "volume", "densenet121", "resnet50")


def _total(planes: np.ndarray) -> np.ndarray:
    """Sum over space of (Ch, *cells), still broadcastable against it."""
    return planes.sum(axis=tuple(range(1, planes.ndim)), keepdims=True)


def _map(alpha: np.ndarray, gradient: np.ndarray, planes: np.ndarray) -> np.ndarray:
    return np.maximum((_total(alpha * np.maximum(gradient, 0)) * planes).sum(axis=0), 0)


def equation_19(planes: np.ndarray, gradient: np.ndarray, logit: float) -> np.ndarray:
    """``alpha = g^2 / (2 g^2 + S_A g^3)``, 0 where g is 0; exp(y) is one factor for the whole map and is left out."""
    divisor = 2 * gradient**2 + _total(planes) * gradient**3
    alpha = np.divide(gradient**2, divisor, out=np.zeros_like(divisor), where=divisor != 0)
    return _map(alpha, gradient, planes)


def of_pytorch_grad_cam(planes: np.ndarray, gradient: np.ndarray, logit: float) -> np.ndarray:
    """Equation 19 with an absolute 1e-6 in the divisor, as large as the divisor itself behind global pooling."""
    divisor = 2 * gradient**2 + _total(planes) * gradient**3 + 1e-6
    return _map(np.where(gradient != 0, gradient**2 / divisor, 0), gradient, planes)


def of_torchcam(planes: np.ndarray, gradient: np.ndarray, logit: float) -> np.ndarray:
    """``alpha = g^2``: its division works on a copy that masked indexing makes, and is lost."""
    return _map(gradient**2, gradient, planes)


def of_monai(planes: np.ndarray, gradient: np.ndarray, logit: float) -> np.ndarray:
    """The sum of the paper's divisor taken over ``A * g^3`` together, with exp(y) and an absolute 1e-7."""
    divisor = 2 * gradient**2 + _total(planes * gradient**3)
    alpha = gradient**2 / (np.where(divisor != 0, divisor, 1) + 1e-7)
    return _map(alpha, np.exp(logit) * gradient, planes)


Formula = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def _theirs(library: str, one: Case, label: int) -> np.ndarray:
    if library == "pytorch-grad-cam":
        return peers.pytorch_grad_cam_map("GradCAMPlusPlus", one, label)
    if library == "torchcam":
        return peers.torchcam_map("GradCAMpp", one, label)
    return peers.monai_map("GradCAMpp", one, label)


def _as(library: str, raw: np.ndarray, one: Case) -> np.ndarray:
    if library == "pytorch-grad-cam":
        return peers.as_pytorch_grad_cam(raw, one.grid)
    return peers.as_torchcam(raw) if library == "torchcam" else peers.as_monai(raw, one.grid)


FORMULAS: dict[str, Formula] = {
    "pytorch-grad-cam": of_pytorch_grad_cam,
    "torchcam": of_torchcam,
    "monai": of_monai,
}


@pytest.mark.parametrize("name", CASES)
def test_ours_is_equation_19(case, ours, name):
    one = case(name)
    for label, raw in enumerate(ours(one, "grad-cam++:paper")):
        exact = equation_19(*peers.captured(one, label))
        np.testing.assert_allclose(peers.as_shown(raw), peers.as_shown(exact), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("library", FORMULAS)
@pytest.mark.parametrize("name", CASES)
def test_how_each_library_departs_is_known_exactly(case, name, library):
    peers.needed(library)
    one = case(name)
    for label in range(one.labels):
        emulated = _as(library, FORMULAS[library](*peers.captured(one, label)), one)
        np.testing.assert_allclose(emulated, _theirs(library, one, label), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("library", "name", "least"),
    [
        ("pytorch-grad-cam", "resnet50", 0.01),
        ("torchcam", "smooth head", 0.01),
        ("torchcam", "resnet50", 0.01),
        ("monai", "smooth head", 0.01),
    ],
)
def test_deviation_from_equation_19(case, name, library, least):
    """Fails when the library mends its formula: then it joins the comparisons, and the documentation changes."""
    peers.needed(library)
    one = case(name)
    worst = max(
        np.abs(_as(library, equation_19(*peers.captured(one, label)), one) - _theirs(library, one, label)).max()
        for label in range(one.labels)
    )
    assert worst > least


def test_deviation_units_of_the_activations_change_the_map_of_pytorch_grad_cam_but_not_ours(case, ours):
    """The same function with its target layer in units a thousand times smaller must have the same map.

    Then A is s times and g is 1/s times what it was, S_A * g stays, and every weight is divided by s.
    """
    peers.needed("pytorch-grad-cam")
    plain = case("linear head")
    module = network()
    scale = 1e-3
    module.stem[-1].weight.data *= scale
    module.stem[-1].bias.data *= scale
    module.head.weight.data /= scale
    small = Case(name="small units", module=module, target=plain.target, image=picture(plain.grid))
    np.testing.assert_allclose(small.module(small.batch).detach(), plain.module(plain.batch).detach(), rtol=1e-4)

    def changed(maps: Callable[[Case, int], np.ndarray]) -> float:
        return max(float(np.abs(maps(plain, label) - maps(small, label)).max()) for label in range(plain.labels))

    assert changed(lambda one, label: peers.as_shown(ours(one, "grad-cam++:paper")[label])) < TOLERANCE
    assert changed(lambda one, label: peers.pytorch_grad_cam_map("GradCAMPlusPlus", one, label)) > 0.01
