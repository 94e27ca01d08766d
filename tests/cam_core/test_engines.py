"""Tests of the engines for changed inputs: each stays as near to the model as it says, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import card, network
from torch import nn

from cam_core.classifier import EXACT, Classifier, ForwardOptions, Numerics, open_classifier
from cam_core.errors import ModelLoadError, OutOfMemory
from cam_core.extension import load_named
from cam_core.runtimes import engines
from cam_core.runtimes.engines import ENGINES, deviation, noise
from cam_core.runtimes.folding import folded
from cam_core.runtimes.onnx_runtime import open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

GRIDS = {2: (32, 40), 3: (16, 24, 20)}


class Normed(nn.Module):
    """Convolutions with batch norms that can be folded, one that can't (read twice), and a shared one."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.stem = nn.Sequential(convolution(1, 6, 3, 2, 1, bias=False), norm(6), nn.ReLU(inplace=True))
        self.branch = convolution(6, 6, 3, 1, 1)
        self.branch_norm = norm(6)
        self.again = convolution(6, 6, 1)
        self.again_norm = norm(6)
        self.planes = nn.ReLU()
        self.head = nn.Linear(6, 5)
        source = torch.Generator().manual_seed(4)
        for one in self.modules():
            if isinstance(one, norm):
                one.running_mean.normal_(0, 0.3, generator=source)
                one.running_var.uniform_(0.5, 2.0, generator=source)
        for parameter in self.parameters():
            fan = parameter[0].numel() if parameter.ndim > 1 else 8
            parameter.data.normal_(0.5 if parameter.ndim == 1 else 0, 1.5 / fan**0.5, generator=source)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.stem(x)
        raw = self.branch(low)
        high = torch.relu(self.branch_norm(raw) + raw)
        high = self.again_norm(self.again(self.again_norm(self.again(high))))
        logits: torch.Tensor = self.head(self.planes(high).flatten(2).mean(2))
        return logits


def opened(dimensions: int, forward: ForwardOptions = EXACT, module: nn.Module | None = None) -> TorchClassifier:
    paper = card(target="planes", channels=1, grid=GRIDS[dimensions])
    return TorchClassifier(paper, module or Normed(dimensions).eval(), "cpu", forward)


def inputs(dimensions: int, count: int) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, 1, *GRIDS[dimensions])).astype(np.float32)


TOLERANCES = {"fp32": 1e-4, "bf16": 0.2, "fp16": 0.02}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(
    ("engine", "precision"),
    [("fused", "fp32"), ("onnxruntime", "fp32"), ("model", "bf16"), ("model", "fp16"), ("fused", "bf16")],
)
def test_an_engine_stays_near_the_model_and_says_how_near(dimensions: int, engine: Any, precision: Any) -> None:
    exact = opened(dimensions)
    other = opened(dimensions, ForwardOptions(engine=engine, precision=precision))
    assert (other.numerics.engine, other.numerics.precision) == (engine, precision)
    assert 0 < other.numerics.deviation < TOLERANCES[precision]
    for count in (1, 3, 16):
        batch = inputs(dimensions, count)
        own, found = exact.scores(batch), other.perturbed_scores(batch)
        spread = float(np.ptp(exact.scores(noise((8, 1, *GRIDS[dimensions]))), axis=0).min())
        assert np.abs(found - own).max() <= 3 * TOLERANCES[precision] * max(spread, 1.0)
        assert count < 16 or not np.array_equal(found, own)
        assert np.array_equal(other.scores(batch), own)
    one, other_one = exact.gradients(batch, [1], curvature=True), other.gradients(batch, [1], curvature=True)
    assert np.array_equal(one.gradients, other_one.gradients)
    assert np.array_equal(one.activations, other_one.activations)


def test_the_model_itself_is_exact_and_does_not_deviate() -> None:
    exact = opened(2)
    assert exact.numerics == Numerics(engine="model", precision="fp32", deviation=0.0)
    batch = inputs(2, 3)
    assert np.array_equal(exact.perturbed_scores(batch), exact.scores(batch))
    low = opened(2, module=Normed(2).eval().to(torch.bfloat16))
    assert low.numerics == Numerics(engine="model", precision="bf16", deviation=0.0)


def test_the_recorded_deviation_is_the_one_of_the_noise() -> None:
    exact, low = opened(2), opened(2, ForwardOptions(precision="bf16"))
    batch = noise((8, 1, *GRIDS[2]))
    own = exact.scores(batch).astype(np.float64)
    apart = np.abs(np.concatenate([low.perturbed_scores(batch[:5]), low.perturbed_scores(batch[5:])]) - own)
    slow = max(apart[:, label].max() / (own[:, label].max() - own[:, label].min()) for label in range(5))
    assert low.numerics.deviation == pytest.approx(slow, rel=1e-6)


def test_the_caller_s_module_keeps_its_weights() -> None:
    module = Normed(2).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for forward in (
        ForwardOptions(engine="fused"),
        ForwardOptions(precision="bf16"),
        ForwardOptions(engine="onnxruntime"),
    ):
        opened(2, forward, module).perturbed_scores(inputs(2, 2))
    after = module.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())


def test_only_what_runs_once_and_is_read_once_is_folded() -> None:
    module = Normed(2).eval()
    traced = folded(module, torch.zeros(2, 1, *GRIDS[2]))
    norms = [name for name, layer in traced.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    assert norms == ["branch_norm", "again_norm"]
    batch = torch.from_numpy(inputs(2, 3))
    assert torch.allclose(traced(batch), module(batch), rtol=1e-4, atol=1e-5)


class Undecided(nn.Module):
    """What it does depends on the values: no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.planes = nn.Conv2d(1, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.planes(x)
        if planes.mean() > 0:
            planes = planes * 2
        logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


class Batched(nn.Module):
    """An export of it would hold the number of inputs that it was made with."""

    def __init__(self) -> None:
        super().__init__()
        self.planes = nn.Conv2d(1, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.planes(x).mean((2, 3))
        logits: torch.Tensor = self.head(planes.reshape(int(x.shape[0]) * 1, 4))
        return logits


class Huge(nn.Module):
    """Its activations are beyond half precision."""

    def __init__(self) -> None:
        super().__init__()
        self.planes = nn.Conv2d(1, 4, 3, 2, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head((self.planes(x) * 1e6).mean((2, 3)) * 1e-6)
        return logits


@pytest.mark.parametrize(
    ("module", "forward", "message"),
    [
        (Undecided, ForwardOptions(engine="fused"), "engine 'fused' can't take the model"),
        (Batched, ForwardOptions(engine="onnxruntime"), "can't be run"),
        (Huge, ForwardOptions(precision="fp16"), "no finite logits"),
        (Batched, ForwardOptions(engine="onnxruntime", precision="bf16"), "in fp32 only"),
        (Undecided, ForwardOptions(engine="steam"), "engine 'steam' can't run a torch model"),  # type: ignore[arg-type]
    ],
)
def test_what_an_engine_cannot_take_is_an_error_when_it_is_opened(
    module: Callable[[], nn.Module], forward: ForwardOptions, message: str
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        opened(2, forward, module().eval())


def test_an_engine_that_runs_out_of_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened(2, ForwardOptions(engine="fused"))

    def dry(batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(model, "_engine", dry)
    with pytest.raises(OutOfMemory, match="2 input"):
        model.perturbed_scores(inputs(2, 2))
    assert model.scores(inputs(2, 2)).shape == (2, 5)


@pytest.mark.parametrize("engine", ["fused", "onnxruntime"])
def test_eight_threads_get_what_one_gets(engine: Any) -> None:
    model = opened(2, ForwardOptions(engine=engine))
    batches = [inputs(2, count) for count in (1, 2, 3, 4)]
    expected = [model.perturbed_scores(one) for one in batches]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: model.perturbed_scores(batches[number % 4]), range(200)))
    assert all(np.array_equal(one, expected[number % 4]) for number, one in enumerate(found))


def test_every_engine_of_the_table_is_there() -> None:
    assert all(callable(load_named(source)) for source in ENGINES.values())
    assert engines.ENGINES.keys() == {"model", "fused", "onnxruntime"}


def test_deviation_of_what_does_not_vary() -> None:
    still = np.ones((8, 2), np.float32)
    assert deviation(lambda batch: still[: len(batch)], lambda batch: still[: len(batch)], (1, 8, 8)) == 0
    assert deviation(lambda batch: still[: len(batch)], lambda batch: 2 * still[: len(batch)], (1, 8, 8)) == np.inf


def test_an_onnx_model_is_its_own_engine(
    write_card: Callable[..., Any], export: Callable[..., bytes], modules: dict[str, Callable[[], nn.Module]]
) -> None:
    weights = export(modules["layers"]())
    paper = write_card(weights, runtime="onnx", target=None)
    model: Classifier = open_classifier(paper, "cpu", ForwardOptions(engine="onnxruntime"))
    assert model.numerics == Numerics()
    for forward in (ForwardOptions(engine="fused"), ForwardOptions(precision="bf16")):
        with pytest.raises(ModelLoadError, match="can't run an ONNX model"):
            open_onnx(paper, weights, "cpu", forward)


def test_a_plain_network_is_opened_with_an_engine_by_its_card(write_card: Callable[..., Any]) -> None:
    from safetensors.torch import save

    from cam_core.runtimes.architectures.residual_gap import build

    options = {"in_channels": 1, "n_labels": 3, "stem_channels": 4, "channels": [4], "blocks": [1], "strides": [2]}
    options["dilations"] = [1]
    table = "[model.architecture_options]\n" + "\n".join(f"{key} = {value}" for key, value in options.items())
    torch.manual_seed(2)
    paper = write_card(save(build(options).state_dict()), architecture="residual-gap", target="stages", options=table)
    model = open_classifier(paper, "cpu", ForwardOptions(engine="fused"))
    assert model.numerics.engine == "fused"
    assert model.numerics.deviation < 1e-3
    assert network().training is False
