"""Tests of the torch runtime: what it captures, what it refuses, and that it leaves everything as it was."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save
from small_networks import card
from torch import nn

from cam_core.card import ModelCard
from cam_core.classifier import Capability, open_classifier
from cam_core.errors import (
    DigestMismatch,
    DuplicateName,
    MethodNotApplicable,
    ModelLoadError,
    UnknownArchitecture,
    UnknownTargetLayer,
    UnusableTargetLayer,
)
from cam_core.runtimes.architectures.residual_gap import build
from cam_core.runtimes.dropout import dropped
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
    monkeypatch.setattr("cam_core.extension.entry_points", lambda group: [point])
    with pytest.raises(DuplicateName, match="elsewhere:build"):
        open_classifier(residual(write_card), "cpu")


def test_an_installed_architecture_is_found(
    write_card: Callable[..., ModelCard], monkeypatch: pytest.MonkeyPatch, batch: np.ndarray
) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint(
        name="other", value="cam_core.runtimes.architectures.residual_gap:build", group="camnode.architectures"
    )
    monkeypatch.setattr("cam_core.extension.entry_points", lambda group: [point])
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
