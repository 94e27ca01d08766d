"""A tap on one layer of a torch module that acts on the calling thread only; knows no cards and no methods.

It takes the layer's output as the layer gave it and hands a copy on, so that what follows may change it in place.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cam_core.errors import UnknownTargetLayer, UnusableTargetLayer

Substitute = Callable[[Tensor], Tensor]
"""From the layer's own output to what is put in its place."""


class _State(threading.local):
    """What the hook has to do for the calling thread."""

    def __init__(self) -> None:
        self.listening = False
        self.differentiable = False
        self.substitute: Substitute | None = None
        self.output: Tensor | None = None


def named_layer(module: nn.Module, name: str) -> nn.Module:
    """The layer of that name.

    Raises
    ------
    UnknownTargetLayer
    """
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if not name or name not in layers:
        raise UnknownTargetLayer(name, tuple(layer for layer in layers if layer))
    return layers[name]


class Tap:
    """Listens to a layer; any number of threads may share it.

    Parameters
    ----------
    layer : nn.Module
        Gets one forward hook for good; give it a module of your own.
    name : str
        For messages.
    """

    def __init__(self, layer: nn.Module, name: str) -> None:
        self._name = name
        self._state = _State()
        self._layer = layer
        self._handle = layer.register_forward_hook(self._hook)

    def _hook(self, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        state = self._state
        if not state.listening:
            return None
        if not isinstance(output, Tensor):
            raise UnusableTargetLayer(self._name, f"gives a {type(output).__name__}, not a tensor")
        if state.output is not None:
            raise UnusableTargetLayer(self._name, "runs more than once in a pass")
        source = output if state.substitute is None else state.substitute(output)
        if state.differentiable:
            torch.set_grad_enabled(True)
            state.output = source.detach().clone().requires_grad_(True)
            return state.output * 1
        state.output = source
        return source.clone()

    @contextmanager
    def listening(
        self, *, differentiable: bool = False, substitute: Substitute | None = None
    ) -> Iterator[Callable[[], Tensor]]:
        """Listen to the passes of this thread; gives a function that returns the layer's output.

        Parameters
        ----------
        differentiable : bool
            Record what follows the layer, and only that: its output becomes a leaf.
        substitute : callable, optional
            What takes the place of the layer's output.
        """
        state = self._state
        state.listening, state.differentiable, state.substitute, state.output = True, differentiable, substitute, None
        try:
            yield self._heard
        finally:
            state.listening, state.differentiable, state.substitute, state.output = False, False, None, None

    def removed(self) -> dict[int, object]:
        """For ``copy.deepcopy``: what makes a copy of the layer come without the tap."""
        hooks = self._layer._forward_hooks
        return {id(hooks): OrderedDict((key, hook) for key, hook in hooks.items() if key != self._handle.id)}

    def _heard(self) -> Tensor:
        if self._state.output is None:
            raise UnusableTargetLayer(self._name, "takes no part in a pass")
        return self._state.output
