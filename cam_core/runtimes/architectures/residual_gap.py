"""A compact residual network that ends in global average pooling and one linear layer; knows nothing of cards or files.

The output of ``stages`` is non-negative and is what is averaged, so that the class activation map of Zhou et al. (CVPR
2016) and Grad-CAM (Selvaraju et al., ICCV 2017) on it are the same map up to a factor. All kernels are odd and padded
by ``dilation * (kernel // 2)``: cell i of the map is centred at input pixel ``i * stride``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: `blocks` residual blocks, the first of them with `stride`."""

    channels: int
    blocks: int
    stride: int
    dilation: int


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, ReLU after the sum (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, dilation, dilation, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, channels, H / stride, W / stride), non-negative, for `x` (N, in_channels, H, W)."""
        inner = self.relu1(self.norm1(self.conv1(x)))
        outer: torch.Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return outer


class ResidualGap(nn.Module):
    """Stem, residual stages, global average pooling, linear head.

    Parameters
    ----------
    in_channels : int
    n_labels : int
    stem_channels : int
    stages : sequence of Stage
    dropout : float, probability, before the head
    """

    def __init__(
        self,
        *,
        in_channels: int,
        n_labels: int,
        stem_channels: int,
        stages: Sequence[Stage],
        dropout: float,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, stem_channels, 5, 2, 2, bias=False), nn.BatchNorm2d(stem_channels), nn.ReLU()
        )
        width = stem_channels
        modules: list[nn.Module] = []
        for stage in stages:
            first = ResidualBlock(width, stage.channels, stage.stride, stage.dilation)
            width = stage.channels
            rest = [ResidualBlock(width, width, 1, stage.dilation) for _ in range(stage.blocks - 1)]
            modules.append(nn.Sequential(first, *rest))
        self.stages = nn.Sequential(*modules)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, n_labels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (N, n_labels) for `x` (N, in_channels, H, W) float32, normalised as the card says."""
        features = self.stages(self.stem(x))
        logits: torch.Tensor = self.head(self.dropout(self.pool(features).flatten(1)))
        return logits


DEFAULTS: Mapping[str, object] = {
    "in_channels": 1,
    "n_labels": 4,
    "stem_channels": 16,
    "channels": [32, 64, 64, 96, 96],
    "blocks": [1, 1, 1, 1, 1],
    "strides": [2, 2, 1, 1, 1],
    "dilations": [1, 1, 1, 2, 2],
    "dropout": 0.0,
}


def _whole(options: Mapping[str, object], name: str) -> int:
    value = options[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"architecture option {name!r} must be a positive integer, not {value!r}")
    return value


def _wholes(options: Mapping[str, object], name: str) -> list[int]:
    value = options[name]
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise ValueError(f"architecture option {name!r} must be a list of positive integers, not {value!r}")
    return [_whole({name: item}, name) for item in value]


def build(options: Mapping[str, object]) -> nn.Module:
    """Return an untrained `ResidualGap`.

    Parameters
    ----------
    options : mapping
        The names of `DEFAULTS`; what is absent takes its value from there.

    Raises
    ------
    ValueError
        An unknown name, a value of the wrong kind, or stage lists of different lengths.
    """
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"unknown architecture options {unknown}; known are {sorted(DEFAULTS)}")
    merged = {**DEFAULTS, **options}
    lists = {name: _wholes(merged, name) for name in ("channels", "blocks", "strides", "dilations")}
    if len({len(values) for values in lists.values()}) != 1:
        raise ValueError(f"architecture options {sorted(lists)} must have one entry a stage each, not {lists}")
    dropout = merged["dropout"]
    if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout < 1:
        raise ValueError(f"architecture option 'dropout' must be in [0, 1), not {dropout!r}")
    columns = (lists[name] for name in ("channels", "blocks", "strides", "dilations"))
    stages = [
        Stage(channels=width, blocks=count, stride=stride, dilation=dilation)
        for width, count, stride, dilation in zip(*columns, strict=True)
    ]
    return ResidualGap(
        in_channels=_whole(merged, "in_channels"),
        n_labels=_whole(merged, "n_labels"),
        stem_channels=_whole(merged, "stem_channels"),
        stages=stages,
        dropout=float(dropout),
    )
