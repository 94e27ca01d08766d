"""A cascade of models whose weights are made random from the output down; knows no classifier, method or map.

Adebayo et al., "Sanity Checks for Saliency Maps" (NeurIPS 2018): each step makes more layers random and leaves the
deeper ones as they were learnt. Weights of convolutions and linear layers are drawn anew as He et al. (ICCV 2015)
initialise them, normal with variance 2 / fan-in and without bias; norms start at scale 1 and shift 0; any other
parameter is drawn normal with its own mean and standard deviation. The running statistics of batch norms that were made
random are taken anew from example inputs: with the old ones, signals would grow or vanish and the maps with them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from cam_core.errors import MethodNotApplicable
from cam_core.runtimes.onnx_replay import UnsupportedOperator, replay

STEPS = 8
"""Steps of the cascade where the model has more layers: the output's alone, then groups of about the same number."""

WHOLE = "the module itself"
"""Name of the step for parameters that belong to no layer."""


def groups_from_top(layers: Sequence[str], steps: int) -> list[list[str]]:
    """Layers, the output's first, in at most so many groups, the output's alone in the first.

    Parameters
    ----------
    layers : sequence of str
        In the order of their last use, the input's first.
    steps : int, at least 1
    """
    if steps < 1:
        raise ValueError(f"a cascade of {steps} steps")
    falling = list(reversed(layers))
    if steps == 1 or len(falling) < 2:
        return [falling]
    parts = np.array_split(np.arange(1, len(falling)), min(steps, len(falling)) - 1)
    return [falling[:1], *([falling[index] for index in part] for part in parts)]


def _drawn(shape: Sequence[int], deviation: float, source: np.random.Generator) -> NDArray[np.float32]:
    return (deviation * source.standard_normal(tuple(shape))).astype(np.float32)


def _redrawn(values: NDArray[np.floating], source: np.random.Generator) -> NDArray[np.float32]:
    """Normal values with the mean and standard deviation of those that stood there."""
    wide = values.astype(np.float64)
    return np.asarray(wide.mean() + wide.std() * source.standard_normal(values.shape), dtype=np.float32)


# ---------------------------------------------------------------------------------------------------------------- torch


def torch_cascade(
    module: nn.Module, example: NDArray[np.float32], *, steps: int = STEPS, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Copies of a module with ever more layers random.

    Parameters
    ----------
    module : nn.Module
        As it was before any classifier took it over: a copy of it must be a copy of the whole. Left as it is.
    example : (N, C, *grid) float32, N at least 2
        Inputs from which the statistics of batch norms are taken; some of the images to be explained are best.
    steps : int
    seed : int

    Yields
    ------
    (str, nn.Module)
        The deepest layer that is random, and a module of its own in evaluation mode.
    """
    if len(example) < 2:
        raise ValueError("batch norm needs at least two examples")
    with torch.inference_mode(False):
        working = copy.deepcopy(module).eval().requires_grad_(False)
    batch = torch.from_numpy(np.ascontiguousarray(example, dtype=np.float32))
    for parameter in working.parameters():
        batch = batch.to(parameter.device, parameter.dtype)
        break
    owned = _owned_parameters(working, batch)
    source = np.random.default_rng(seed)
    random: set[str] = set()
    for group in groups_from_top(list(owned), steps):
        random.update(group)
        with torch.inference_mode(False), torch.no_grad():  # never held over a yield: it is the caller's thread
            for name in (name for layer in group for name in owned[layer]):
                _randomise(working, name, source)
            _take_statistics(working, random, batch)
            step = copy.deepcopy(working)
        yield group[-1] or WHOLE, step


def _owned_parameters(module: nn.Module, batch: Tensor) -> dict[str, list[str]]:
    """Layers that ran, in the order of their last use, with the names of the parameters that are theirs.

    Parameters of a layer that never ran as such (it was read by the one around it) are its parent's.
    """
    order: dict[str, int] = {}
    names = {one: name for name, one in module.named_modules()}

    def heard(layer: nn.Module, _: object) -> None:
        order.pop(names[layer], None)
        order[names[layer]] = len(order)

    hooks = [one.register_forward_pre_hook(heard) for one in names]
    try:
        with torch.inference_mode(False), torch.no_grad():
            module(batch[:1])
    finally:
        for hook in hooks:
            hook.remove()
    owned: dict[str, list[str]] = {layer: [] for layer in order}
    for name, _ in module.named_parameters():
        layer = name.rpartition(".")[0]
        while layer not in owned:
            layer = layer.rpartition(".")[0]
        owned[layer].append(name)
    return {layer: found for layer, found in owned.items() if found}


def _randomise(module: nn.Module, name: str, source: np.random.Generator) -> None:
    """Draw one parameter anew, in place."""
    path, _, own = name.rpartition(".")
    owner, parameter = module.get_submodule(path), module.get_parameter(name)
    if isinstance(owner, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
        parameter.fill_(1.0 if own == "weight" else 0.0)
        return
    if isinstance(owner, (_ConvNd, nn.Linear)):
        drawn = np.zeros(parameter.shape, np.float32)
        if own == "weight":
            fan = parameter.shape[0] if isinstance(owner, _ConvTransposeNd) else parameter[0].numel()
            drawn = _drawn(parameter.shape, float(np.sqrt(2.0 / fan)), source)
    else:
        drawn = _redrawn(parameter.detach().float().cpu().numpy(), source)
    parameter.copy_(torch.from_numpy(drawn).to(parameter.device, parameter.dtype))


def _take_statistics(module: nn.Module, random: set[str], batch: Tensor) -> None:
    """Set the running statistics of the random batch norms to the batch's, each seeing what those before it give."""
    norms = [
        one
        for name, one in module.named_modules()
        if name in random and isinstance(one, _BatchNorm) and one.track_running_stats
    ]
    kept = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches, of which there is one
        norm.train()
    if norms:
        module(batch)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
        norm.eval()


# ----------------------------------------------------------------------------------------------------------------- ONNX

WEIGHTED = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""Operators with a weight, and the input that it comes by; a bias is the next one."""

NORMS = {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization"}
"""Operators whose inputs 1 and 2 are scale and shift."""

BROADCAST = {"Add", "Mul"}
"""Operators by which exporters write biases and scales; a single number is a constant of the graph and stays."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Graph:
    """An ONNX model on its way through the cascade; `values` are its initialisers as they are now."""

    model: onnx.ModelProto
    values: dict[str, NDArray[np.generic]]

    def parameters(self, node: NodeProto) -> list[str]:
        """Names of the initialisers that a node has as its parameters."""
        if node.op_type in NORMS or node.op_type in WEIGHTED:
            names = list(node.input[1:3]) + ([node.input[0]] if node.op_type == "MatMul" else [])
        elif node.op_type in BROADCAST:
            names = [name for name in node.input if name in self.values and self.values[name].size > 1]
        else:
            names = []
        return [name for name in names if name in self.values and np.issubdtype(self.values[name].dtype, np.floating)]


def onnx_cascade(
    weights: bytes, example: NDArray[np.float32], *, steps: int = STEPS, seed: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Copies of an ONNX model with ever more layers random; see `torch_cascade`.

    Parameters
    ----------
    weights : bytes
        A model that carries its weights itself, as initialisers.
    example : (N, C, *grid) float32, N at least 2

    Yields
    ------
    (str, bytes)
        The first output of the deepest node that is random, and the model.

    Raises
    ------
    MethodNotApplicable
        When the model has batch norms and an operator that can't be followed, so that their statistics can't be taken.
    """
    if len(example) < 2:
        raise ValueError("batch norm needs at least two examples")
    model = onnx.load_model_from_string(weights)
    graph = _Graph(model=model, values={one.name: numpy_helper.to_array(one) for one in model.graph.initializer})
    nodes = {str(node.output[0]): node for node in model.graph.node if graph.parameters(node)}
    source = np.random.default_rng(seed)
    random: set[str] = set()
    done: set[str] = set()
    for group in groups_from_top(list(nodes), steps):
        for layer in group:
            _randomise_node(graph, nodes[layer], source, done)
        random.update(group)
        if any(nodes[layer].op_type == "BatchNormalization" for layer in random):
            _take_graph_statistics(graph, random, example)
        yield group[-1], _encoded(graph)


def _randomise_node(graph: _Graph, node: NodeProto, source: np.random.Generator, done: set[str]) -> None:
    """Draw a node's parameters anew; those that another node shares and that were drawn already stay."""
    for name in graph.parameters(node):
        if name in done:
            continue
        done.add(name)
        values, place = graph.values[name], list(node.input).index(name)
        if node.op_type in NORMS:
            drawn = np.full(values.shape, 1.0 if place == 1 else 0.0, np.float32)
        elif node.op_type in WEIGHTED and place == WEIGHTED[node.op_type]:
            drawn = _drawn(values.shape, float(np.sqrt(2.0 / _fan_in(node, values.shape))), source)
        elif node.op_type in WEIGHTED and node.op_type != "MatMul":
            drawn = np.zeros(values.shape, np.float32)
        else:
            drawn = _redrawn(values.astype(np.float64), source)
        graph.values[name] = drawn.astype(values.dtype)


def _fan_in(node: NodeProto, shape: tuple[int, ...]) -> int:
    """How many inputs each output of a weight sums."""
    if node.op_type == "Conv":
        return int(np.prod(shape[1:]))
    if node.op_type == "Gemm":
        transposed = any(one.name == "transB" and one.i for one in node.attribute)
        return shape[1] if transposed else shape[0]
    return shape[0] if node.op_type == "ConvTranspose" else shape[-2] if len(shape) > 1 else shape[0]


def _take_graph_statistics(graph: _Graph, random: set[str], example: NDArray[np.float32]) -> None:
    """Run the graph once in torch; at each random batch norm put the statistics of what arrives there."""
    (source,) = (one.name for one in graph.model.graph.input if one.name not in graph.values)
    known = {source: torch.from_numpy(np.ascontiguousarray(example, dtype=np.float32))}
    read = {name for node in graph.model.graph.node for name in node.input}
    with torch.inference_mode(False), torch.no_grad():
        for node in graph.model.graph.node:
            if node.op_type == "BatchNormalization" and str(node.output[0]) in random:
                arriving = known[node.input[0]].double()
                axes = tuple(one for one in range(arriving.ndim) if one != 1)
                found = (arriving.mean(dim=axes), arriving.var(dim=axes, correction=0))
                for name, statistic in zip(node.input[3:5], found, strict=True):
                    graph.values[name] = statistic.numpy().astype(np.float32)
            try:
                known |= {name: replay([node], known, graph.values, name) for name in node.output if name in read}
            except UnsupportedOperator as error:
                raise MethodNotApplicable("weight randomisation", str(error)) from error


def _encoded(graph: _Graph) -> bytes:
    """The model with the values as they are now."""
    changed = onnx.ModelProto()
    changed.CopyFrom(graph.model)
    for one in changed.graph.initializer:
        if one.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            one.CopyFrom(numpy_helper.from_array(graph.values[one.name], one.name))
    encoded: bytes = changed.SerializeToString()
    return encoded
