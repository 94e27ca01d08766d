"""Small models of every kind that a method may meet, with what is known of each; tests only."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from small_networks import LABELS, card, network, picture
from torch import Tensor, nn

from cam_core.card import ActivationLayout
from cam_core.classifier import Classifier
from cam_core.image import Image, Volume
from cam_core.model_input import model_input
from cam_core.runtimes.onnx_runtime import open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

PLANE = (32, 32)
VOLUME = (8, 16, 24)
WIDTH = 8


class Headed(nn.Module):
    """Convolutions with ReLU up to `target`, then a head of several layers, or one layer on the flattened planes."""

    def __init__(self, head: str, grid: Sequence[int] = PLANE, channels: int = 1) -> None:
        super().__init__()
        convolution = nn.Conv2d if len(grid) == 2 else nn.Conv3d
        self.first = convolution(channels, 6, 3, 2, 1)
        self.second = convolution(6, WIDTH, 3, 2, 1)
        self.target = nn.ReLU()
        self.flat = head == "flat"
        cells = torch.Size([side // 4 for side in grid]).numel()
        self.head = (
            nn.Linear(WIDTH * cells, LABELS)
            if self.flat
            else nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Dropout(0.5), nn.Linear(16, LABELS))
        )

    def forward(self, batch: Tensor) -> Tensor:
        planes = self.target(self.second(torch.relu(self.first(batch))))
        logits: Tensor = self.head(planes.flatten(1) if self.flat else planes.flatten(2).mean(2))
        return logits


class Block(nn.Module):
    """A transformer's layer: attention and a small network, each behind a norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.between = nn.LayerNorm(WIDTH)
        self.mixing = nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))

    def forward(self, tokens: Tensor) -> Tensor:
        seen = self.before(tokens)
        tokens = tokens + self.attention(seen, seen, seen, need_weights=False)[0]
        mixed: Tensor = tokens + self.mixing(self.between(tokens))
        return mixed


class VisionTransformer(nn.Module):
    """Patches of four pixels as tokens behind one class token, from which alone the logits are read."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 4, 4)
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(torch.zeros(1, 65, WIDTH))
        self.first = Block()
        self.last = Block()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, LABELS)

    def forward(self, batch: Tensor) -> Tensor:
        patches = self.patches(batch).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(batch), -1, -1), patches], dim=1) + self.places
        logits: Tensor = self.head(self.norm(self.last(self.first(tokens)))[:, 0])
        return logits


class ShiftedWindows(nn.Module):
    """Planes with their channels last, mixed within windows of 2 x 2 cells, then a norm, the mean and one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, WIDTH, 4, 4)
        self.windows = nn.Linear(4 * WIDTH, 4 * WIDTH)
        self.target = nn.LayerNorm(WIDTH)
        self.after = nn.GELU()
        self.head = nn.Linear(WIDTH, LABELS)

    def forward(self, batch: Tensor) -> Tensor:
        planes = self.patches(batch).permute(0, 2, 3, 1)
        size, rows, columns, width = planes.shape
        windows = planes.reshape(size, rows // 2, 2, columns // 2, 2, width).transpose(2, 3)
        mixed = self.windows(windows.reshape(size, rows // 2, columns // 2, 4 * width))
        mixed = mixed.reshape(size, rows // 2, columns // 2, 2, 2, width).transpose(2, 3)
        planes = self.target(planes + mixed.reshape(size, rows, columns, width))
        logits: Tensor = self.head(self.after(planes).mean((1, 2)))
        return logits


def seeded(module: nn.Module, seed: int = 2) -> nn.Module:
    """The module with weights of noise, so that nothing in it is dead or symmetric."""
    source = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        size = 0.3 if parameter.ndim == 1 else 1.2 / parameter[0].numel() ** 0.5
        parameter.data = torch.randn(parameter.shape, generator=source) * size
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm):
            norm.weight.data += 1
    return module.eval()


def made_under_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return network(head="smooth")


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


PLANES = ActivationLayout()
CHANNELS_LAST = ActivationLayout(layout="channels-last")
TOKENS = ActivationLayout(layout="tokens", token_grid=(8, 8), prefix_tokens=1)


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of model.

    Attributes
    ----------
    build : callable
        Makes the module anew.
    target : str
    grid, cells : tuple of int
    channels : int
        Of the input.
    activations : ActivationLayout
    onnx : bool
        Whether it is exported and run by onnxruntime.
    linear, complete : bool
        Whether the head is global average pooling and one linear layer; whether the logit is linear in the target's
        output at all.
    lacks : frozenset of str
        Full names of the methods that can't explain it, besides CAM where it isn't `linear`.
    """

    build: Callable[[], nn.Module]
    target: str = "target"
    grid: tuple[int, ...] = PLANE
    cells: tuple[int, ...] = (8, 8)
    channels: int = 1
    activations: ActivationLayout = PLANES
    onnx: bool = False
    linear: bool = False
    complete: bool = False
    lacks: frozenset[str] = frozenset()

    @property
    def failing(self) -> frozenset[str]:
        """Full names of all methods that can't explain it."""
        return self.lacks if self.linear else self.lacks | {"cam"}


IN_VOLUME = {"grid": VOLUME, "cells": (2, 4, 6)}

TORCH: Mapping[str, Kind] = {
    "linear head": Kind(build=network, linear=True, complete=True),
    "smooth head": Kind(build=lambda: network(head="smooth")),
    "in-place relu": Kind(build=lambda: network(head="in-place")),
    "several layers": Kind(build=lambda: seeded(Headed("layers"))),
    "flat head": Kind(build=lambda: seeded(Headed("flat")), complete=True),
    "colour": Kind(build=lambda: seeded(Headed("layers", channels=3)), channels=3),
    "frozen": Kind(build=lambda: frozen(network(head="smooth"))),
    "training mode": Kind(build=lambda: seeded(Headed("layers")).train()),
    "made under inference mode": Kind(build=made_under_inference_mode),
    "channels last in memory": Kind(build=lambda: network(head="smooth").to(memory_format=torch.channels_last)),
    "bf16": Kind(build=lambda: network(head="smooth").to(torch.bfloat16)),
    "vision transformer": Kind(
        build=lambda: seeded(VisionTransformer()),
        target="first",
        activations=TOKENS,
        lacks=frozenset({"shapley-cam"}),  # torch has no second derivative of its fused attention
    ),
    "shifted windows": Kind(build=lambda: seeded(ShiftedWindows()), activations=CHANNELS_LAST),
    "volume linear head": Kind(build=lambda: network(dimensions=3), linear=True, complete=True, **IN_VOLUME),
    "volume smooth head": Kind(build=lambda: network(dimensions=3, head="smooth"), **IN_VOLUME),
    "volume in-place relu": Kind(build=lambda: network(dimensions=3, head="in-place"), **IN_VOLUME),
    "volume flat head": Kind(build=lambda: seeded(Headed("flat", VOLUME)), complete=True, **IN_VOLUME),
    "volume bf16": Kind(build=lambda: network(dimensions=3, head="smooth").to(torch.bfloat16), **IN_VOLUME),
}

ONNX: Mapping[str, Kind] = {
    f"onnx {name}": replace(TORCH[name], onnx=True, **changes)
    for name, changes in (
        ("linear head", {}),
        ("smooth head", {"linear": True, "complete": True}),  # there the target is found behind the last convolution
        ("several layers", {}),
        ("flat head", {}),
        ("volume linear head", {}),
        ("volume smooth head", {"linear": True, "complete": True}),
    )
}

KINDS: Mapping[str, Kind] = {**TORCH, **ONNX}


def image_of(kind: Kind, seed: int = 5) -> Image | Volume:
    return picture(kind.grid, kind.channels, seed=seed)


def input_of(kind: Kind, image: Image | Volume) -> Tensor:
    """What the model is given, (1, C, *grid)."""
    return torch.from_numpy(
        model_input(image, card(target=kind.target, channels=kind.channels, grid=kind.grid).input)[0]
    )


def torch_of(kind: Kind, module: nn.Module | None = None, target: str | None = None) -> TorchClassifier:
    paper = card(target=target or kind.target, channels=kind.channels, grid=kind.grid)
    return TorchClassifier(replace(paper, activations=kind.activations), kind.build() if module is None else module)


def onnx_of(kind: Kind) -> Classifier:
    paper = card(target=kind.target, channels=kind.channels, grid=kind.grid)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter's, of itself
        torch.onnx.export(
            kind.build(),
            (torch.zeros(1, kind.channels, *kind.grid),),
            buffer,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
            dynamo=False,
            opset_version=17,
        )
    return open_onnx(replace(paper, runtime="onnx", target_layer=None), buffer.getvalue(), "cpu")


@cache
def classifier_of(name: str) -> Classifier:
    """The classifier of a kind, made once."""
    kind = KINDS[name]
    return onnx_of(kind) if kind.onnx else torch_of(kind)
