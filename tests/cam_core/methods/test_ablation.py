"""Ablation-CAM against the formula, with its sign where the logit is negative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_evidence import LABELS, PLANES, VOLUMES, evidence
from torch import nn

from cam_core.method import Subject, method_named
from cam_core.plan import ablated_scores
from cam_core.runtimes.torch_runtime import TorchClassifier


@pytest.mark.parametrize("cells", [PLANES, VOLUMES])
@pytest.mark.parametrize("logits", [[2.0, 1, 3, 1], [-2.0, 1, -3, 1], [0.0, 1, 0, 1]])
def test_weights_are_the_logits_losses(logits: list[float], cells: tuple[int, ...]) -> None:
    without = np.random.default_rng(3).normal(size=(7, LABELS)).astype(np.float32)
    given = evidence(cells=cells, signed=True, logits=np.float32(logits), ablated=lambda: without)
    found = method_named("ablation-cam").maps(given)
    for index, label in enumerate(given.labels):
        total = np.zeros(cells)
        for k in range(7):
            loss = logits[label] - float(without[k, label])
            total += (loss / abs(logits[label]) if logits[label] else loss) * given.activations[k].astype(float)
        assert found.values[index] == pytest.approx(np.maximum(total, 0), rel=1e-5, abs=1e-6)
        assert found.values[index].max() > 0
    assert found.baseline is not None


def test_a_channel_that_speaks_for_the_finding_counts_for_it_whatever_the_logit_s_sign() -> None:
    """Only channel 0 holds the logit up; the formula with ``/ y`` turns it round where the logit is negative."""
    activations = np.zeros((2, *PLANES), np.float32)
    activations[0, 1, 1], activations[1, 4, 4] = 1, 1
    for logit in (3.0, -3.0):
        lost = np.float32([[logit - 1], [logit + 1]])
        given = evidence(
            activations=activations, labels=(0,), logits=np.float32([logit]), ablated=lambda lost=lost: lost
        )
        found = method_named("ablation-cam").maps(given).values[0]
        assert np.unravel_index(found.argmax(), found.shape) == (1, 1)
        assert found[4, 4] == 0


def test_a_change_within_rounding_is_none(torch_classifier: Callable[..., TorchClassifier], batch: np.ndarray) -> None:
    """Passes of different sizes round differently: a channel without effect must not get a weight from that."""
    inner = torch_classifier("layers")
    capture = inner.activations(batch)
    logits = capture.scores[0]

    class Rounding:
        micro_batch = head_batch = 16
        head_weights = staticmethod(lambda: None)

        @staticmethod
        def head_scores(batch: np.ndarray, activations: np.ndarray) -> np.ndarray:
            steps = np.zeros((len(activations), logits.size), np.float32)
            steps[::2], steps[3] = 3e-7 * np.abs(logits).max(), 0.1
            return logits + steps

    subject = Subject(input=batch[0], activations=capture.activations[0] + 1, registration=inner.registration)
    found = ablated_scores(Rounding(), subject, logits)  # type: ignore[arg-type]
    changed = (found != logits).any(axis=1)
    assert changed.tolist() == [number == 3 for number in range(len(found))]


@pytest.mark.parametrize("name", ["linear", "layers", "flat"])
def test_ablated_logits_are_those_of_the_model_with_the_channel_zeroed(
    name: str,
    torch_classifier: Callable[..., TorchClassifier],
    modules: dict[str, Callable[[], nn.Module]],
    batch: np.ndarray,
) -> None:
    classifier, module = torch_classifier(name), modules[name]()
    capture = classifier.activations(batch)
    subject = Subject(input=batch[0], activations=capture.activations[0], registration=classifier.registration)
    found = ablated_scores(classifier, subject, capture.scores[0])
    planes = torch.relu(module.second(torch.relu(module.first(torch.from_numpy(batch)))))  # type: ignore[operator]
    for k in range(planes.shape[1]):
        without = planes.clone()
        without[:, k] = 0
        pooled = without.flatten(1) if name == "flat" else without.mean((2, 3))
        slow = module.head(pooled)[0].detach().numpy()  # type: ignore[operator]
        assert found[k] == pytest.approx(slow, rel=1e-4, abs=1e-5)
