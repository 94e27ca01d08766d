"""Small models, cards and images for the tests of cam_core; nothing here is a measurement."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cam_core.card import ModelCard, load_card
from cam_core.finding import Code, Finding, Label
from cam_core.image import Image
from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

SIDE = 32
LABELS = 3

CARD = """
[model]
name = "small"
version = "0.1"
manufacturer = "camnode project"
demonstration_only = true
runtime = "{runtime}"
weights = "{weights}"
sha256 = "{sha256}"
{extra}
{options}
[input]
rows = {side}
columns = {side}
channels = {channels}
fit = "pad"
normalisation = "per-image"
{labels}
[output]
activation = "sigmoid"

[intended_use]
statement = "Tests only."
"""

LABEL = """
[[labels]]
name = "finding {number}"
code = {{ value = "{number}", scheme = "99TEST", meaning = "Finding {number}" }}
threshold = 0.5
"""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _seeded(module: nn.Module, seed: int = 3) -> nn.Module:
    source = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=source) * (0.5 if parameter.ndim == 1 else 0.35)
    return module.eval()


class Small(nn.Module):
    """Two strided convolutions, each with ReLU, then a head on the globally averaged or flattened planes."""

    def __init__(self, head: str, *, channels: int = 1, in_place: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 6, 3, 2, 1)
        self.second = nn.Conv2d(6, 8, 3, 2, 1)
        self.relu = nn.ReLU(inplace=in_place)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = head == "flat"
        if head == "linear":
            self.head: nn.Module = nn.Linear(8, LABELS)
        elif head == "layers":
            self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, LABELS))
        else:
            self.head = nn.Linear(8 * (SIDE // 4) ** 2, LABELS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.relu(self.second(torch.relu(self.first(x))))
        logits: torch.Tensor = self.head(planes.flatten(1) if self.flat else self.pool(planes).flatten(1))
        return logits


MODULES: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: _seeded(Small("linear")),
    "layers": lambda: _seeded(Small("layers")),
    "flat": lambda: _seeded(Small("flat")),
    "in-place": lambda: _seeded(Small("linear", in_place=True)),
    "colour": lambda: _seeded(Small("layers", channels=3)),
}


@pytest.fixture(scope="session")
def modules() -> dict[str, Callable[[], nn.Module]]:
    return MODULES


@pytest.fixture(scope="session")
def write_card(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelCard]:
    """Write a card and its weights to a new folder and load the card."""

    def write(
        weights: bytes = b"weights",
        *,
        runtime: str = "torch",
        target: str | None = "relu",
        labels: int = LABELS,
        architecture: str = "none",
        options: str = "",
        side: int = SIDE,
        channels: int = 1,
    ) -> ModelCard:
        folder = tmp_path_factory.mktemp("model")
        name = "model.onnx" if runtime == "onnx" else "weights.safetensors"
        extra = f'target_layer = "{target}"\n' if target else ""
        extra += f'architecture = "{architecture}"' if runtime == "torch" else ""
        (folder / name).write_bytes(weights)
        (folder / "model.toml").write_text(
            CARD.format(
                runtime=runtime,
                weights=name,
                sha256=hashlib.sha256(weights).hexdigest(),
                extra=extra,
                options=options,
                side=side,
                channels=channels,
                labels="".join(LABEL.format(number=i) for i in range(labels)),
            )
        )
        return load_card(folder / "model.toml")

    return write


@pytest.fixture(scope="session")
def torch_classifier(write_card: Callable[..., ModelCard]) -> Callable[..., TorchClassifier]:
    """A classifier of one of `MODULES`."""

    def build(name: str, target: str | None = None) -> TorchClassifier:
        target = target or ("second" if name == "in-place" else "relu")
        return TorchClassifier(write_card(target=target, channels=3 if name == "colour" else 1), MODULES[name]())

    return build


def exported(module: nn.Module, channels: int = 1, side: int = SIDE) -> bytes:
    """A module as ONNX bytes with a free batch size."""
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        (torch.zeros(1, channels, side, side),),
        buffer,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
        dynamo=False,
        opset_version=17,
    )
    return buffer.getvalue()


@pytest.fixture(scope="session")
def export() -> Callable[..., bytes]:
    return exported


@pytest.fixture(scope="session")
def onnx_classifier(write_card: Callable[..., ModelCard]) -> Callable[..., OnnxClassifier]:
    """The same models as ONNX files, without a named target."""

    def build(name: str) -> OnnxClassifier:
        channels = 3 if name == "colour" else 1
        weights = exported(MODULES[name](), channels)
        return open_onnx(write_card(weights, runtime="onnx", target=None, channels=channels), weights, "cpu")

    return build


@pytest.fixture
def image() -> Image:
    """A square picture with bright and dark spots, 0.5 mm pixels."""
    y, x = np.mgrid[:64, :64]
    spots = np.exp(-((y - 20) ** 2 + (x - 44) ** 2) / 60) - 0.7 * np.exp(-((y - 46) ** 2 + (x - 18) ** 2) / 90)
    noise = np.random.default_rng(5).normal(0, 0.02, spots.shape)
    return Image(pixels=np.clip(0.4 + 0.5 * spots + noise, 0, 1).astype(np.float32), spacing_mm=(0.5, 0.5))


@pytest.fixture
def finding() -> Callable[..., Finding]:
    def make(number: int = 0, probability: float = 0.8) -> Finding:
        code = Code(value=str(number), scheme="99TEST", meaning=f"Finding {number}")
        return Finding(
            label=Label(name=f"finding {number}", code=code, threshold=0.5), logit=1.4, probability=probability
        )

    return make


@pytest.fixture
def batch() -> np.ndarray:
    return np.random.default_rng(11).standard_normal((1, 1, SIDE, SIDE)).astype(np.float32)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")
