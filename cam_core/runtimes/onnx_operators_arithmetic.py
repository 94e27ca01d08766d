"""ONNX's arithmetic, activations, sums and normalisations in torch; knows no graph.

Semantics: the ONNX operator specification (onnx.ai/onnx/operators).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cam_core.runtimes.onnx_call import Call, Operator, UnsupportedOperator, one, two


def _quotient(left: Tensor, right: Tensor) -> Tensor:
    """Whole numbers are divided towards zero."""
    if left.is_floating_point() or right.is_floating_point():
        return left / right
    return torch.div(left, right, rounding_mode="trunc")


def _remainder(call: Call) -> Tensor:
    rest = torch.fmod if call.whole("fmod", 0) else torch.remainder
    return rest(call.tensor(0), call.tensor(1))


def _gemm(call: Call) -> Tensor:
    left, right = call.tensor(0), call.tensor(1)
    left = left.T if call.attributes.get("transA", 0) else left
    right = right.T if call.attributes.get("transB", 0) else right
    product = torch.mul(left @ right, call.attributes.get("alpha", 1.0))
    bias = call.optional(2)
    return product if bias is None else product + torch.mul(bias, call.attributes.get("beta", 1.0))


def _reduced(summary: Callable[..., Tensor]) -> Operator:
    def run(call: Call) -> Tensor:
        axes = call.numbers("axes", 1)
        if not axes and call.whole("noop_with_empty_axes", 0):
            return call.tensor(0)
        every = list(range(call.tensor(0).ndim))
        return summary(call.tensor(0), dim=axes or every, keepdim=bool(call.whole("keepdims", 1)))

    return run


def _several(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of any number of tensors."""
    return lambda call: reduce(function, [call.tensor(index) for index in range(len(call.inputs))])


def _mean_of_several(call: Call) -> Tensor:
    total = call.tensor(0)
    for index in range(1, len(call.inputs)):
        total = total + call.tensor(index)
    return total / len(call.inputs)


def _clip(call: Call) -> Tensor:
    bounds: list[Any] = [call.attributes.get("min"), call.attributes.get("max")]
    for index in (0, 1):
        given = call.optional(index + 1)
        if given is not None:
            bounds[index] = float(given)
    return torch.clamp(call.tensor(0), *bounds)


def _hard_sigmoid(call: Call) -> Tensor:
    slope, shift = call.attributes.get("alpha", 0.2), call.attributes.get("beta", 0.5)
    return torch.clamp(slope * call.tensor(0) + shift, 0, 1)


def _selu(call: Call) -> Tensor:
    alpha = call.attributes.get("alpha", 1.67326319217681884765625)
    scale = call.attributes.get("gamma", 1.05070102214813232421875)
    value = call.tensor(0)
    bent: Tensor = alpha * torch.expm1(value.clamp(max=0))
    return torch.mul(torch.where(value > 0, value, bent), scale)


def _batch_norm(call: Call) -> Tensor:
    return F.batch_norm(
        call.tensor(0),
        call.tensor(3),
        call.tensor(4),
        call.tensor(1),
        call.tensor(2),
        training=False,
        eps=call.attributes.get("epsilon", 1e-5),
    )


def _layer_norm(call: Call) -> Tensor:
    value = call.tensor(0)
    shape = value.shape[call.whole("axis", -1) % value.ndim :]
    scale, shift = call.tensor(1).expand(shape), call.optional(2)
    shift = None if shift is None else shift.expand(shape)
    return F.layer_norm(value, shape, scale, shift, call.attributes.get("epsilon", 1e-5))


def _group_norm(call: Call) -> Tensor:
    value, scale = call.tensor(0), call.tensor(1)
    if len(scale) != value.shape[1]:
        raise UnsupportedOperator("GroupNormalization with a scale for each group")
    return F.group_norm(value, call.whole("num_groups", 1), scale, call.tensor(2), call.attributes.get("epsilon", 1e-5))


def _instance_norm(call: Call) -> Tensor:
    epsilon = call.attributes.get("epsilon", 1e-5)
    return F.instance_norm(call.tensor(0), weight=call.tensor(1), bias=call.tensor(2), eps=epsilon)


ARITHMETIC: dict[str, Operator] = {
    "Abs": one(torch.abs),
    "Add": two(torch.add),
    "And": two(torch.logical_and),
    "Ceil": one(torch.ceil),
    "Clip": _clip,
    "Cos": one(torch.cos),
    "Div": two(_quotient),
    "Dropout": one(lambda value: value),
    "Einsum": lambda call: torch.einsum(
        call.word("equation", ""), *[call.tensor(index) for index in range(len(call.inputs))]
    ),
    "Elu": lambda call: F.elu(call.tensor(0), call.attributes.get("alpha", 1.0)),
    "Equal": two(torch.eq),
    "Erf": one(torch.erf),
    "Exp": one(torch.exp),
    "Floor": one(torch.floor),
    "Gelu": lambda call: F.gelu(call.tensor(0), approximate=call.word("approximate", "none")),
    "Gemm": _gemm,
    "Greater": two(torch.gt),
    "GreaterOrEqual": two(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": one(F.hardswish),
    "LeakyRelu": lambda call: F.leaky_relu(call.tensor(0), call.attributes.get("alpha", 0.01)),
    "Less": two(torch.lt),
    "LessOrEqual": two(torch.le),
    "Log": one(torch.log),
    "LogSoftmax": lambda call: torch.log_softmax(call.tensor(0), call.whole("axis", -1)),
    "MatMul": two(torch.matmul),
    "Max": _several(torch.maximum),
    "Mean": _mean_of_several,
    "Min": _several(torch.minimum),
    "Mish": one(F.mish),
    "Mod": _remainder,
    "Mul": two(torch.mul),
    "Neg": one(torch.neg),
    "Not": one(torch.logical_not),
    "Or": two(torch.logical_or),
    "PRelu": lambda call: torch.where(call.tensor(0) > 0, call.tensor(0), call.tensor(0) * call.tensor(1)),
    "Pow": two(torch.pow),
    "Reciprocal": one(torch.reciprocal),
    "Relu": one(torch.relu),
    "Selu": _selu,
    "Sigmoid": one(torch.sigmoid),
    "Sign": one(torch.sign),
    "Sin": one(torch.sin),
    "Softmax": lambda call: torch.softmax(call.tensor(0), call.whole("axis", -1)),
    "Softplus": one(F.softplus),
    "Sqrt": one(torch.sqrt),
    "Sub": two(torch.sub),
    "Sum": _several(torch.add),
    "Tanh": one(torch.tanh),
}
"""Operator to its torch twin."""

SUMMARIES: dict[str, Operator] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "ReduceL1": _reduced(lambda value, dim, keepdim: value.abs().sum(dim=dim, keepdim=keepdim)),
    "ReduceL2": _reduced(lambda value, dim, keepdim: torch.linalg.vector_norm(value, dim=dim, keepdim=keepdim)),
    "ReduceLogSumExp": _reduced(torch.logsumexp),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "ReduceSumSquare": _reduced(lambda value, dim, keepdim: value.square().sum(dim=dim, keepdim=keepdim)),
}
"""Operators that read many numbers for each that they give."""
