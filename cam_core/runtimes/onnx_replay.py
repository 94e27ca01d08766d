"""ONNX nodes run again in torch, so that they can be differentiated; holds a table of operators and no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper
from torch import Tensor


class UnsupportedOperator(Exception):
    """A node that the table doesn't know; caught inside this package."""

    def __init__(self, operator: str) -> None:
        super().__init__(operator)
        self.operator = operator

    def __str__(self) -> str:
        return f"operator {self.operator} can't be differentiated here"


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One node with its inputs in hand."""

    operator: str
    inputs: list[Tensor | None]
    attributes: dict[str, Any]

    def tensor(self, index: int) -> Tensor:
        """Input `index`, which must be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise UnsupportedOperator(f"{self.operator} without input {index}")
        return value

    def numbers(self, name: str, index: int) -> list[int] | None:
        """Whole numbers given as an attribute (older operator sets) or as an input (newer ones)."""
        if name in self.attributes:
            return [int(value) for value in self.attributes[name]]
        if index < len(self.inputs) and self.inputs[index] is not None:
            return [int(value) for value in self.tensor(index).reshape(-1)]
        return None


def replay(
    nodes: Iterable[NodeProto], values: dict[str, Tensor], constants: dict[str, NDArray[np.generic]], wanted: str
) -> Tensor:
    """Run nodes in order and return one tensor.

    Parameters
    ----------
    nodes : iterable of NodeProto, topologically sorted
    values : dict
        Tensors to start from.
    constants : dict
        Initialisers.
    wanted : str
        Name of the result.

    Raises
    ------
    UnsupportedOperator
    """
    known = dict(values)
    for node in nodes:
        for name in node.input:
            if name and name not in known and name in constants:
                known[name] = torch.from_numpy(np.array(constants[name]))
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        call = Call(
            operator=node.op_type, inputs=[known[name] if name else None for name in node.input], attributes=attributes
        )
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise UnsupportedOperator(node.op_type)
        known[node.output[0]] = OPERATORS[node.op_type](call)
    return known[wanted]


def supported(nodes: Iterable[NodeProto]) -> str | None:
    """Name of the first operator that the table doesn't know, or None."""
    return next((node.op_type for node in nodes if node.op_type not in OPERATORS), None)


def _constant(call: Call) -> Tensor:
    if "value" in call.attributes:
        return torch.from_numpy(np.array(numpy_helper.to_array(call.attributes["value"])))
    for name in ("value_float", "value_int", "value_floats", "value_ints"):
        if name in call.attributes:
            return torch.tensor(call.attributes[name])
    raise UnsupportedOperator("Constant of this kind")


def _gemm(call: Call) -> Tensor:
    left, right = call.tensor(0), call.tensor(1)
    left = left.T if call.attributes.get("transA", 0) else left
    right = right.T if call.attributes.get("transB", 0) else right
    product = torch.mul(left @ right, call.attributes.get("alpha", 1.0))
    if len(call.inputs) < 3:
        return product
    return product + torch.mul(call.tensor(2), call.attributes.get("beta", 1.0))


def _reduced(reduce: Callable[..., Tensor]) -> Callable[[Call], Tensor]:
    def run(call: Call) -> Tensor:
        axes = call.numbers("axes", 1)
        if axes is None and call.attributes.get("noop_with_empty_axes", 0):
            return call.tensor(0)
        every = list(range(call.tensor(0).ndim))
        return reduce(call.tensor(0), dim=axes or every, keepdim=bool(call.attributes.get("keepdims", 1)))

    return run


def _flatten(call: Call) -> Tensor:
    value, axis = call.tensor(0), int(call.attributes.get("axis", 1))
    axis = axis + value.ndim if axis < 0 else axis
    return value.reshape(int(np.prod(value.shape[:axis])), -1)


def _reshape(call: Call) -> Tensor:
    value = call.tensor(0)
    sizes = [int(size) for size in call.tensor(1)]
    if not call.attributes.get("allowzero", 0):
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


def _padded(call: Call, value: float) -> Tensor:
    """The input with a window operator's padding written out; torch pads symmetrically only."""
    if call.attributes.get("ceil_mode", 0):
        raise UnsupportedOperator(f"{call.operator} with ceil_mode")
    automatic = call.attributes.get("auto_pad", b"NOTSET")
    pads = list(call.attributes.get("pads", [0, 0, 0, 0]))
    if automatic in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same_pads(call, lower=automatic == b"SAME_LOWER")
    if len(pads) != 4:
        raise UnsupportedOperator(f"{call.operator} in other than two dimensions")
    return F.pad(call.tensor(0), (pads[1], pads[3], pads[0], pads[2]), value=value)


def _same_pads(call: Call, *, lower: bool) -> list[int]:
    kernel = call.attributes.get("kernel_shape") or list(call.tensor(1).shape[2:])
    strides = call.attributes.get("strides", [1, 1])
    dilations = call.attributes.get("dilations", [1, 1])
    begins, ends = [], []
    for axis in (0, 1):
        size = call.tensor(0).shape[2 + axis]
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        total = max((-(-size // strides[axis]) - 1) * strides[axis] + reach - size, 0)
        begins.append(total - total // 2 if lower else total // 2)
        ends.append(total - begins[-1])
    return begins + ends


def _convolution(call: Call) -> Tensor:
    bias = call.tensor(2) if len(call.inputs) > 2 and call.inputs[2] is not None else None
    return F.conv2d(
        _padded(call, 0.0),
        call.tensor(1),
        bias,
        stride=call.attributes.get("strides", [1, 1]),
        dilation=call.attributes.get("dilations", [1, 1]),
        groups=call.attributes.get("group", 1),
    )


def _maximum_pool(call: Call) -> Tensor:
    kernel = call.attributes["kernel_shape"]
    return F.max_pool2d(
        _padded(call, -torch.inf),
        kernel,
        call.attributes.get("strides", [1] * len(kernel)),
        dilation=call.attributes.get("dilations", [1, 1]),
    )


def _average_pool(call: Call) -> Tensor:
    kernel = call.attributes["kernel_shape"]
    strides = call.attributes.get("strides", [1] * len(kernel))
    padded = _padded(call, 0.0)
    total = F.avg_pool2d(padded, kernel, strides)
    if call.attributes.get("count_include_pad", 0) or padded.shape == call.tensor(0).shape:
        return total
    ones = Call(operator=call.operator, inputs=[torch.ones_like(call.tensor(0))], attributes=call.attributes)
    return total / F.avg_pool2d(_padded(ones, 0.0), kernel, strides)


def _normalised(call: Call) -> Tensor:
    return F.batch_norm(
        call.tensor(0),
        call.tensor(3),
        call.tensor(4),
        call.tensor(1),
        call.tensor(2),
        training=False,
        eps=call.attributes.get("epsilon", 1e-5),
    )


def _clip(call: Call) -> Tensor:
    low: Any = call.attributes.get("min")
    high: Any = call.attributes.get("max")
    if len(call.inputs) > 1 and call.inputs[1] is not None:
        low = float(call.tensor(1))
    if len(call.inputs) > 2 and call.inputs[2] is not None:
        high = float(call.tensor(2))
    return torch.clamp(call.tensor(0), low, high)


def _transposed(call: Call) -> Tensor:
    value = call.tensor(0)
    return value.permute(call.attributes.get("perm", list(reversed(range(value.ndim)))))


def _gathered(call: Call) -> Tensor:
    axis, index = int(call.attributes.get("axis", 0)), call.tensor(1)
    value = call.tensor(0)
    picked = value.index_select(axis, index.reshape(-1) % value.shape[axis])
    return picked.reshape(*value.shape[:axis], *index.shape, *value.shape[axis + 1 :])


def _cast(call: Call) -> Tensor:
    kind = helper.tensor_dtype_to_np_dtype(call.attributes["to"])
    return call.tensor(0).to(torch.from_numpy(np.zeros(1, dtype=kind)).dtype)


def _leaky(call: Call) -> Tensor:
    return F.leaky_relu(call.tensor(0), call.attributes.get("alpha", 0.01))


def _hard_sigmoid(call: Call) -> Tensor:
    slope, shift = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    return torch.clamp(slope * call.tensor(0) + shift, 0, 1)


def _one(function: Callable[[Tensor], Tensor]) -> Callable[[Call], Tensor]:
    return lambda call: function(call.tensor(0))


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Tensor]:
    return lambda call: function(call.tensor(0), call.tensor(1))


OPERATORS: dict[str, Callable[[Call], Tensor]] = {
    "Add": _two(torch.add),
    "AveragePool": _average_pool,
    "BatchNormalization": _normalised,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda call: torch.cat([call.tensor(i) for i in range(len(call.inputs))], int(call.attributes["axis"])),
    "Constant": _constant,
    "Conv": _convolution,
    "Div": _two(torch.div),
    "Dropout": _one(lambda value: value),
    "Elu": lambda call: F.elu(call.tensor(0), call.attributes.get("alpha", 1.0)),
    "Exp": _one(torch.exp),
    "Flatten": _flatten,
    "Gather": _gathered,
    "Gelu": lambda call: F.gelu(call.tensor(0), approximate=call.attributes.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": _one(lambda value: value.mean(dim=tuple(range(2, value.ndim)), keepdim=True)),
    "GlobalMaxPool": _one(lambda value: value.amax(dim=tuple(range(2, value.ndim)), keepdim=True)),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _one(F.hardswish),
    "Identity": _one(lambda value: value),
    "LeakyRelu": _leaky,
    "MatMul": _two(torch.matmul),
    "MaxPool": _maximum_pool,
    "Mul": _two(torch.mul),
    "Neg": _one(torch.neg),
    "Pow": _two(torch.pow),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceSum": _reduced(torch.sum),
    "Relu": _one(torch.relu),
    "Reshape": _reshape,
    "Shape": _one(lambda value: torch.tensor(value.shape, dtype=torch.int64)),
    "Sigmoid": _one(torch.sigmoid),
    "Softmax": lambda call: torch.softmax(call.tensor(0), int(call.attributes.get("axis", -1))),
    "Sqrt": _one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _two(torch.sub),
    "Tanh": _one(torch.tanh),
    "Transpose": _transposed,
    "Unsqueeze": _unsqueeze,
}
"""What can be differentiated: ONNX operator (default domain) to its torch twin."""
