"""An ONNX graph taken apart: logits, target tensor, the nodes before and after; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper, shape_inference

from cam_core.card import ModelCard
from cam_core.errors import ModelLoadError, UnknownTargetLayer

FINAL_ACTIVATIONS = frozenset({"Sigmoid", "Softmax", "LogSoftmax"})
"""Operators that turn logits into probabilities; the logits are taken from before them."""

PASS_THROUGH = frozenset({"Identity", "Dropout", "Cast", "Flatten", "Squeeze"})
"""Operators that may stand between such an activation and the output."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OnnxPlan:
    """A graph prepared for capture.

    Attributes
    ----------
    encoded : bytes
        The model with logits and target as its outputs.
    input : str
    logits, target : str
        Tensor names.
    fixed_batch : int or None
        The batch size, where the graph allows but one.
    trunk, head : tuple of NodeProto
        Nodes from the input to the target and from the target to the logits.
    separable : bool
        Whether the head hangs on the target alone.
    constants : dict
        Initialisers by name.
    """

    encoded: bytes
    input: str
    logits: str
    target: str
    fixed_batch: int | None
    trunk: tuple[NodeProto, ...]
    head: tuple[NodeProto, ...]
    separable: bool
    constants: dict[str, NDArray[np.generic]]


def plan(card: ModelCard, weights: bytes) -> OnnxPlan:
    """Take a model apart as its card asks.

    Raises
    ------
    ModelLoadError
        When the file is no ONNX model, keeps its weights elsewhere (they would escape the digest), or its input is not
        the card's.
    UnknownTargetLayer
        When the card names a tensor that isn't there, or none can be found.
    """
    model = _parsed(card.weights, weights)
    graph_input, batch = _checked_input(card, model)
    producers = {name: node for node in model.graph.node for name in node.output}
    logits = _logits(model.graph.output[0].name, producers)
    needed = _ancestors(logits, producers, frozenset())
    ordered = [node for node in model.graph.node if id(node) in needed]
    target = _target(card, model, ordered, producers, graph_input)
    head_ids = _ancestors(logits, producers, frozenset({target}))
    trunk_ids = _ancestors(target, producers, frozenset())
    head = tuple(node for node in ordered if id(node) in head_ids)
    return OnnxPlan(
        encoded=_with_outputs(model, (logits, target)),
        input=graph_input,
        logits=logits,
        target=target,
        fixed_batch=batch,
        trunk=tuple(node for node in model.graph.node if id(node) in trunk_ids),
        head=head,
        separable=not _reads(head, graph_input),
        constants={one.name: numpy_helper.to_array(one) for one in model.graph.initializer},
    )


def _parsed(path: Path, weights: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(weights)
        if any(one.data_location == TensorProto.EXTERNAL for one in model.graph.initializer):
            raise ModelLoadError(path, "keeps weights in another file, which the digest doesn't cover")
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelLoadError(path, f"is not a valid ONNX model: {error}") from error
    return model


def _checked_input(card: ModelCard, model: onnx.ModelProto) -> tuple[str, int | None]:
    """Name and fixed batch size of the one input, whose shape must be the card's."""
    held = {one.name for one in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in held]
    if len(inputs) != 1:
        raise ModelLoadError(card.weights, f"has {len(inputs)} inputs, one picture is expected")
    kind = inputs[0].type.tensor_type
    sizes = [axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim]
    wanted = (card.input.channels, card.input.rows, card.input.columns)
    fits = len(sizes) == 4 and all(size in (None, want) for size, want in zip(sizes[1:], wanted, strict=True))
    if kind.elem_type != TensorProto.FLOAT or not fits:
        raise ModelLoadError(card.weights, f"its input is not float32 (N, {wanted[0]}, {wanted[1]}, {wanted[2]})")
    return inputs[0].name, sizes[0] or None


def _logits(output: str, producers: dict[str, NodeProto]) -> str:
    """The tensor before a final sigmoid or softmax, or the output itself."""
    name = output
    while name in producers:
        node = producers[name]
        if node.op_type in FINAL_ACTIVATIONS:
            return str(node.input[0])
        if node.op_type not in PASS_THROUGH:
            break
        name = str(node.input[0])
    return output


def _ancestors(tensor: str, producers: dict[str, NodeProto], stop: frozenset[str]) -> set[int]:
    """Identities of the nodes that a tensor needs, not going beyond the tensors in `stop`."""
    found: set[int] = set()
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        node = producers.get(name)
        if name in stop or node is None or id(node) in found:
            continue
        found.add(id(node))
        waiting.extend(node.input)
    return found


def _reads(nodes: Iterable[NodeProto], tensor: str) -> bool:
    """Whether any of the nodes takes the graph's input, so that the way to it leads past the target."""
    return any(tensor in node.input for node in nodes)


def _target(
    card: ModelCard, model: onnx.ModelProto, ordered: list[NodeProto], producers: dict[str, NodeProto], graph_input: str
) -> str:
    """The tensor that the card names, or the last feature planes before the head."""
    if card.target_layer:
        return _named(card.target_layer, producers, ordered)
    planes = _feature_planes(card, model, graph_input)
    found = [str(name) for node in reversed(ordered) for name in node.output if name in planes]
    for name in found:
        logits_needs = _ancestors(_logits(model.graph.output[0].name, producers), producers, frozenset({name}))
        if not _reads((node for node in ordered if id(node) in logits_needs), graph_input):
            return name
    raise UnknownTargetLayer("", tuple(found))


def _named(name: str, producers: dict[str, NodeProto], ordered: list[NodeProto]) -> str:
    """A tensor by its own name or by that of the node that makes it."""
    tensors = tuple(str(output) for node in ordered for output in node.output)
    if name in tensors:
        return name
    for node in ordered:
        if node.name == name:
            return str(node.output[0])
    raise UnknownTargetLayer(name, tensors[-12:])


def _feature_planes(card: ModelCard, model: onnx.ModelProto, graph_input: str) -> set[str]:
    """Names of all tensors (N, Ch, h, w) with more than one cell, by ONNX's shape inference at the card's size."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for one in sized.graph.input:
        if one.name == graph_input:
            for axis, size in zip(
                one.type.tensor_type.shape.dim,
                (1, card.input.channels, card.input.rows, card.input.columns),
                strict=True,
            ):
                axis.dim_value = size
    del sized.graph.value_info[:]
    inferred = shape_inference.infer_shapes(sized, data_prop=True)
    planes = set()
    for one in inferred.graph.value_info:
        sizes = [axis.dim_value for axis in one.type.tensor_type.shape.dim]
        if len(sizes) == 4 and sizes[2] * sizes[3] > 1:
            planes.add(one.name)
    return planes


def _with_outputs(model: onnx.ModelProto, names: tuple[str, ...]) -> bytes:
    """The model giving these tensors."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    for name in dict.fromkeys(names):
        changed.graph.output.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    encoded: bytes = changed.SerializeToString()
    return encoded
