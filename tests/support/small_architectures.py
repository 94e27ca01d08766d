"""Small networks after the families that are in use, with random weights: stems, poolings and layouts as theirs.

Each has a layer ``target`` whose output is explained. ``CENTRES`` states where its cells look, by the arithmetic of
convolutions: centre of cell 0 and distance of cells, in input pixels, one number an axis.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx
import torch
import torch.nn.functional as F
from small_networks import card
from torch import Tensor, nn

from cam_core.card import ActivationLayout, ModelCard
from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

LABELS = 5


def _norm_relu(width: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())


def _conv(start: int, end: int, kernel: int, stride: int = 1, padding: int | None = None, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(start, end, kernel, stride, kernel // 2 if padding is None else padding, groups=groups, bias=False)


class Pooled(nn.Module):
    """Body, target, global average, linear layer."""

    def __init__(self, body: nn.Module, width: int, target: nn.Module | None = None) -> None:
        super().__init__()
        self.body = body
        self.target = target or nn.ReLU()
        self.head = nn.Linear(width, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.target(self.body(x)).flatten(2).mean(2))
        return logits


class Residual(nn.Module):
    """Two convolutions beside a shortcut (He et al., CVPR 2016), in two or three dimensions."""

    def __init__(self, start: int, end: int, stride: int | tuple[int, ...], dimensions: int = 2) -> None:
        super().__init__()
        convolution, norm = (nn.Conv2d, nn.BatchNorm2d) if dimensions == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.inner = nn.Sequential(
            convolution(start, end, 3, stride, 1, bias=False),
            norm(end),
            nn.ReLU(inplace=True),
            convolution(end, end, 3, 1, 1, bias=False),
            norm(end),
        )
        self.shortcut = nn.Sequential(convolution(start, end, 1, stride, bias=False), norm(end))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.inner(x) + self.shortcut(x), inplace=True)


def residual_net() -> nn.Module:
    """Stem 7x7 by 2, overlapping max pooling, two stages."""
    stem = nn.Sequential(_conv(1, 6, 7, 2), _norm_relu(6), nn.MaxPool2d(3, 2, 1))
    return Pooled(nn.Sequential(stem, Residual(6, 8, 1), Residual(8, 8, 2)), 8)


def residual_net_3d() -> nn.Module:
    """Strides that are smaller through the slices than in them."""
    stem = nn.Sequential(nn.Conv3d(1, 6, (3, 5, 5), (1, 2, 2), (1, 2, 2)), nn.BatchNorm3d(6), nn.ReLU(inplace=True))
    body = nn.Sequential(stem, Residual(6, 6, (2, 2, 2), 3), nn.AvgPool3d((1, 2, 2)))
    return Pooled(body, 6)


class InvertedResidual(nn.Module):
    """Wide depthwise convolution between two narrow ends (Sandler et al., CVPR 2018)."""

    def __init__(self, start: int, end: int, stride: int) -> None:
        super().__init__()
        wide = 2 * start
        self.steps = nn.Sequential(
            _conv(start, wide, 1),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            _conv(wide, wide, 3, stride, groups=wide),
            nn.BatchNorm2d(wide),
            nn.ReLU6(),
            _conv(wide, end, 1),
            nn.BatchNorm2d(end),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.steps(x)


def mobile_net() -> nn.Module:
    stem = nn.Sequential(_conv(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU6())
    return Pooled(nn.Sequential(stem, InvertedResidual(6, 8, 2), InvertedResidual(8, 8, 2)), 8, nn.ReLU6())


class SamePadded(nn.Module):
    """A convolution padded as TensorFlow does: the odd pixel at the end."""

    def __init__(self, start: int, end: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        self.inner = _conv(start, end, kernel, stride, 0, groups)
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        totals = [
            max((math.ceil(int(size) / self.stride) - 1) * self.stride + self.kernel - int(size), 0)
            for size in x.shape[2:]
        ]
        rows, columns = totals
        return self.inner(F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)))


class Squeezed(nn.Module):
    """Channels gated by their own averages (Hu et al., CVPR 2018)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.SiLU(), nn.Conv2d(4, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.gate(x))


def efficient_net() -> nn.Module:
    stem = nn.Sequential(SamePadded(1, 6, 3, 2), nn.BatchNorm2d(6), nn.SiLU())
    block = nn.Sequential(SamePadded(6, 6, 3, 2, groups=6), nn.SiLU(), Squeezed(6), _conv(6, 8, 1))
    return Pooled(nn.Sequential(stem, block, SamePadded(8, 8, 5, 2, groups=8)), 8, nn.SiLU())


class Dense(nn.Module):
    """What comes in beside what is made of it (Huang et al., CVPR 2017)."""

    def __init__(self, start: int, growth: int) -> None:
        super().__init__()
        self.steps = nn.Sequential(_norm_relu(start), _conv(start, growth, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.steps(x)], 1)


def dense_net() -> nn.Module:
    stem = nn.Sequential(_conv(1, 6, 7, 2), _norm_relu(6), nn.MaxPool2d(3, 2, 1))
    transition = nn.Sequential(_norm_relu(10), _conv(10, 6, 1), nn.AvgPool2d(2, 2))
    return Pooled(nn.Sequential(stem, Dense(6, 4), transition, Dense(6, 4)), 10, nn.BatchNorm2d(10))


def vgg_net() -> nn.Module:
    body = nn.Sequential(
        _conv(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2, 2), _conv(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2, 2), _conv(8, 8, 3)
    )
    return Pooled(body, 8, nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, 2)))


class LastNorm(nn.Module):
    """Layer norm over the channels of (N, Ch, h, w), by way of (N, h, w, Ch)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    """Depthwise 7x7, then a perceptron in every place (Liu et al., CVPR 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _conv(width, width, 7, groups=width),
            LastNorm(width),
            nn.Conv2d(width, 16, 1),
            nn.GELU(),
            nn.Conv2d(16, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def conv_next() -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(1, 6, 4, 4), LastNorm(6))
    return Pooled(nn.Sequential(stem, NextBlock(6), nn.Conv2d(6, 8, 2, 2), NextBlock(8)), 8, nn.Identity())


def valid_net() -> nn.Module:
    """Nothing is padded, as in Inception's and Xception's stems."""
    body = nn.Sequential(
        _conv(1, 6, 3, 2, 0), _norm_relu(6), _conv(6, 6, 3, 1, 0), nn.ReLU(), nn.MaxPool2d(3, 2), _conv(6, 8, 3, 1, 0)
    )
    return Pooled(body, 8)


class Attention(nn.Module):
    """Several heads over tokens (N, T, Ch)."""

    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.mixed, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        query, key, value = (
            self.mixed(x).reshape(count, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        )
        weights = torch.softmax(query @ key.transpose(-2, -1) * (width // self.heads) ** -0.5, dim=-1)
        return self.out((weights @ value).transpose(1, 2).reshape(count, tokens, width))


class Block(nn.Module):
    """Attention, then a perceptron in every token, each beside a shortcut (Vaswani et al., NeurIPS 2017)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width), nn.LayerNorm(width)
        self.layers = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.layers(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches 8x8, a class token and two registers; the answer is the class token's (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, cells: int = 8, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 8, 8)
        self.prefix = nn.Parameter(torch.zeros(1, 3, width))
        self.places = nn.Parameter(torch.zeros(1, cells * cells, width))
        self.first = Block(width)
        self.target = nn.LayerNorm(width)
        self.last = Attention(width)
        self.head = nn.Linear(width, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.places
        tokens = torch.cat([self.prefix.expand(x.shape[0], -1, -1), tokens], 1)
        tokens = self.first(tokens)
        tokens = tokens + self.last(self.target(tokens))
        logits: Tensor = self.head(tokens[:, 0])
        return logits


class Windows(nn.Module):
    """Attention within windows of 4x4 places, shifted by two when asked (Liu et al., ICCV 2021)."""

    def __init__(self, width: int, shift: int) -> None:
        super().__init__()
        self.norm, self.attention, self.shift = nn.LayerNorm(width), Attention(width), shift

    def forward(self, x: Tensor) -> Tensor:
        count, rows, columns, width = x.shape
        moved = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        cut = moved.reshape(count, rows // 4, 4, columns // 4, 4, width).permute(0, 1, 3, 2, 4, 5)
        seen = self.attention(cut.reshape(-1, 16, width))
        back = seen.reshape(count, rows // 4, columns // 4, 4, 4, width).permute(0, 1, 3, 2, 4, 5)
        return x + torch.roll(back.reshape(count, rows, columns, width), (self.shift, self.shift), (1, 2))


class Merged(nn.Module):
    """Four neighbours of (N, h, w, Ch) into one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduced = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        return self.reduced(self.norm(torch.cat(corners, -1)))


class ShiftedWindows(nn.Module):
    """Patches 4x4, windows, a merging of four, windows; channels last throughout."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.body = nn.Sequential(Windows(width, 0), Windows(width, 2), Merged(width), Windows(2 * width, 0))
        self.target = nn.LayerNorm(2 * width)
        self.head = nn.Linear(2 * width, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        planes = self.target(self.body(self.patches(x).permute(0, 2, 3, 1)))
        logits: Tensor = self.head(planes.mean((1, 2)))
        return logits


PLANES = ActivationLayout()


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How to build one, what it takes, and where its cells look."""

    build: Callable[[], nn.Module]
    grid: tuple[int, ...]
    start: tuple[float, ...]
    step: tuple[int, ...]
    layout: ActivationLayout = PLANES


TOKENS = ActivationLayout(layout="tokens", token_grid=(8, 8), prefix_tokens=3)

ARCHITECTURES = {
    # stem 7/2 padded 3, pooling 3/2 padded 1, convolution 3/2 padded 1: all odd and padded by half
    "residual": Architecture(build=residual_net, grid=(64, 96), start=(0, 0), step=(8, 8)),
    # slices: odd kernels, stride 2, no pooling; in the slice: pooling of two cells of 4 pixels
    "residual 3D": Architecture(build=residual_net_3d, grid=(16, 64, 48), start=(0, 2, 2), step=(2, 8, 8)),
    "mobile": Architecture(build=mobile_net, grid=(64, 64), start=(0, 0), step=(8, 8)),
    # even sizes: 3/2 pads (0, 1): (3 - 1) / 2 = 1, again 1 * 2; 5/2 pads (1, 2): (2 - 1) * 4
    "efficient": Architecture(build=efficient_net, grid=(64, 64), start=(1 + 2 + 4, 1 + 2 + 4), step=(8, 8)),
    # the transition averages two cells of 4 pixels
    "dense": Architecture(build=dense_net, grid=(64, 64), start=(2, 2), step=(8, 8)),
    # pooling 2/2 three times: 0.5 * (1 + 2 + 4)
    "vgg": Architecture(build=vgg_net, grid=(64, 64), start=(3.5, 3.5), step=(8, 8)),
    # 4/4: 1.5; 2/2 of 4 pixels: 0.5 * 4
    "next": Architecture(build=conv_next, grid=(64, 64), start=(3.5, 3.5), step=(8, 8)),
    # 3/2 valid: 1; 3/1: 1 * 2; pooling 3/2: 1 * 2; 3/1: 1 * 4
    "valid": Architecture(build=valid_net, grid=(75, 75), start=(9, 9), step=(4, 4)),
    "vision transformer": Architecture(
        build=VisionTransformer, grid=(64, 64), start=(3.5, 3.5), step=(8, 8), layout=TOKENS
    ),
    "shifted windows": Architecture(
        build=ShiftedWindows,
        grid=(64, 64),
        start=(3.5, 3.5),
        step=(8, 8),
        layout=ActivationLayout(layout="channels-last"),
    ),
}


def paper(name: str, runtime: str = "torch", target: str | None = "target") -> ModelCard:
    """The card of one of `ARCHITECTURES`."""
    one = ARCHITECTURES[name]
    made = card(target="target", channels=1, grid=one.grid)
    return replace(made, runtime=runtime, target_layer=target, activations=one.layout)


def by_torch(name: str) -> TorchClassifier:
    return TorchClassifier(paper(name), built(name))


def by_onnx(name: str, batch: int | None = None) -> OnnxClassifier:
    """The same network as an ONNX file, its target the last tensor that the layer ``target`` makes, if it makes one."""
    buffer = io.BytesIO()
    free = {} if batch else {"dynamic_axes": {"image": {0: "n"}, "scores": {0: "n"}}}
    torch.onnx.export(
        built(name),
        (torch.zeros(batch or 1, 1, *ARCHITECTURES[name].grid),),
        buffer,  # type: ignore[arg-type]
        input_names=["image"],
        output_names=["scores"],
        opset_version=17,
        dynamo=False,
        **free,  # type: ignore[arg-type]
    )
    nodes = onnx.load_model_from_string(buffer.getvalue()).graph.node
    named = [node.output[0] for node in nodes if node.name.startswith("/target/")]
    return open_onnx(paper(name, "onnx", named[-1] if named else None), buffer.getvalue(), "cpu")


def built(name: str) -> nn.Module:
    """One of `ARCHITECTURES` with seeded weights that keep its activations near 1."""
    module = ARCHITECTURES[name].build()
    source = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            fan = parameter[0].numel() if parameter.shape[0] > 1 else parameter.shape[-1]
            parameter.data = torch.randn(parameter.shape, generator=source) * (1.4 / math.sqrt(fan))
        else:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=source)
    for norm in module.modules():
        if isinstance(norm, (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)):
            norm.weight.data = 1 + norm.weight.data
    return module.eval()
