"""An ONNX graph taken apart: logits, target tensor, the nodes before and after; runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper, shape_inference

from cam_core.card import ModelCard
from cam_core.errors import ModelLoadError, UnknownTargetLayer
from cam_core.runtimes.onnx_tokens import cells_are_read, constants_of

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
    head_encoded : bytes
        The part after the target as a model of its own: from the target (and the input, unless `separable`) to the
        logits.
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
    bytes_per_input : int, byte
        Tensors alive at a time for one input, at most.
    """

    encoded: bytes
    head_encoded: bytes
    input: str
    logits: str
    target: str
    fixed_batch: int | None
    trunk: tuple[NodeProto, ...]
    head: tuple[NodeProto, ...]
    separable: bool
    constants: dict[str, NDArray[np.generic]]
    bytes_per_input: int


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
    producers = {name: node for node in model.graph.node for name in node.output if name}
    logits = _logits(model.graph.output[0].name, producers)
    needed = _ancestors(logits, producers, frozenset())
    ordered = [node for node in model.graph.node if id(node) in needed]
    shapes = _shapes(card, model, graph_input, batch or 1)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    target = _target(card, shapes, constants, ordered, (graph_input, logits))
    head_ids = _ancestors(logits, producers, frozenset({target}))
    trunk_ids = _ancestors(target, producers, frozenset())
    head = tuple(node for node in ordered if id(node) in head_ids)
    separable = not _reads(head, graph_input)
    return OnnxPlan(
        encoded=_with_outputs(model, (logits, target)),
        head_encoded=_head_model(model, head, (target,) if separable else (target, graph_input), logits),
        input=graph_input,
        logits=logits,
        target=target,
        fixed_batch=batch,
        trunk=tuple(node for node in model.graph.node if id(node) in trunk_ids),
        head=head,
        separable=separable,
        constants=constants,
        bytes_per_input=_most_alive(ordered, shapes) // (batch or 1),
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
    wanted = (card.input.channels, *card.input.grid)
    fits = len(sizes) == len(wanted) + 1 and all(
        size in (None, want) for size, want in zip(sizes[1:], wanted, strict=True)
    )
    if kind.elem_type != TensorProto.FLOAT or not fits:
        raise ModelLoadError(card.weights, f"its input is not float32 (N, {', '.join(map(str, wanted))})")
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


def _read_by(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, also those that a graph inside it takes from outside."""
    yield from (str(name) for name in node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (str(one.name) for one in graph.output)
            for inner in graph.node:
                yield from _read_by(inner)


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
        waiting.extend(_read_by(node))
    return found


def _reads(nodes: Iterable[NodeProto], tensor: str) -> bool:
    """Whether any of the nodes takes the graph's input, so that the way to it leads past the target."""
    return any(tensor in _read_by(node) for node in nodes)


def _target(
    card: ModelCard,
    shapes: dict[str, tuple[int, ...]],
    initialisers: dict[str, NDArray[np.generic]],
    ordered: list[NodeProto],
    ends: tuple[str, str],
) -> str:
    """The tensor that the card names, or the last feature planes before the head, of tokens the last whose cells are
    read on the way between the `ends`, from the input to the logits."""
    if card.target_layer:
        return _named(card.target_layer, ordered)
    names = [str(name) for node in reversed(ordered) for name in node.output]
    found = [name for name in names if name in shapes and _are_planes(shapes[name], card)]
    producers = {name: node for node in ordered for name in node.output}
    constants = constants_of(ordered, initialisers)
    graph_input, logits = ends
    for name in found:
        behind = _ancestors(logits, producers, frozenset({name}))
        head = [node for node in ordered if id(node) in behind]
        passed = card.activations.layout == "tokens" and not cells_are_read(
            name, head, shapes, constants, card.activations
        )
        if not passed and not _reads(head, graph_input):
            return name
    raise UnknownTargetLayer("", tuple(found))


def _named(name: str, ordered: list[NodeProto]) -> str:
    """A tensor by its own name or by that of the node that makes it."""
    tensors = tuple(str(output) for node in ordered for output in node.output)
    if name in tensors:
        return name
    for node in ordered:
        if node.name == name:
            return str(node.output[0])
    raise UnknownTargetLayer(name, tuple(str(node.name) for node in ordered if node.name) + tensors)


def _are_planes(shape: tuple[int, ...], card: ModelCard) -> bool:
    """Whether a tensor is laid out as the card says the target is, with more than one cell."""
    laid, axes = card.activations, len(card.input.grid)
    if laid.layout == "tokens":
        return len(shape) == 3 and shape[1] == laid.prefix_tokens + prod(laid.token_grid)
    cells = shape[1:-1] if laid.layout == "channels-last" else shape[2:]
    return len(shape) == axes + 2 and prod(cells) > 1


def _shapes(card: ModelCard, model: onnx.ModelProto, graph_input: str, batch: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all float tensors whose size is known, by ONNX's shape inference at the card's size."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for one in sized.graph.input:
        if one.name == graph_input:
            sizes = (batch, card.input.channels, *card.input.grid)
            for axis, size in zip(one.type.tensor_type.shape.dim, sizes, strict=True):
                axis.dim_value = size
    del sized.graph.value_info[:]
    inferred = shape_inference.infer_shapes(sized, data_prop=True)
    shapes = {}
    for one in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = one.type.tensor_type
        known = tuple(axis.dim_value for axis in kind.shape.dim)
        if kind.elem_type == TensorProto.FLOAT and known and all(known):
            shapes[one.name] = known
    return shapes


def _most_alive(ordered: list[NodeProto], shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of float tensors that are alive at a time when the nodes run one after the other; sizes not known are 0."""
    last = {name: index for index, node in enumerate(ordered) for name in _read_by(node)}
    alive = most = 0
    for index, node in enumerate(ordered):
        alive += sum(4 * prod(shapes.get(name, (0,))) for name in node.output)
        most = max(most, alive)
        done = {name for name in _read_by(node) if last[name] == index}
        alive -= sum(4 * prod(shapes[name]) for name in done if name in shapes)
    return most


def _with_outputs(model: onnx.ModelProto, names: tuple[str, ...]) -> bytes:
    """The model giving these tensors."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    del changed.graph.output[:]
    for name in dict.fromkeys(names):
        changed.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    encoded: bytes = changed.SerializeToString()
    return encoded


def _head_model(model: onnx.ModelProto, head: tuple[NodeProto, ...], inputs: tuple[str, ...], logits: str) -> bytes:
    """The head's nodes as a model from `inputs` to the logits."""
    used = {name for node in head for name in _read_by(node)}
    kinds = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs]
    graph = helper.make_graph(
        [_without_outputs(node, inputs) for node in head],
        "head",
        kinds,
        [helper.make_tensor_value_info(logits, TensorProto.FLOAT, None)],
        [one for one in model.graph.initializer if one.name in used],
    )
    made = helper.make_model(graph, opset_imports=model.opset_import, functions=model.functions)
    made.ir_version = model.ir_version
    encoded: bytes = made.SerializeToString()
    return encoded


def _without_outputs(node: NodeProto, names: tuple[str, ...]) -> NodeProto:
    """A node whose outputs of these names, which are given from outside, go nowhere."""
    if not set(node.output) & set(names):
        return node
    changed = NodeProto()
    changed.CopyFrom(node)
    changed.output[:] = [f"{name} of the input" if name in names else name for name in node.output]
    return changed
