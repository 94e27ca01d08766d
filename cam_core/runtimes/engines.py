"""What runs a torch module's many passes over changed inputs, and how far it strays from it; knows no methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cam_core.card import ModelCard
from cam_core.classifier import ForwardOptions
from cam_core.errors import ModelLoadError
from cam_core.extension import load_named
from cam_core.resample import sample_linear
from cam_core.runtimes.memory import out_of_memory

Pass = Callable[[Tensor], Tensor]
"""From a batch (N, C, *grid) float32 on the module's device to logits (N, K)."""

ENGINES: dict[str, str] = {
    "model": "cam_core.runtimes.engines:unchanged",
    "fused": "cam_core.runtimes.folding:folded",
    "onnxruntime": "cam_core.runtimes.exported:exported",
}
"""Name to ``"module:name"`` of a function from a private module and an example batch to a `Pass`; it may raise whatever
comes its way when the module is not to its taste. ``torch.compile`` isn't among them: on a CPU it took minutes for a
DenseNet121 and saved a tenth."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
"""How `cam_core.classifier.Numerics` calls what a module computes in."""

TRIALS = (5, 3)
"""Sizes of the noise batches on which an engine is compared with the model; two, so that a fixed one shows."""

NOISE_CELLS = 8
"""The noise is this coarse, so that the logits' spread is one that changed pictures have; white noise is all alike."""

REFUSALS = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError, ImportError)
"""What tracers, exporters and compilers raise about modules that they can't take."""


def open_engine(card: ModelCard, module: nn.Module, example: Tensor, forward: ForwardOptions) -> Pass:
    """Make the engine that was asked for, out of a module of its own.

    Parameters
    ----------
    card : ModelCard
        For messages.
    module : nn.Module
        A private copy in evaluation mode; its weights may be shared and stay as they are.
    example : (2, C, *grid) Tensor, of the module's type and on its device
    forward : ForwardOptions

    Raises
    ------
    ModelLoadError
        When there is no such engine here, it can't take this model, or its answers are not finite.
    """
    if forward.engine not in ENGINES:
        raise ModelLoadError(card.weights, f"engine {forward.engine!r} can't run a torch model")
    try:
        make = cast(Callable[[nn.Module, Tensor], Pass], load_named(ENGINES[forward.engine]))
        made = make(module, example)
    except REFUSALS as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        raise ModelLoadError(card.weights, f"engine {forward.engine!r} can't take the model: {error}") from error
    if forward.precision == "fp32":
        return made
    if not isinstance(made, nn.Module):
        raise ModelLoadError(card.weights, f"engine {forward.engine!r} runs in fp32 only, not in {forward.precision}")
    dtype = DTYPES[forward.precision]
    lower = made.to(dtype)
    return lambda batch: cast(Tensor, lower(batch.to(dtype)))


def unchanged(module: nn.Module, example: Tensor) -> Pass:
    """The module itself."""
    return module


def noise(shape: Sequence[int]) -> NDArray[np.float32]:
    """Seeded smooth noise (N, C, *grid), mean 0 and deviation about 1."""
    source = np.random.default_rng(0)
    cells = [min(NOISE_CELLS, size) for size in shape[2:]]
    coarse = source.standard_normal((*shape[:2], *cells)).astype(np.float32)
    places = [np.linspace(0, count - 1, size) for count, size in zip(cells, shape[2:], strict=True)]
    return sample_linear(coarse, places)


def deviation(
    exact: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    other: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: Sequence[int],
) -> float:
    """Greatest difference of two scorers' logits on noise, as a part of the range of that logit over the noise.

    Parameters
    ----------
    exact, other : callable
        From inputs (N, C, *grid) to logits (N, K).
    shape : (C, *grid)
    """
    batch = noise((sum(TRIALS), *shape))
    own = exact(batch).astype(np.float64)
    parts = np.split(batch, np.cumsum(TRIALS)[:-1])
    apart = np.abs(np.concatenate([other(part) for part in parts]) - own).max(axis=0)
    spread = np.ptp(own, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(apart == 0, 0.0, apart / spread)
    return float(shares.max())
