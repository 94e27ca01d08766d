"""ONNX nodes run again in torch, so that they can be differentiated; knows no model."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, helper
from torch import Tensor

from cam_core.runtimes.memory import out_of_memory
from cam_core.runtimes.onnx_call import Call, Operator, UnsupportedOperator
from cam_core.runtimes.onnx_operators_arithmetic import ARITHMETIC, SUMMARIES
from cam_core.runtimes.onnx_operators_shape import SHAPES
from cam_core.runtimes.onnx_operators_window import WINDOWS

__all__ = ["OPERATORS", "UnsupportedOperator", "replay", "supported"]

OPERATORS: dict[str, Operator] = ARITHMETIC | SUMMARIES | SHAPES | WINDOWS
"""What can be differentiated: ONNX operator (default domain) to its torch twin."""

DOMAINS = ("", "ai.onnx")

MISFITS = (RuntimeError, TypeError, ValueError, IndexError, KeyError)
"""What torch raises about a node whose inputs or attributes the table doesn't foresee."""


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
        if not _listed(node):
            raise UnsupportedOperator(node.op_type)
        for name in node.input:
            if name and name not in known and name in constants:
                known[name] = torch.from_numpy(np.array(constants[name]))
        given = _answers(node, [known[name] if name else None for name in node.input])
        known |= {name: value for name, value in zip(node.output, given, strict=False) if name not in values}
    return known[wanted]


def _answers(node: NodeProto, inputs: list[Tensor | None]) -> tuple[Tensor, ...]:
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    call = Call(operator=node.op_type, inputs=inputs, attributes=attributes, outputs=len(node.output))
    try:
        answer = OPERATORS[node.op_type](call)
    except MISFITS as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        raise UnsupportedOperator(f"{node.op_type} of this kind") from error
    return answer if isinstance(answer, tuple) else (answer,)


def supported(nodes: Iterable[NodeProto]) -> str | None:
    """Name of the first operator that the table doesn't know, or None."""
    return next((str(node.op_type) for node in nodes if not _listed(node)), None)


def _listed(node: NodeProto) -> bool:
    return node.op_type in OPERATORS and node.domain in DOMAINS
