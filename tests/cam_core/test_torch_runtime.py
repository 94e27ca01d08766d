"""Tests of the torch runtime: what it captures, what it refuses, and that it leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from cam_core.card import ModelCard
from cam_core.classifier import Capability, open_classifier
from cam_core.errors import (
    DigestMismatch,
    DuplicateName,
    ModelLoadError,
    UnknownArchitecture,
    UnknownTargetLayer,
    UnusableTargetLayer,
)
from cam_core.runtimes.architectures.residual_gap import build
from cam_core.runtimes.torch_runtime import TorchClassifier

OPTIONS = {
    "in_channels": 1,
    "n_labels": 3,
    "stem_channels": 4,
    "channels": [4, 6],
    "blocks": [1, 1],
    "strides": [2, 1],
    "dilations": [1, 1],
}
TABLE = "[model.architecture_options]\n" + "\n".join(f"{key} = {value}" for key, value in OPTIONS.items())


def weights() -> bytes:
    torch.manual_seed(1)
    return save(build(OPTIONS).state_dict())


def residual(write_card: Callable[..., ModelCard], **changes: object) -> ModelCard:
    settings = {"architecture": "residual-gap", "target": "stages", "options": TABLE} | changes
    return write_card(weights(), **settings)


def test_an_opened_model_scores_as_the_module_does(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    card = residual(write_card)
    classifier = open_classifier(card, "cpu")
    torch.manual_seed(1)
    module = build(OPTIONS).eval()
    with torch.no_grad():
        expected = module(torch.from_numpy(batch)).numpy()
    assert classifier.scores(batch) == pytest.approx(expected, abs=1e-6)
    assert classifier.card is card
    assert classifier.device == "cpu"
    assert classifier.runtime.startswith("torch 2")
    assert classifier.capabilities == frozenset(Capability)


def test_auto_takes_the_device_that_is_there(write_card: Callable[..., ModelCard]) -> None:
    expected = "cuda:0" if torch.cuda.is_available() else "cpu"
    assert open_classifier(residual(write_card)).device == expected


def test_changed_weights_are_never_loaded(write_card: Callable[..., ModelCard]) -> None:
    card = residual(write_card)
    card.weights.write_bytes(card.weights.read_bytes()[:-1] + b"x")
    with pytest.raises(DigestMismatch):
        open_classifier(card, "cpu")


def test_what_cannot_be_opened_says_why(write_card: Callable[..., ModelCard], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownArchitecture, match="residual-gap"):
        open_classifier(residual(write_card, architecture="vgg"), "cpu")
    with pytest.raises(UnknownTargetLayer, match="stages"):
        open_classifier(residual(write_card, target="stage9"), "cpu")
    with pytest.raises(ModelLoadError, match="can't be loaded into"):
        open_classifier(residual(write_card, options=TABLE.replace("[4, 6]", "[4, 8]")), "cpu")
    with pytest.raises(ModelLoadError, match="can't be loaded into"):
        open_classifier(residual(write_card, options=TABLE + "\nsurprise = 1"), "cpu")
    with pytest.raises(ModelLoadError, match="can't be loaded into"):
        open_classifier(write_card(b"no weights", architecture="residual-gap", target="stages", options=TABLE), "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelLoadError, match="no CUDA device"):
        open_classifier(residual(write_card), "cuda:0")


def test_wrong_shapes_are_told(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    with pytest.raises(ModelLoadError, match="the card has 2 labels"):
        open_classifier(residual(write_card, labels=2), "cpu").scores(batch)
    with pytest.raises(ModelLoadError, match="can't be run"):
        open_classifier(residual(write_card), "cpu").scores(np.repeat(batch, 3, axis=1))
    with pytest.raises(UnusableTargetLayer, match="gives 2 dimensions, not 4"):
        open_classifier(residual(write_card, target="head"), "cpu").activations(batch)


def test_two_architectures_of_one_name_are_an_error(
    write_card: Callable[..., ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint(name="residual-gap", value="elsewhere:build", group="camnode.architectures")
    monkeypatch.setattr("cam_core.extension._installed", lambda group: [point])
    with pytest.raises(DuplicateName, match="elsewhere:build"):
        open_classifier(residual(write_card), "cpu")


def test_an_installed_architecture_is_found(
    write_card: Callable[..., ModelCard], monkeypatch: pytest.MonkeyPatch, batch: np.ndarray
) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint(
        name="other", value="cam_core.runtimes.architectures.residual_gap:build", group="camnode.architectures"
    )
    monkeypatch.setattr("cam_core.extension._installed", lambda group: [point])
    assert open_classifier(residual(write_card, architecture="other"), "cpu").scores(batch).shape == (1, 3)


def test_gradients_are_those_of_the_logits_by_the_target(
    torch_classifier: Callable[..., TorchClassifier], batch: np.ndarray
) -> None:
    """Against finite differences of the head alone, for a head with two layers."""
    classifier = torch_classifier("layers")
    capture = classifier.gradients(np.repeat(batch, 2, axis=0), [2, 0])
    assert capture.gradients is not None
    assert capture.gradients.shape == (2, 2, 8, 8, 8)
    planes = capture.activations[0]
    head = classifier._module.head.double()
    for place in ((0, 1, 1), (3, 4, 7), (7, 0, 0)):
        step = np.zeros_like(planes, dtype=np.float64)
        step[place] = 1e-4
        both = [head(torch.from_numpy((planes + sign * step).mean(axis=(1, 2)))) for sign in (1, -1)]
        slope = ((both[0] - both[1]) / 2e-4).detach().numpy()
        assert capture.gradients[0, 0][place] == pytest.approx(slope[2], rel=1e-3, abs=1e-7)
        assert capture.gradients[1, 1][place] == pytest.approx(slope[0], rel=1e-3, abs=1e-7)


def test_an_in_place_change_after_the_target_harms_nothing(
    torch_classifier: Callable[..., TorchClassifier], modules: dict[str, Callable[[], nn.Module]], batch: np.ndarray
) -> None:
    """The target's own output is captured, and its gradient is gated by the ReLU that follows."""
    classifier = torch_classifier("in-place")
    capture = classifier.gradients(batch, [0])
    assert capture.gradients is not None
    assert capture.activations.min() < 0
    assert (capture.gradients[0, 0][capture.activations[0] < 0] == 0).all()
    plain = modules["linear"]()
    assert capture.scores == pytest.approx(plain(torch.from_numpy(batch)).detach().numpy(), abs=1e-6)
    assert classifier.activations(batch).activations.tolist() == capture.activations.tolist()
    assert classifier.registration.measured


def test_it_works_inside_inference_mode_and_leaves_the_modes_alone(
    torch_classifier: Callable[..., TorchClassifier], batch: np.ndarray
) -> None:
    classifier = torch_classifier("layers")
    expected = classifier.gradients(batch, [0]).gradients
    with torch.inference_mode():
        found = classifier.gradients(batch, [0]).gradients
        assert torch.is_inference_mode_enabled()
    assert found is not None
    assert expected is not None
    assert found.tolist() == expected.tolist()
    assert torch.is_grad_enabled()
    with torch.no_grad():
        classifier.gradients(batch, [0])
        assert not torch.is_grad_enabled()


def test_the_module_is_the_same_afterwards_also_after_an_error(
    torch_classifier: Callable[..., TorchClassifier], batch: np.ndarray
) -> None:
    classifier = torch_classifier("layers")
    before = {name: value.clone() for name, value in classifier._module.state_dict().items()}
    expected = classifier.scores(batch)
    classifier.gradients(batch, [0, 1])
    with pytest.raises(ModelLoadError):
        classifier.gradients(batch[:, :, :1, :1].repeat(2, axis=1), [0])
    with pytest.raises(IndexError):
        classifier.gradients(batch, [99])
    assert classifier.scores(batch).tolist() == expected.tolist()
    assert all(torch.equal(value, before[name]) for name, value in classifier._module.state_dict().items())
    assert all(parameter.grad is None for parameter in classifier._module.parameters())
    assert not classifier._module.training


def test_head_weights_only_where_the_head_is_pooling_and_one_layer(
    torch_classifier: Callable[..., TorchClassifier],
) -> None:
    linear = torch_classifier("linear")
    weights = linear.head_weights()
    assert weights is not None
    assert np.array_equal(weights, linear._module.head.weight.numpy())
    assert torch_classifier("layers").head_weights() is None
    assert torch_classifier("flat").head_weights() is None
    assert torch_classifier("in-place").head_weights() is None  # a ReLU stands between the target and the pooling
    assert torch_classifier("linear", target="first").head_weights() is None


def test_a_target_that_runs_twice_is_refused(
    write_card: Callable[..., ModelCard], modules: dict[str, Callable[[], nn.Module]], batch: np.ndarray
) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = modules["linear"]()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner.relu(self.inner(x)[:, :, None, None])[:, :, 0, 0]
            return logits

    classifier = TorchClassifier(write_card(target="inner.relu"), Twice())
    with pytest.raises(UnusableTargetLayer, match="runs more than once"):
        classifier.activations(batch)
    assert classifier.scores(batch).shape == (1, 3)


def test_eight_threads_get_what_one_gets(torch_classifier: Callable[..., TorchClassifier]) -> None:
    classifier = torch_classifier("layers")
    source = np.random.default_rng(2)
    batches = [source.standard_normal((1, 1, 32, 32)).astype(np.float32) for _ in range(8)]
    expected = [classifier.gradients(one, [0, 2]) for one in batches]

    def ask(number: int) -> bool:
        one = number % 8
        if number % 3 == 0:
            return np.array_equal(classifier.scores(batches[one]), expected[one].scores)
        if number % 3 == 1:
            return np.array_equal(classifier.activations(batches[one]).activations, expected[one].activations)
        found = classifier.gradients(batches[one], [0, 2])
        return np.array_equal(found.gradients, expected[one].gradients) and np.array_equal(
            found.activations, expected[one].activations
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(800)))
