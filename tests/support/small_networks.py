"""Small networks with a declared target layer, made into cases for cam_core and for the libraries beside it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_core.card import InputSpecification, IntendedUse, ModelCard, Training
from cam_core.finding import Code, Label
from cam_core.image import Image, Volume
from cam_core.model_input import model_input
from cam_core.runtimes.torch_runtime import TorchClassifier

LABELS = 5


class Network(nn.Module):
    """Convolutions with ReLU up to `target`, then a head.

    Parameters
    ----------
    dimensions : 2 or 3
    strides : sequence of int
        One convolution each; their product is the width of a cell.
    head : ``linear``, ``smooth`` or ``in-place``
        Global average and one linear layer; with a convolution and SiLU before it, so that second derivatives are not
        zero; or behind a batch norm, which is the target, and a ReLU that changes the target's output in place.
    """

    def __init__(self, *, dimensions: int = 2, strides: Sequence[int] = (2, 2), head: str = "linear") -> None:
        super().__init__()
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        widths = [1, *[6] * (len(strides) - 1), 8]
        blocks: list[nn.Module] = []
        for start, end, stride in zip(widths[:-1], widths[1:], strides, strict=True):
            kernel = stride if stride > 3 else 3
            blocks += [convolution(start, end, kernel, stride, 0 if stride > 3 else 1), nn.ReLU()]
        if head == "in-place":
            blocks[-1] = (nn.BatchNorm2d if dimensions == 2 else nn.BatchNorm3d)(8)
        self.stem = nn.Sequential(*blocks[:-1])
        self.target = blocks[-1]
        self.after = {
            "linear": nn.Identity(),
            "smooth": nn.Sequential(convolution(8, 8, 3, 1, 1), nn.SiLU()),
            "in-place": nn.ReLU(inplace=True),
        }[head]
        self.head = nn.Linear(8, LABELS)

    def forward(self, batch: Tensor) -> Tensor:
        planes = self.after(self.target(self.stem(batch)))
        logits: Tensor = self.head(planes.flatten(2).mean(2))
        return logits


def network(seed: int = 1, **options: object) -> Network:
    """A `Network` with seeded weights of a size that keeps its activations near 1."""
    made = Network(**options)  # type: ignore[arg-type]
    source = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        scale = 0.3 if parameter.ndim == 1 else 1.4 / math.sqrt(parameter[0].numel())
        parameter.data = torch.randn(parameter.shape, generator=source) * scale
    for norm in made.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.weight.data = norm.weight.data.abs() + 0.5
    return made.eval()


ANY_USE = IntendedUse(
    statement="Tests only.",
    modalities=(),
    body_parts=(),
    views=(),
    minimum_age_years=None,
    maximum_age_years=None,
    finding_site=None,
)


def card(*, target: str, channels: int, grid: Sequence[int], labels: int = LABELS) -> ModelCard:
    """A card of a module that is already in memory: its weights are never read."""
    return ModelCard(
        path=Path("model.toml"),
        digest="0" * 64,
        name="compared",
        version="0",
        manufacturer="camnode project",
        description="",
        demonstration_only=True,
        runtime="torch",
        weights=Path("weights.safetensors"),
        sha256="0" * 64,
        architecture=None,
        architecture_options={},
        target_layer=target,
        license="",
        input=InputSpecification(
            rows=grid[-2],
            columns=grid[-1],
            slices=grid[0] if len(grid) == 3 else None,
            channels=channels,
            fit="stretch",
            pad_value=0.0,
            normalisation="fixed",
            mean=(0.5,) * channels,
            sd=(0.25,) * channels,
        ),
        labels=tuple(
            Label(
                name=f"finding {number}",
                code=Code(value=str(number), scheme="99TEST", meaning=f"Finding {number}"),
                threshold=0.5,
            )
            for number in range(labels)
        ),
        activation="sigmoid",
        intended_use=ANY_USE,
        training=Training(data="", summary=""),
    )


def picture(grid: Sequence[int], channels: int = 1, *, seed: int = 5) -> Image | Volume:
    """A smooth seeded picture or volume, 0..1, of the grid's own shape."""
    source = np.random.default_rng(seed)
    coarse = torch.from_numpy(source.random((1, channels, *[max(2, side // 4) for side in grid]), dtype=np.float32))
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    fine = nn.functional.interpolate(coarse, size=tuple(grid), mode=mode, align_corners=True)[0].numpy()
    noisy = np.clip(fine + source.normal(0, 0.05, fine.shape), 0, 1).astype(np.float32)
    if len(grid) == 3:
        return Volume(voxels=noisy[0], spacing_mm=(2.0, 1.0, 1.0))
    return Image(pixels=noisy[0] if channels == 1 else np.moveaxis(noisy, 0, -1).copy(), spacing_mm=(1.0, 1.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A module, the picture it is asked about, and the same two as cam_core sees them.

    `module` is for the libraries; `classifier` copies its structure, so that no hook of theirs can be heard there.
    """

    name: str
    module: nn.Module
    target: str
    image: Image | Volume
    labels: int = LABELS
    channels: int = 1
    device: str = "cpu"
    memory_format: torch.memory_format = torch.contiguous_format

    @property
    def grid(self) -> tuple[int, ...]:
        return self.image.shape

    @cached_property
    def classifier(self) -> TorchClassifier:
        paper = card(target=self.target, channels=self.channels, grid=self.grid, labels=self.labels)
        return TorchClassifier(paper, self.module, self.device)

    @cached_property
    def batch(self) -> Tensor:
        """What the model is given, (1, C, *grid)."""
        made: NDArray[np.float32] = model_input(self.image, self.classifier.card.input)[0]
        return torch.from_numpy(made).to(self.device, memory_format=self.memory_format)
