"""Whether a model answers each input by itself, whatever is beside it in the pass; knows no runtime."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from cam_core.errors import ModelLoadError, OutOfMemory
from cam_core.runtimes.engines import noise

TOGETHER = 3
"""Inputs of the trial."""

SAME = 1e-4
"""Relative difference of logits that passes of two sizes may have in single precision."""

ROUNDING = 4
"""The same in lower precision, in steps of the last digit."""


def independent(
    scores: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    shape: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
) -> bool:
    """Whether different inputs in one pass get the logits that each gets alone.

    They don't where a norm takes its statistics from the batch, nor where a model takes one input only: what was
    exported for a batch of one, or flattens its batch away. Where the trial doesn't fit in memory, the answer is no.

    Parameters
    ----------
    scores : callable
        From inputs (N, C, *grid) to logits (N, K).
    shape : (C, *grid)
    dtype : torch.dtype
        What the model computes in.
    """
    batch = noise((TOGETHER, *shape))
    alone = np.concatenate([scores(one[None]) for one in batch])
    try:
        together = scores(batch)
    except (ModelLoadError, OutOfMemory):
        return False
    tolerance = max(SAME, ROUNDING * torch.finfo(dtype).eps)
    with np.errstate(invalid="ignore"):  # models that answer with no numbers are told elsewhere
        return bool(np.abs(together - alone).max() <= tolerance * np.abs(alone).max())
