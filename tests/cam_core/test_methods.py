"""Tests of the formulas, each against a slow oracle written from the paper."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from cam_core.classifier import Capability, Classifier
from cam_core.errors import ExplanationFailed, MethodNotApplicable
from cam_core.method import Evidence, MaskedScores, known_methods, method_named
from cam_core.methods.score_cam import MICRO_BATCH, masked_scores
from cam_core.registration import Registration, library_registration
from cam_core.runtimes.torch_runtime import TorchClassifier

CELLS = (6, 5)


def no_masks() -> MaskedScores:
    raise AssertionError("not to be asked")


def evidence(channels: int = 7, labels: tuple[int, ...] = (0, 2), seed: int = 0, *, signed: bool = False) -> Evidence:
    source = np.random.default_rng(seed)
    activations = source.normal(size=(channels, *CELLS)).astype(np.float32)
    return Evidence(
        activations=activations if signed else np.maximum(activations, 0),
        labels=labels,
        gradients=source.normal(size=(len(labels), channels, *CELLS)).astype(np.float32),
        head_weights=source.normal(size=(3, channels)).astype(np.float32),
        masked_scores=no_masks,
    )


def test_cam_is_the_sum_of_weighted_planes() -> None:
    given = evidence(signed=True)
    found = method_named("cam").maps(given).values
    assert given.head_weights is not None
    for index, label in enumerate(given.labels):
        slow = np.zeros(CELLS)
        for channel in range(7):
            for i in range(CELLS[0]):
                for j in range(CELLS[1]):
                    slow[i, j] += float(given.head_weights[label, channel]) * float(given.activations[channel, i, j])
        assert found[index] == pytest.approx(slow, rel=1e-5, abs=1e-6)
    assert found.min() < 0


def test_grad_cam_weighs_by_mean_gradient() -> None:
    given = evidence(signed=True)
    found = method_named("grad-cam").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        slow = np.zeros(CELLS)
        for channel in range(7):
            slow += float(np.mean(given.gradients[index, channel].astype(float))) * given.activations[channel]
        assert found[index] == pytest.approx(np.maximum(slow, 0), rel=1e-5, abs=1e-6)


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


@pytest.mark.parametrize("variant", ["paper", "original"])
@pytest.mark.parametrize("seed", range(4))
def test_grad_cam_plus_plus_is_equation_19(variant: str, seed: int) -> None:
    given = evidence(seed=seed)
    found = method_named(f"grad-cam++:{variant}").maps(given).values
    assert given.gradients is not None
    for index in range(2):
        slow = slow_plus_plus(given.activations, given.gradients[index], normalised=variant == "original")
        assert found[index] == pytest.approx(slow, rel=2e-6, abs=1e-7 * float(slow.max()))


def test_grad_cam_plus_plus_has_no_absolute_guard() -> None:
    """Tiny gradients, as a large feature layer gives, keep their weights."""
    given = evidence()
    assert given.gradients is not None
    tiny = Evidence(
        activations=given.activations,
        labels=given.labels,
        gradients=given.gradients * np.float32(1e-12),
        head_weights=None,
        masked_scores=no_masks,
    )
    found = method_named("grad-cam++").maps(tiny).values[0]
    limit = np.maximum(given.gradients[0], 0).sum(axis=(1, 2)) / 2
    slow = np.maximum((limit[:, None, None] * given.activations).sum(axis=0), 0)
    assert found / found.max() == pytest.approx(slow / slow.max(), rel=1e-4)


def test_zero_gradients_and_zero_divisors_weigh_nothing() -> None:
    activations = np.ones((2, *CELLS), np.float32)
    activations[1] = 0
    activations[1, 2, 2] = -1
    gradients = np.zeros((1, 2, *CELLS), np.float32)
    gradients[0, 1] = 2  # 2 + S_A g = 0
    given = Evidence(
        activations=activations, labels=(0,), gradients=gradients, head_weights=None, masked_scores=no_masks
    )
    assert not method_named("grad-cam++").maps(given).values.any()


class Doubler:
    """A classifier whose two logits are the mean of the input and minus twice its first pixel row."""

    def scores(self, batch: np.ndarray) -> np.ndarray:
        self.largest = max(getattr(self, "largest", 0), len(batch))
        self.asked = getattr(self, "asked", 0) + len(batch)
        return np.stack([batch.mean(axis=(1, 2, 3)), -2 * batch[:, :, 0].mean(axis=(1, 2))], axis=1)


def slow_masked(classifier: Classifier, batch: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Score of each masked input by plain loops over torch's own interpolation."""
    rows = []
    for plane in planes:
        spread = torch.nn.functional.interpolate(
            torch.from_numpy(plane)[None, None], batch.shape[2:], mode="bilinear", align_corners=False
        )[0, 0].numpy()
        mask = (spread - spread.min()) / (spread.max() - spread.min())
        rows.append(classifier.scores(batch * mask)[0])
    return np.stack(rows)


def masked_evidence(batch: np.ndarray, planes: np.ndarray) -> tuple[Evidence, Doubler]:
    classifier = Doubler()
    registration = library_registration((planes.shape[1], planes.shape[2]), (batch.shape[2], batch.shape[3]))
    return Evidence(
        activations=planes,
        labels=(1, 0),
        gradients=None,
        head_weights=None,
        masked_scores=lambda: masked_scores(classifier, batch, planes, registration),  # type: ignore[arg-type]
    ), classifier


def test_score_cam_delta_and_paper_by_loops(batch: np.ndarray) -> None:
    planes = np.maximum(np.random.default_rng(4).normal(size=(21, 8, 8)), 0).astype(np.float32)
    planes[3] = 0.0
    planes[8] = 0.7
    given, classifier = masked_evidence(batch, planes)
    useful = [k for k in range(21) if k not in (3, 8)]
    slow = slow_masked(Doubler(), batch, planes[useful])  # type: ignore[arg-type]
    baseline = Doubler().scores(np.zeros_like(batch))[0]
    delta = method_named("score-cam").maps(given)
    paper = method_named("score-cam:paper").maps(given)
    for index, label in enumerate(given.labels):
        gains = (slow[:, label] - baseline[label]).astype(float)
        expected = np.maximum(sum(gain * planes[k].astype(float) for gain, k in zip(gains, useful, strict=True)), 0)
        assert delta.values[index] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        powers = np.exp(gains) / np.exp(gains).sum()
        expected = np.maximum(sum(power * planes[k].astype(float) for power, k in zip(powers, useful, strict=True)), 0)
        assert paper.values[index] == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert delta.baseline is not None
    assert "masked out" in delta.baseline
    assert classifier.largest <= MICRO_BATCH
    assert classifier.asked == 2 * (len(useful) + 1)


def test_masks_lie_where_the_cells_look(batch: np.ndarray) -> None:
    planes = np.zeros((1, 8, 8), np.float32)
    planes[0, 3, 4] = 1
    seen = []

    class Watcher:
        def scores(self, batch: np.ndarray) -> np.ndarray:
            seen.append(batch)
            return np.zeros((len(batch), 2), np.float32)

    registration = Registration(start=(0.0, 0.0), step=(4.0, 4.0), measured=True)
    masked_scores(Watcher(), np.ones_like(batch), planes, registration)  # type: ignore[arg-type]
    mask = seen[1][0, 0]
    assert np.unravel_index(mask.argmax(), mask.shape) == (12, 16)
    assert mask.max() == 1
    assert mask.min() == 0


def test_constant_planes_only_and_broken_scores_fail_loudly(batch: np.ndarray) -> None:
    given, _ = masked_evidence(batch, np.ones((4, 8, 8), np.float32))
    with pytest.raises(ExplanationFailed, match="every feature plane is constant"):
        method_named("score-cam").maps(given)
    planes = np.random.default_rng(0).random((4, 8, 8), dtype=np.float32)
    broken, _ = masked_evidence(np.full_like(batch, np.nan), planes)
    with pytest.raises(ExplanationFailed, match="not finite"):
        method_named("score-cam").maps(broken)


def test_methods_say_what_they_lack() -> None:
    bare = Evidence(
        activations=np.ones((2, 3, 3), np.float32),
        labels=(0,),
        gradients=None,
        head_weights=None,
        masked_scores=no_masks,
    )
    for name in ("cam", "grad-cam", "grad-cam++"):
        with pytest.raises(MethodNotApplicable):
            method_named(name).maps(bare)


@pytest.mark.parametrize("name", known_methods())
def test_every_method_declares_itself(name: str) -> None:
    method = method_named(name)
    assert method.name == name
    assert method.title
    assert method.family
    assert any(year in method.reference for year in ("2016", "2017", "2018", "2020"))
    assert Capability.ACTIVATIONS in method.needs
    assert method.class_specific


def test_cam_and_grad_cam_agree_up_to_the_number_of_cells(
    torch_classifier: Callable[..., TorchClassifier], batch: np.ndarray
) -> None:
    classifier = torch_classifier("linear")
    capture = classifier.gradients(batch, [0, 1, 2])
    assert capture.gradients is not None
    given = Evidence(
        activations=capture.activations[0],
        labels=(0, 1, 2),
        gradients=capture.gradients[0],
        head_weights=classifier.head_weights(),
        masked_scores=no_masks,
    )
    cells = capture.activations.shape[2] * capture.activations.shape[3]
    cam = np.maximum(method_named("cam").maps(given).values, 0)
    grad_cam = method_named("grad-cam").maps(given).values
    assert cam.max() > 0
    assert (grad_cam > 0).any()
    assert grad_cam * cells == pytest.approx(cam, rel=1e-4, abs=1e-6 * float(cam.max()))


def test_grad_cam_equals_autograd_on_a_plain_module(
    torch_classifier: Callable[..., TorchClassifier], modules: dict[str, Callable[[], nn.Module]], batch: np.ndarray
) -> None:
    module = modules["layers"]()
    planes = torch.relu(module.second(torch.relu(module.first(torch.from_numpy(batch)))))  # type: ignore[operator]
    planes.retain_grad()
    module.head(planes.mean((2, 3)))[0, 2].backward()  # type: ignore[operator]
    assert planes.grad is not None
    slow = torch.relu((planes.grad[0].mean((1, 2))[:, None, None] * planes[0]).sum(0)).detach().numpy()
    capture = torch_classifier("layers").gradients(batch, [2])
    assert capture.gradients is not None
    given = Evidence(
        activations=capture.activations[0],
        labels=(2,),
        gradients=capture.gradients[0],
        head_weights=None,
        masked_scores=no_masks,
    )
    assert method_named("grad-cam").maps(given).values[0] == pytest.approx(slow, rel=1e-4, abs=1e-6)
