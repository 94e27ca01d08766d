"""ONNX's convolutions and poolings in torch, in any number of dimensions; knows no graph.

Semantics: the ONNX operator specification (onnx.ai/onnx/operators). torch pads symmetrically only, so all padding is
written out first.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core.runtimes.onnx_call import Call, Operator, UnsupportedOperator, one

CONVOLUTIONS: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
MAXIMUM_POOLS: dict[int, Any] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
AVERAGE_POOLS: dict[int, Any] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Window:
    """Kernel, strides, dilations and paddings of a node, one number an axis."""

    def __init__(self, call: Call) -> None:
        self.sizes = list(call.tensor(0).shape[2:])
        axes = len(self.sizes)
        if axes not in CONVOLUTIONS:
            raise UnsupportedOperator(f"{call.operator} in {axes} dimensions")
        self.kernel = list(call.attributes.get("kernel_shape") or call.tensor(1).shape[2:])
        self.strides = list(call.attributes.get("strides", [1] * axes))
        self.dilations = list(call.attributes.get("dilations", [1] * axes))
        self.reach = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel, self.dilations, strict=True)]
        pads = list(call.attributes.get("pads", [0] * (2 * axes)))
        self.begins, self.ends = pads[:axes], pads[axes:]
        automatic = call.word("auto_pad", "NOTSET")
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            self._pad_to_same(lower=automatic == "SAME_LOWER")
        self.extra = self._left_over() if call.whole("ceil_mode", 0) else [0] * axes

    def _pad_to_same(self, *, lower: bool) -> None:
        """So that the output has ``ceil(size / stride)`` places; the odd one of the padding is at the end or start."""
        for axis, (size, stride, reach) in enumerate(zip(self.sizes, self.strides, self.reach, strict=True)):
            total = max((-(-size // stride) - 1) * stride + reach - size, 0)
            self.begins[axis] = total - total // 2 if lower else total // 2
            self.ends[axis] = total - self.begins[axis]

    def _left_over(self) -> list[int]:
        """Padding at the end that lets the last, incomplete window in, if it starts before the input's end."""
        extra = []
        for axis, (size, stride, reach) in enumerate(zip(self.sizes, self.strides, self.reach, strict=True)):
            padded = size + self.begins[axis] + self.ends[axis]
            places = -(-(padded - reach) // stride) + 1
            if (places - 1) * stride >= size + self.begins[axis]:
                places -= 1
            extra.append(max((places - 1) * stride + reach - padded, 0))
        return extra

    def padded(self, value: Tensor, filling: float) -> Tensor:
        """With the node's own padding, not that of `extra`."""
        pairs = zip(reversed(self.begins), reversed(self.ends), strict=True)
        return _pad(value, [size for pair in pairs for size in pair], filling)

    def completed(self, value: Tensor, filling: float) -> Tensor:
        """With the padding of `extra` only."""
        return _pad(value, [size for last in reversed(self.extra) for size in (0, last)], filling)


def _pad(value: Tensor, sizes: list[int], filling: float) -> Tensor:
    return F.pad(value, sizes, value=filling) if any(sizes) else value


def _convolution(call: Call) -> Tensor:
    window = _Window(call)
    result: Tensor = CONVOLUTIONS[len(window.sizes)](
        window.padded(call.tensor(0), 0.0),
        call.tensor(1),
        call.optional(2),
        stride=window.strides,
        dilation=window.dilations,
        groups=call.whole("group", 1),
    )
    return result


def _maximum_pool(call: Call) -> Tensor:
    window = _Window(call)
    filled = window.completed(window.padded(call.tensor(0), -torch.inf), -torch.inf)
    pool = MAXIMUM_POOLS[len(window.sizes)]
    result: Tensor = pool(filled, window.kernel, window.strides, dilation=window.dilations)
    return result


def _average_pool(call: Call) -> Tensor:
    """Sums over windows divided by how many places of each count: the padding only if the node says so."""
    window = _Window(call)
    if set(window.dilations) != {1}:
        raise UnsupportedOperator(f"{call.operator} with dilations")
    pool, value = AVERAGE_POOLS[len(window.sizes)], call.tensor(0)
    counted = float(call.whole("count_include_pad", 0))
    places = window.completed(window.padded(torch.ones_like(value[:1, :1]), counted), 0.0)
    filled = window.completed(window.padded(value, 0.0), 0.0)
    size = prod(window.kernel)
    total: Tensor = pool(filled, window.kernel, window.strides) * size
    counts: Tensor = pool(places, window.kernel, window.strides) * size
    return total / counts


def _over_space(value: Tensor) -> tuple[int, ...]:
    return tuple(range(2, value.ndim))


WINDOWS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "Conv": _convolution,
    "GlobalAveragePool": one(lambda value: value.mean(dim=_over_space(value), keepdim=True)),
    "GlobalMaxPool": one(lambda value: value.amax(dim=_over_space(value), keepdim=True)),
    "MaxPool": _maximum_pool,
}
"""Operator to its torch twin."""
