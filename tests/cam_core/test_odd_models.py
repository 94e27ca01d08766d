"""Tests of models that do in their forward what most don't: stop recording, count, take one input, or look sideways."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from small_networks import card, picture
from torch import nn

from cam_core.errors import ModelLoadError
from cam_core.explanation import ExplainOptions, Explanation, explain
from cam_core.finding import Finding
from cam_core.method import Method, known_methods, variants_of
from cam_core.runtimes.torch_runtime import TorchClassifier

METHODS: tuple[Method, ...] = tuple(method for name in known_methods() for method in variants_of(name))
DERIVED = {"grad-cam", "grad-cam++", "hirescam", "layercam", "xgrad-cam", "eigen-grad-cam", "shapley-cam", "finer-cam"}


class Body(nn.Module):
    """Convolution, ReLU (the target), a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(1, 6, 3, 2, 1)
        self.target = nn.ReLU()
        self.head: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.target(self.first(x)).mean((2, 3)))
        return logits


class FrozenTrunk(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            planes = self.target(self.first(x))
        logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


class FrozenHead(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.target(self.first(x))
        with torch.no_grad():
            logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


class NumpyHead(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.target(self.first(x))
        logits: torch.Tensor = self.head(torch.from_numpy(planes.numpy().mean((2, 3))))
        return logits


class NumpyTrunk(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.target(self.first(torch.from_numpy(x.numpy() * 1))).mean((2, 3)))
        return logits


class Counting(Body):
    """Counts its passes in buffers before and after the target."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(1))
        self.register_buffer("mean", torch.zeros(6))
        self.first.register_buffer("inner", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        self.first.inner += len(x)
        planes = self.target(self.first(x))
        self.mean.copy_(planes.detach().mean((0, 2, 3)))
        logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


class Flattened(Body):
    """Forgets that there may be several inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.target(self.first(x)).mean((2, 3)).view(1, -1))
        return logits


class Asserting(Body):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) == 1, "one at a time"
        return super().forward(x)


class Sideways(Body):
    """A norm with the batch's own statistics, in the head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(self.target(self.first(x))).amax((2, 3)))
        return logits


def opened(module: nn.Module) -> TorchClassifier:
    return TorchClassifier(card(target="target", channels=1, grid=(32, 32)), module.eval())


def run(classifier: TorchClassifier, methods: tuple[Method, ...] = METHODS) -> Explanation:
    label = classifier.card.labels[0]
    findings = [Finding(label=label, logit=0.0, probability=0.5)]
    options = ExplainOptions(regions_per_map=0)
    return explain(picture((32, 32)), classifier, methods, findings, options=options)[0]


def assert_alike(found: Explanation, expected: Explanation) -> None:
    for one, other in zip(found.maps, expected.maps, strict=True):
        assert one.name == other.name
        assert np.abs(one.values - other.values).max() <= 1e-4 * np.abs(other.values).max(), one.name


@pytest.mark.parametrize("kind", [FrozenTrunk, NumpyTrunk])
def test_a_trunk_that_is_not_recorded_is_no_matter(kind: Callable[[], nn.Module]) -> None:
    """Only what follows the target is differentiated; where its cells look is found by finite differences."""
    plain, odd = opened(Body()), opened(kind())
    assert odd.registration.measured
    assert odd.registration.step == plain.registration.step
    assert odd.registration.start == pytest.approx(plain.registration.start, abs=0.3)
    found = {one.name: one.values for one in run(odd).maps}
    expected = {one.name: one.values for one in run(plain).maps}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        if name.partition(":")[0] in {*DERIVED, "ablation-cam"}:
            assert found[name] == pytest.approx(values, rel=1e-4, abs=1e-7), name


@pytest.mark.parametrize("kind", [FrozenHead, NumpyHead])
def test_a_head_that_can_not_be_differentiated_stops_the_gradients_alone(kind: Callable[[], nn.Module]) -> None:
    found, expected = run(opened(kind())), run(opened(Body()))
    reasons = dict(found.failures)
    lost = {name.partition(":")[0] for name in reasons} - {"cam"}
    assert lost == DERIVED
    assert all("no_grad" in why or "numpy" in why for name, why in reasons.items() if name != "cam")
    kept = {one.name: one.values for one in found.maps}
    assert {"score-cam:delta", "ablation-cam", "eigen-cam", "occlusion:mean"} <= kept.keys()
    for one in expected.maps:
        if one.name in kept:
            assert np.abs(kept[one.name] - one.values).max() <= 1e-4 * np.abs(one.values).max(), one.name


def test_buffers_of_the_caller_s_module_stay_as_they_are() -> None:
    module = Counting()
    assert_alike(run(opened(module)), run(opened(Body())))
    assert all(not buffer.any() for buffer in module.buffers())


@pytest.mark.parametrize("kind", [Flattened, Asserting])
def test_a_model_that_takes_one_input_gets_one(kind: Callable[[], nn.Module]) -> None:
    classifier = opened(kind())
    assert classifier.micro_batch == classifier.head_batch == 1
    assert_alike(run(classifier), run(opened(Body())))
    assert opened(Body()).micro_batch == 16
    assert opened(Body()).head_batch > 1


def test_a_model_that_looks_sideways_gets_one_input() -> None:
    classifier = opened(Sideways())
    assert classifier.micro_batch == classifier.head_batch == 1
    batch = np.random.default_rng(2).standard_normal((3, 1, 32, 32)).astype(np.float32)
    assert np.abs(classifier.scores(batch)[0] - classifier.scores(batch[:1])[0]).max() > 1e-2
    assert "ablation-cam" in {one.name for one in run(classifier).maps}


class Failing(Body):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise self.error


@pytest.mark.parametrize(
    "error",
    [AssertionError, KeyError, AttributeError, IndexError, TypeError, ValueError, ZeroDivisionError, RuntimeError],
)
def test_whatever_a_model_raises_is_told_with_its_reason(error: type[Exception]) -> None:
    classifier = opened(Failing(error("why")))
    for way in (classifier.scores, classifier.activations, lambda batch: classifier.gradients(batch, [0])):
        with pytest.raises(ModelLoadError, match=r"can't be run: '?why"):
            way(np.zeros((1, 1, 32, 32), np.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("weight", [float("nan"), 6e4])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_model_that_answers_with_no_numbers_fails_in_words(dtype: torch.dtype, weight: float) -> None:
    module = Body().to(dtype)
    module.first.weight.data[:] = weight
    classifier = opened(module)
    found = run(classifier)
    assert len(found.maps) + len(found.failures) == len(METHODS)
    assert all(np.isfinite(one.values).all() for one in found.maps)
    if not np.isfinite(weight):
        assert "grad-cam" in dict(found.failures)
