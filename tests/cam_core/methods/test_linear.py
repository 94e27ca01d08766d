"""Methods whose map is linear in the gradients, each against a slow oracle written from its paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_evidence import PLANES, VOLUMES, evidence
from torch import nn

from cam_core.errors import MethodNotApplicable
from cam_core.method import Evidence, method_named
from cam_core.runtimes.torch_runtime import TorchClassifier

BOTH = pytest.mark.parametrize("cells", [PLANES, VOLUMES])


def summed(weights: np.ndarray, activations: np.ndarray) -> np.ndarray:
    """``sum_k w_k * A_k`` by a plain loop in double precision."""
    total = np.zeros(activations.shape[1:])
    for weight, plane in zip(weights, activations, strict=True):
        total += np.asarray(weight, float) * plane.astype(float)
    return total


def near(slow: np.ndarray) -> object:
    return pytest.approx(slow, rel=1e-5, abs=1e-6 * float(np.abs(slow).max()))


@BOTH
def test_cam_is_the_sum_of_weighted_planes(cells: tuple[int, ...]) -> None:
    given = evidence(cells=cells, signed=True)
    found = method_named("cam").maps(given).values
    assert given.head_weights is not None
    for index, label in enumerate(given.labels):
        assert found[index] == near(summed(given.head_weights[label], given.activations))
    assert found.min() < 0


@BOTH
def test_grad_cam_weighs_by_mean_gradient(cells: tuple[int, ...]) -> None:
    given = evidence(cells=cells, signed=True)
    found = method_named("grad-cam").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        means = [float(np.mean(one.astype(float))) for one in given.gradients[index]]
        assert found[index] == near(np.maximum(summed(np.array(means), given.activations), 0))
    assert found.max() > 0


@BOTH
def test_hirescam_weighs_every_cell_by_its_own_gradient(cells: tuple[int, ...]) -> None:
    given = evidence(cells=cells, signed=True)
    found = method_named("hirescam").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        assert found[index] == near(summed(given.gradients[index], given.activations))
    assert found.min() < 0 < found.max()


def test_hirescam_of_sums_that_cancel_is_nothing_rather_than_rounding() -> None:
    """As before a layer norm, where each cell's gradient is at right angles to its activations."""
    source = np.random.default_rng(3)
    activations = source.normal(size=(40, *PLANES)).astype(np.float32)
    every = source.normal(size=(2, 40, *PLANES))
    along = (every[0] * activations).sum(axis=0) / np.square(activations).sum(axis=0)
    every[0] -= along * activations
    found = method_named("hirescam").maps(evidence(activations=activations, gradients=every.astype(np.float32))).values
    assert not found[0].any()
    assert found[1] == near(summed(every[1], activations))


@BOTH
@pytest.mark.parametrize("signed", [False, True])
def test_xgrad_cam_averages_the_gradient_by_the_activations(cells: tuple[int, ...], signed: bool) -> None:
    given = evidence(cells=cells, signed=signed)
    found = method_named("xgrad-cam").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        weights = []
        for plane, slope in zip(given.activations.astype(float), given.gradients[index].astype(float), strict=True):
            weights.append(sum((plane[at] / plane.sum()) * slope[at] for at in np.ndindex(*cells)))
        assert found[index] == near(np.maximum(summed(np.array(weights), given.activations), 0))


def test_xgrad_cam_gives_a_channel_without_an_average_no_weight() -> None:
    """A dead channel, and one whose activations cancel; however small the others are."""
    given = evidence(channels=4)
    activations = given.activations.copy()
    activations[1] = 0
    activations[2] = 0
    activations[2, 0, 0], activations[2, 0, 1] = 3, -3
    activations *= np.float32(1e-20)
    assert given.gradients is not None
    slopes = np.abs(given.gradients)
    whole = method_named("xgrad-cam").maps(evidence(channels=4, activations=activations, gradients=slopes)).values
    rest = evidence(channels=2, activations=activations[[0, 3]], gradients=slopes[:, [0, 3]])
    assert whole.max() > 0
    assert np.array_equal(whole, method_named("xgrad-cam").maps(rest).values)


@BOTH
def test_shapley_cam_takes_away_half_the_curvature(cells: tuple[int, ...]) -> None:
    given = evidence(cells=cells, signed=True)
    found = method_named("shapley-cam").maps(given).values
    assert given.gradients is not None
    assert given.curvatures is not None
    for index in range(2):
        both = zip(given.gradients[index].astype(float), given.curvatures[index].astype(float), strict=True)
        weights = np.array([(slope - 0.5 * bend).mean() for slope, bend in both])
        assert found[index] == near(np.maximum(summed(weights, given.activations), 0))
    straight = evidence(cells=cells, signed=True, curvatures=np.zeros_like(given.curvatures))
    assert np.array_equal(
        method_named("shapley-cam").maps(straight).values, method_named("grad-cam").maps(given).values
    )


@pytest.mark.parametrize(
    ("logits", "similar"),
    [([0.0, 1.0, 0.1, 9.0], {0: [2, 1, 3], 1: [2, 0, 3], 3: [1, 2, 0]}), ([2, 2, 2], {1: [0, 2]})],
)
def test_finer_cam_is_grad_cam_of_the_difference(logits: list[float], similar: dict[int, list[int]]) -> None:
    labels = tuple(similar)
    every = np.random.default_rng(8).normal(size=(len(logits), 7, *PLANES)).astype(np.float32)
    given = evidence(labels=labels, signed=True, gradients=None, label_gradients=every, logits=np.float32(logits))
    found = method_named("finer-cam").maps(given).values
    for index, label in enumerate(labels):
        slopes = every[label] - 0.6 * sum(every[other] for other in similar[label]) / len(similar[label])
        weights = slopes.astype(float).mean(axis=(1, 2))
        assert found[index] == near(np.maximum(summed(weights, given.activations), 0))


def test_finer_cam_compares_with_the_three_nearest_only() -> None:
    every = np.random.default_rng(8).normal(size=(6, 7, *PLANES)).astype(np.float32)
    logits = np.float32([5, -3, 0.5, 0.4, -0.3, 0.0])
    changed = every.copy()
    changed[[0, 1]] += 10
    one, other = (
        method_named("finer-cam").maps(evidence(labels=(5,), label_gradients=any_, logits=logits)).values
        for any_ in (every, changed)
    )
    assert np.array_equal(one, other)


def test_finer_cam_needs_something_to_compare_with() -> None:
    alone = evidence(labels=(0,), label_gradients=np.ones((1, 7, *PLANES), np.float32), logits=np.ones(1, np.float32))
    with pytest.raises(MethodNotApplicable, match="one label"):
        method_named("finer-cam").maps(alone)


@pytest.mark.parametrize(
    "name",
    [
        "cam",
        "grad-cam",
        "grad-cam++",
        "grad-cam++:original",
        "hirescam",
        "layercam",
        "xgrad-cam",
        "shapley-cam",
        "finer-cam",
        "eigen-grad-cam",
    ],
)
def test_methods_say_what_they_lack(name: str) -> None:
    bare = evidence(gradients=None, label_gradients=None, curvatures=None, head_weights=None)
    with pytest.raises(MethodNotApplicable):
        method_named(name).maps(bare)


def test_shapley_cam_says_that_it_lacks_curvature() -> None:
    with pytest.raises(MethodNotApplicable, match="second derivatives"):
        method_named("shapley-cam").maps(evidence(curvatures=None))


def captured(classifier: TorchClassifier, batch: np.ndarray, labels: tuple[int, ...]) -> Evidence:
    capture = classifier.gradients(batch, labels, curvature=True)
    assert capture.gradients is not None
    assert capture.curvatures is not None
    return evidence(
        labels=labels,
        activations=capture.activations[0],
        gradients=capture.gradients[0],
        curvatures=capture.curvatures[0],
        label_gradients=None,
        head_weights=classifier.head_weights(),
    )


def test_one_linear_layer_makes_one_map_of_four_methods(
    torch_classifier: Callable[..., TorchClassifier], batch: np.ndarray
) -> None:
    given = captured(torch_classifier("linear"), batch, (0, 1, 2))
    cells = given.activations[0].size
    cam = np.maximum(method_named("cam").maps(given).values, 0)
    assert cam.max() > 0
    for name in ("grad-cam", "hirescam", "xgrad-cam", "shapley-cam"):
        shown = np.maximum(method_named(name).maps(given).values, 0)
        assert shown * cells == pytest.approx(cam, rel=1e-4, abs=1e-6 * float(cam.max()))


def test_maps_equal_autograd_on_a_plain_module(
    torch_classifier: Callable[..., TorchClassifier], modules: dict[str, Callable[[], nn.Module]], batch: np.ndarray
) -> None:
    module = modules["layers"]()
    planes = torch.relu(module.second(torch.relu(module.first(torch.from_numpy(batch)))))  # type: ignore[operator]
    planes.retain_grad()
    module.head(planes.mean((2, 3)))[0, 2].backward()  # type: ignore[operator]
    assert planes.grad is not None
    given = captured(torch_classifier("layers"), batch, (2,))
    weighted = {
        "grad-cam": torch.relu((planes.grad[0].mean((1, 2))[:, None, None] * planes[0]).sum(0)),
        "hirescam": (planes.grad[0] * planes[0]).sum(0),
        "layercam": (torch.relu(planes.grad[0]) * planes[0]).sum(0),
    }
    for name, slow in weighted.items():
        assert method_named(name).maps(given).values[0] == pytest.approx(slow.detach().numpy(), rel=1e-4, abs=1e-6)
