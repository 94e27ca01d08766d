"""Dropout that goes on after training, from random numbers of one's own; knows no cards and no scores.

Source: Y. Gal and Z. Ghahramani, "Dropout as a Bayesian approximation", ICML 2016: the spread of a model's answers
under dropout is taken for its uncertainty. Only layers (``torch.nn.Dropout`` and its kin) can be made to go on; dropout
that a model calls as a function, as attention does inside, stays off.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

WHOLE_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout)
"""Layers that drop channels, not single values."""

SELU_FLOOR = -1.7580993408473766
"""What SELU gives far below 0, ``-scale * alpha``: alpha dropout puts it in the place of what it drops (Klambauer et
al., "Self-normalizing neural networks", NeurIPS 2017)."""


class _State(threading.local):
    source: torch.Generator | None = None


class DropoutTap:
    """Makes a module's dropout layers drop on the calling thread only, while it is asked to.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; its dropout layers get a forward hook for good, so give it a module of your own.
    """

    def __init__(self, module: nn.Module) -> None:
        self._state = _State()
        self.layers = 0
        for layer in module.modules():
            if isinstance(layer, _DropoutNd) and layer.p > 0:
                layer.register_forward_hook(self._hook)
                self.layers += 1

    @contextmanager
    def dropping(self, seed: int) -> Iterator[None]:
        """Drop in the passes of this thread, by random numbers of this seed, the same on every device."""
        self._state.source = torch.Generator().manual_seed(seed)
        try:
            yield
        finally:
            self._state.source = None

    def _hook(self, layer: _DropoutNd, inputs: Any, output: Tensor) -> Tensor | None:
        source = self._state.source
        return None if source is None else dropped(layer, output, source)


def dropped(layer: _DropoutNd, values: Tensor, source: torch.Generator) -> Tensor:
    """What a dropout layer makes of values (N, ...) in training: each is kept with probability ``1 - p``.

    What is kept is divided by ``1 - p``; alpha dropout, instead, keeps mean and variance of self-normalised values.
    """
    shape = values.shape
    if isinstance(layer, WHOLE_CHANNELS):
        shape = torch.Size([*values.shape[:2], *[1] * (values.ndim - 2)])
    kept = (torch.rand(shape, generator=source) >= layer.p).to(values)
    if not isinstance(layer, (nn.AlphaDropout, nn.FeatureAlphaDropout)):
        return values * kept / (1 - layer.p) if layer.p < 1 else torch.zeros_like(values)
    scale = ((1 - layer.p) * (1 + layer.p * SELU_FLOOR**2)) ** -0.5 if layer.p < 1 else 0.0
    return scale * (values * kept + SELU_FLOOR * (1 - kept)) - scale * SELU_FLOOR * layer.p
