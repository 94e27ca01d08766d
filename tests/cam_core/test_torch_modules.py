"""Tests of the torch runtime on modules that are made or used in odd ways, and of dropout that goes on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import card
from torch import nn

from cam_core.card import ModelCard
from cam_core.errors import MethodNotApplicable, ModelLoadError, UnusableTargetLayer
from cam_core.runtimes.dropout import dropped
from cam_core.runtimes.private_copy import arranged
from cam_core.runtimes.torch_runtime import TorchClassifier


def odd_card() -> ModelCard:
    return card(target="planes", channels=1, grid=(16, 16))


def noise(count: int = 2) -> np.ndarray:
    return np.random.default_rng(6).standard_normal((count, 1, 16, 16)).astype(np.float32)


class Body(nn.Module):
    """One convolution, its planes, a head; what the cases below make odd."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(1, 6, 3, 2, 1)
        self.planes: nn.Module = nn.ReLU()
        self.head: nn.Module = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.planes(self.first(x)).mean((2, 3)))
        return logits


class Tied(Body):
    """One weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(1, 6, 3, 2, 1)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.planes(self.first(x) - 0.5 * self.second(x.flip(2)))
        logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


def weight_normed() -> nn.Module:
    body = Body()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(body.first)
    return body


def parametrised() -> nn.Module:
    body = Body()
    nn.utils.parametrizations.spectral_norm(body.first)
    nn.utils.parametrizations.weight_norm(body.head)
    return body


def of_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Body()


def training_with_norm() -> nn.Module:
    body = Body()
    body.planes = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout2d(0.5))
    return body.train()


def with_five_dimensions() -> nn.Module:
    body = Body()
    body.register_parameter("table", nn.Parameter(torch.zeros(1, 2, 3, 4, 5)))
    return body


ODD: dict[str, Callable[[], nn.Module]] = {
    "tied": Tied,
    "weight norm by hooks": weight_normed,
    "parametrised": parametrised,
    "made in inference mode": of_inference_mode,
    "in training mode": training_with_norm,
    "a parameter of five dimensions": with_five_dimensions,
    "frozen": lambda: Body().requires_grad_(False),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_modules_are_explained_and_left_as_they_are(name: str) -> None:
    module = ODD[name]()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    hooks = [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in module.modules()]
    training = [one.training for one in module.modules()]
    classifier = TorchClassifier(odd_card(), module)
    capture = classifier.gradients(noise(), [1, 4], curvature=True)
    assert capture.gradients is not None
    assert capture.gradients.shape == (2, 2, 6, 8, 8)
    assert np.abs(capture.gradients).max() > 0
    assert classifier.registration.measured
    assert np.isfinite(classifier.head_scores(noise(1), capture.activations)).all()
    copied = classifier.module_copy()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1)
    assert np.array_equal(classifier.scores(noise()), capture.scores)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert [(len(one._forward_hooks), len(one._forward_pre_hooks)) for one in module.modules()] == hooks
    assert [one.training for one in module.modules()] == training
    assert all(one.grad is None for one in module.parameters())
    with torch.inference_mode():
        expected = module.eval()(torch.from_numpy(noise())).numpy()
    assert capture.scores == pytest.approx(expected, abs=1e-5)


def test_tied_weights_stay_tied() -> None:
    classifier = TorchClassifier(odd_card(), Tied())
    own, copied = classifier._module, classifier.module_copy()
    for module in (own, copied):
        assert module.first.weight is module.second.weight
    assert copied.first.weight.data_ptr() != own.first.weight.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_another_precision(dtype: torch.dtype) -> None:
    expected = TorchClassifier(odd_card(), Body()).gradients(noise(), [0])
    found = TorchClassifier(odd_card(), Body().to(dtype)).gradients(noise(), [0])
    size = float(np.abs(expected.scores).max())
    tolerance = {torch.bfloat16: 2e-2, torch.float16: 2e-3, torch.float64: 1e-5}[dtype]
    assert found.scores.dtype == np.float32
    assert np.abs(found.scores - expected.scores).max() < tolerance * size
    assert found.gradients == pytest.approx(expected.gradients, rel=tolerance, abs=1e-6)


def test_the_caller_s_autocast_is_not_taken_over() -> None:
    classifier = TorchClassifier(odd_card(), Body())
    expected = classifier.gradients(noise(), [0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = classifier.gradients(noise(), [0])
        assert torch.is_autocast_enabled("cpu")
    assert np.array_equal(found.scores, expected.scores)
    assert np.array_equal(found.gradients, expected.gradients)


class Pair(Body):
    """Gives its planes beside the logits."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x), x  # type: ignore[return-value]


class Listed(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [x]


def test_outputs_that_are_no_tensor_are_told() -> None:
    with pytest.raises(ModelLoadError, match="gives a tuple for 2 input"):
        TorchClassifier(odd_card(), Pair()).scores(noise())
    body = Body()
    body.planes = Listed()
    body.head = nn.Identity()
    with pytest.raises(UnusableTargetLayer, match="gives a list, not a tensor"):
        TorchClassifier(odd_card(), body).activations(noise())
    body = Body()
    body.unused = nn.ReLU()
    with pytest.raises(UnusableTargetLayer, match="takes no part"):
        TorchClassifier(replace(odd_card(), target_layer="unused"), body).activations(noise())


class Skipping(Body):
    """A way around the target, which a head pass with one input and many activations must follow."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.mixed = nn.Conv2d(12, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.first(x)
        planes = self.planes(low)
        if self.way == "added":
            planes = planes + low.abs()
        elif self.way == "joined":
            planes = self.mixed(torch.cat([planes, low], 1))
        elif self.way == "counted":
            planes = planes.reshape(x.shape[0], 6, 8, 8)
        logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


@pytest.mark.parametrize(("way", "alone"), [("none", True), ("added", True), ("joined", False), ("counted", False)])
def test_the_head_is_run_on_any_activations(way: str, alone: bool) -> None:
    module = Skipping(way).eval()
    classifier = TorchClassifier(odd_card(), module)
    others = np.random.default_rng(1).standard_normal((7, 6, 8, 8)).astype(np.float32)
    found = classifier.head_scores(noise(1), others)
    assert classifier._once_trunk_alone() is alone
    for number, planes in enumerate(others):
        handle = module.planes.register_forward_hook(lambda *given, p=planes: torch.from_numpy(p[None]))
        with torch.no_grad():
            slow = module(torch.from_numpy(noise(1)))[0].numpy()
        handle.remove()
        assert found[number] == pytest.approx(slow, abs=1e-5)


def test_a_head_that_fails_says_why() -> None:
    classifier = TorchClassifier(odd_card(), Body())
    with pytest.raises(ModelLoadError, match="can't be run"):
        classifier.head_scores(noise(1), np.zeros((2, 7, 8, 8), np.float32))


def test_no_hook_stays_where_it_could_be_heard() -> None:
    """The one tap is the classifier's own, silent outside its own passes, and gone from copies."""
    module = Body()
    classifier = TorchClassifier(odd_card(), module)
    classifier.gradients(noise(), [0])
    with pytest.raises(ModelLoadError):
        classifier.head_scores(noise(1), np.zeros((2, 7, 8, 8), np.float32))
    assert not any(one._forward_hooks for one in module.modules())
    assert not any(one._forward_hooks for one in classifier.module_copy().modules())
    assert sum(len(one._forward_hooks) for one in classifier._module.modules()) == 1
    assert not classifier._tap._state.listening
    assert classifier._tap._state.output is None


def dropping(*layers: nn.Module) -> TorchClassifier:
    body = Body()
    body.planes = nn.Sequential(nn.ReLU(), *layers)
    return TorchClassifier(odd_card(), body)


def test_sampled_scores_are_seeded_and_leave_everything_as_it_was() -> None:
    classifier = dropping(nn.Dropout(0.4))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    expected = classifier.scores(noise(3))
    one, again, other = (classifier.sampled_scores(noise(3), seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(classifier.scores(noise(3)), expected)
    assert not classifier._module.training
    same = classifier.sampled_scores(np.repeat(noise(1), 2, axis=0), 3)
    assert not np.array_equal(same[0], same[1])
    samples = np.stack([classifier.sampled_scores(noise(1), seed) for seed in range(400)])
    error = samples.std(axis=0) / 20
    assert (np.abs(samples.mean(axis=0) - classifier.scores(noise(1))) < 4 * error).all()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: classifier.sampled_scores(noise(1), seed), range(200)))
    assert all(np.array_equal(value, sample) for value, sample in zip(found, samples, strict=False))


@pytest.mark.parametrize("layers", [(), (nn.Dropout(0.0),), (nn.Dropout2d(0.0), nn.AlphaDropout(0.0))])
def test_a_model_without_dropout_has_no_samples(layers: tuple[nn.Module, ...]) -> None:
    with pytest.raises(MethodNotApplicable, match="no dropout layer that drops anything"):
        dropping(*layers).sampled_scores(noise(1), 0)


KINDS = [
    nn.Dropout(0.3),
    nn.Dropout(0.3, inplace=True),
    nn.Dropout1d(0.3),
    nn.Dropout2d(0.3),
    nn.Dropout3d(0.3),
    nn.AlphaDropout(0.3),
    nn.FeatureAlphaDropout(0.3),
    nn.Dropout(1.0),
    nn.AlphaDropout(1.0),
]


@pytest.mark.parametrize("layer", KINDS, ids=str)
def test_dropped_values_are_those_of_the_layer_in_training(layer: nn.Module) -> None:
    """The same set of values that come out, the same share of them, the same shape of what falls together."""
    shape = {nn.Dropout1d: (40, 50, 6), nn.Dropout3d: (40, 50, 2, 2, 2)}.get(type(layer), (40, 50, 3, 2))
    values = torch.ones(shape)
    found = dropped(layer, values.clone(), torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    expected = copy.deepcopy(layer).train()(values.clone())
    for one in (found, expected):
        assert len(torch.unique(one.round(decimals=5))) == (1 if layer.p == 1 else 2)
    assert torch.unique(found).numpy() == pytest.approx(torch.unique(expected).numpy(), abs=1e-5)
    low = found.min()
    assert float((found == low).float().mean()) == pytest.approx(1.0 if layer.p == 1 else 0.3, abs=0.05)
    together = [(one == one.min()).flatten(2).float().mean(2) for one in (found, expected)]
    whole = [bool(((share == 0) | (share == 1)).all()) for share in together]
    assert whole[0] == whole[1]


def test_planes_are_channels_last_from_the_first_layer_on_also_with_one_input_channel() -> None:
    """A weight with one input channel counts as laid out either way, and all planes after it follow it."""
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    arranged(module, torch.channels_last)
    with torch.no_grad():
        planes = module[0](torch.zeros(2, 1, 8, 8))
    assert planes.stride() == torch.zeros(2, 4, 6, 6).contiguous(memory_format=torch.channels_last).stride()
