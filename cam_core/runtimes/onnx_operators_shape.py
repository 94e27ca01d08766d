"""ONNX's operators that move, cut and count numbers in torch; knows no graph.

Semantics: the ONNX operator specification (onnx.ai/onnx/operators).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper, numpy_helper
from torch import Tensor

from cam_core.runtimes.onnx_call import Call, Operator, UnsupportedOperator, one

PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _constant(call: Call) -> Tensor:
    if "value" in call.attributes:
        return torch.from_numpy(np.array(numpy_helper.to_array(call.attributes["value"])))
    for name in ("value_float", "value_int", "value_floats", "value_ints"):
        if name in call.attributes:
            return torch.tensor(call.attributes[name])
    raise UnsupportedOperator("Constant of this kind")


def _constant_of_shape(call: Call) -> Tensor:
    filling = torch.zeros(1)
    if "value" in call.attributes:
        filling = torch.from_numpy(np.array(numpy_helper.to_array(call.attributes["value"])))
    return filling.reshape(-1)[0].expand([int(size) for size in call.tensor(0)]).clone()


def _flatten(call: Call) -> Tensor:
    value, axis = call.tensor(0), call.whole("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    return value.reshape(int(np.prod(value.shape[:axis])), -1)


def _reshape(call: Call) -> Tensor:
    value = call.tensor(0)
    sizes = call.numbers("shape", 1) or []
    if not call.whole("allowzero", 0):
        sizes = [value.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    return value.reshape(sizes)


def _squeeze(call: Call) -> Tensor:
    axes = call.numbers("axes", 1)
    return call.tensor(0).squeeze() if axes is None else call.tensor(0).squeeze(tuple(axes))


def _unsqueeze(call: Call) -> Tensor:
    value = call.tensor(0)
    axes = call.numbers("axes", 1) or []
    for axis in sorted(axis + value.ndim + len(axes) if axis < 0 else axis for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _transposed(call: Call) -> Tensor:
    value = call.tensor(0)
    return value.permute(call.attributes.get("perm", list(reversed(range(value.ndim)))))


def _gathered(call: Call) -> Tensor:
    index, value = call.tensor(1), call.tensor(0)
    axis = call.whole("axis", 0) % value.ndim
    picked = value.index_select(axis, (index.reshape(-1) % value.shape[axis]).long())
    return picked.reshape((*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]))


def _sliced(call: Call) -> Tensor:
    value = call.tensor(0)
    starts, ends = call.numbers("starts", 1) or [], call.numbers("ends", 2) or []
    axes = call.numbers("axes", 3) or list(range(len(starts)))
    steps = call.numbers("steps", 4) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = range(value.shape[axis])[slice(start, end, step)]
        value = value.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return value


def _split(call: Call) -> tuple[Tensor, ...]:
    value, axis = call.tensor(0), call.whole("axis", 0)
    sizes = call.numbers("split", 1)
    if sizes is None:
        sizes = [-(-value.shape[axis] // call.outputs)] * call.outputs
        sizes[-1] = value.shape[axis] - sum(sizes[:-1])
    parts: tuple[Tensor, ...] = torch.split(value, sizes, axis)
    return parts


def _expanded(call: Call) -> Tensor:
    value, sizes = call.tensor(0), [int(size) for size in call.tensor(1)]
    return value.expand(np.broadcast_shapes(tuple(value.shape), tuple(sizes)))


def _padded(call: Call) -> Tensor:
    value, mode = call.tensor(0), PAD_MODES[call.word("mode", "constant")]
    pads = call.numbers("pads", 1) or []
    axes = call.numbers("axes", 3) or list(range(value.ndim))
    filling = call.optional(2)
    amount = float(call.attributes.get("value", 0.0)) if filling is None else float(filling)
    both = [[0, 0] for _ in range(value.ndim)]
    for place, axis in enumerate(axes):
        both[axis] = [pads[place], pads[place + len(axes)]]
    sizes = [size for pair in reversed(both) for size in pair]
    if mode == "constant":
        return F.pad(value, sizes, value=amount)
    while len(sizes) >= 2 and sizes[-2:] == [0, 0]:
        sizes = sizes[:-2]
    return F.pad(value, sizes, mode=mode) if sizes else value


def _range(call: Call) -> Tensor:
    start, end, step = (call.tensor(index) for index in range(3))
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _cast(call: Call) -> Tensor:
    kind = helper.tensor_dtype_to_np_dtype(call.attributes["to"])
    return call.tensor(0).to(torch.from_numpy(np.zeros(1, dtype=kind)).dtype)


def _shape(call: Call) -> Tensor:
    sizes = torch.tensor(call.tensor(0).shape, dtype=torch.int64)
    end: Any = call.attributes.get("end")
    return sizes[call.whole("start", 0) : end]


def _scattered(call: Call) -> Tensor:
    if call.word("reduction", "none") != "none":
        raise UnsupportedOperator("ScatterND with a reduction")
    places = call.tensor(1).unbind(dim=-1)
    return call.tensor(0).index_put(places, call.tensor(2))


def _triangle(call: Call) -> Tensor:
    diagonal = call.optional(1)
    keep = torch.triu if call.whole("upper", 1) else torch.tril
    return keep(call.tensor(0), 0 if diagonal is None else int(diagonal))


SHAPES: dict[str, Operator] = {
    "Cast": _cast,
    "CastLike": lambda call: call.tensor(0).to(call.tensor(1).dtype),
    "Concat": lambda call: torch.cat([call.tensor(i) for i in range(len(call.inputs))], call.whole("axis", 0)),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expanded,
    "Flatten": _flatten,
    "Gather": _gathered,
    "GatherElements": lambda call: torch.gather(
        call.tensor(0), call.whole("axis", 0), call.tensor(1) % call.tensor(0).shape[call.whole("axis", 0)]
    ),
    "Identity": one(lambda value: value),
    "Pad": _padded,
    "Range": _range,
    "Reshape": _reshape,
    "ScatterND": _scattered,
    "Shape": _shape,
    "Size": one(lambda value: torch.tensor(value.numel())),
    "Slice": _sliced,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda call: call.tensor(0).repeat([int(times) for times in call.tensor(1)]),
    "Transpose": _transposed,
    "Trilu": _triangle,
    "Unsqueeze": _unsqueeze,
    "Where": lambda call: torch.where(call.tensor(0), call.tensor(1), call.tensor(2)),
}
"""Operator to its torch twin."""
