"""Many inputs through a model in passes that fit in memory; knows no model and no method."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cam_core.errors import OutOfMemory

Result = TypeVar("Result")

Scorer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From inputs (n, ...) to scores (n, K)."""


def scored(scorer: Scorer, blocks: Iterable[NDArray[np.float32]], size: int) -> NDArray[np.float32]:
    """Scores of all inputs in their order, `size` of them to a pass, whatever blocks they come in.

    When a pass doesn't fit in memory, it and all that follow are halved. No more than two passes' inputs are held.

    Parameters
    ----------
    scorer : callable
    blocks : iterable of (n, ...) float32
    size : int
        Inputs per pass.

    Returns
    -------
    (N, K) float32

    Raises
    ------
    OutOfMemory
        When not even one input fits.
    """
    answers: list[NDArray[np.float32]] = []
    for batch in _batches(blocks, size):
        found, size = in_pieces(scorer, batch, size)
        answers += found
    return np.concatenate(answers) if answers else np.zeros((0, 0), np.float32)


def in_pieces(
    run: Callable[[NDArray[np.float32]], Result], batch: NDArray[np.float32], size: int
) -> tuple[list[Result], int]:
    """What `run` gives for each piece of a batch, and the size that fitted: halved when memory was short.

    Raises
    ------
    OutOfMemory
        When not even one input fits.
    """
    results: list[Result] = []
    waiting = batch
    while len(waiting):
        try:
            results.append(run(waiting[:size]))
        except OutOfMemory:
            if min(size, len(waiting)) == 1:
                raise
            size = min(size, len(waiting)) // 2
            continue
        waiting = waiting[size:]
    return results, size


def _batches(blocks: Iterable[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """The same inputs in batches of exactly `size`, the last one perhaps smaller."""
    held: list[NDArray[np.float32]] = []
    count = 0
    for block in blocks:
        rest = block
        while len(rest):
            part = rest[: size - count]
            rest = rest[len(part) :]
            held.append(part)
            count += len(part)
            if count == size:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if held:
        yield held[0] if len(held) == 1 else np.concatenate(held)
