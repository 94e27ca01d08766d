"""Whether an ONNX graph reads a tensor of tokens at its cells or only at its prefix; runs nothing.

Behind the last attention each token goes its own way. Where then the class token alone is read, the answer doesn't
depend on the other tokens at all, and nothing can be explained there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from cam_core.card import ActivationLayout

TOKEN_AXIS = 1

TOKEN_BY_TOKEN = frozenset(
    {
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LayerNormalization",
        "LeakyRelu",
        "MatMul",
        "Mul",
        "Neg",
        "Pow",
        "Reciprocal",
        "ReduceMean",
        "Relu",
        "Sigmoid",
        "Sqrt",
        "Sub",
        "Tanh",
    }
)
"""Operators that keep tokens (N, T, Ch) apart, as long as their result has as many of them."""

Shapes = Mapping[str, tuple[int, ...]]
Constants = Mapping[str, NDArray[np.generic]]


def cells_are_read(
    tensor: str, head: Iterable[NodeProto], shapes: Shapes, constants: Constants, layout: ActivationLayout
) -> bool:
    """Whether any cell of a tensor (N, T, Ch) may reach the end of the nodes behind it; in doubt yes.

    Parameters
    ----------
    tensor : str
    head : iterable of NodeProto
        The nodes between it and the logits, in order.
    shapes, constants : mapping
        Of tensors by name, where known.
    layout : ActivationLayout
        That of tokens.
    """
    apart = {tensor}
    for node in head:
        tokens = apart & set(node.input)
        if any(one.HasField("g") or one.graphs for one in node.attribute):
            return True  # a graph inside may read anything
        if not tokens or _takes_prefix(node, constants, layout.prefix_tokens):
            continue
        if not _keeps_apart(node, tokens, shapes, constants):
            return True
        apart.update(node.output)
    return False


def constants_of(nodes: Iterable[NodeProto], initialisers: Constants) -> Constants:
    """The initialisers and what the graph's constant nodes hold."""
    held = {
        node.output[0]: numpy_helper.to_array(one.t)
        for node in nodes
        for one in node.attribute
        if node.op_type == "Constant" and one.name == "value"
    }
    return {**initialisers, **held}


def _keeps_apart(node: NodeProto, tokens: set[str], shapes: Shapes, constants: Constants) -> bool:
    """Whether each token of the result hangs on that token of the inputs alone."""
    if node.op_type not in TOKEN_BY_TOKEN:
        return False
    wanted = shapes[next(iter(tokens))][TOKEN_AXIS]
    result = shapes.get(node.output[0], ())
    if len(result) != TOKEN_AXIS + 2 or result[TOKEN_AXIS] != wanted:
        return False
    return node.op_type != "MatMul" or (node.input[0] in tokens and node.input[1] in constants)


def _takes_prefix(node: NodeProto, constants: Constants, prefix: int) -> bool:
    """Whether a node picks tokens of the prefix alone."""
    if node.op_type == "Gather":
        axis = next((helper.get_attribute_value(one) for one in node.attribute if one.name == "axis"), 0)
        picked = constants.get(node.input[1])
        return axis == TOKEN_AXIS and picked is not None and _all_below(picked, prefix)
    if node.op_type == "Slice" and len(node.input) > 3:
        starts, ends, axes = (constants.get(name) for name in node.input[1:4])
        if starts is None or ends is None or axes is None or TOKEN_AXIS not in axes:
            return False
        here = np.asarray(axes) == TOKEN_AXIS
        return _all_below(np.asarray(starts)[here], prefix) and _all_below(np.asarray(ends)[here], prefix + 1)
    return False


def _all_below(indices: NDArray[np.generic], end: int) -> bool:
    numbers = np.asarray(indices, dtype=np.int64)
    return bool(((numbers >= 0) & (numbers < end)).all())
