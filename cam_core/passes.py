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

    When a pass doesn't fit in memory, it and all that follow are halved. Little more than one pass's inputs are held.

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
        del batch  # it isn't held while the next one is made
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


def remade(make: Callable[[int], Iterator[NDArray[np.float32]]], most: int) -> Iterator[NDArray[np.float32]]:
    """The blocks of inputs that `make` gives; when memory is short for one, made again in halves from there on.

    Parameters
    ----------
    make : callable
        From the most inputs per block to blocks (n, ...), always of the same inputs in the same order.
    most : int

    Raises
    ------
    OutOfMemory
        When there is no memory for a block of one.
    """
    given = 0
    while True:
        passed = 0
        try:
            for block in make(most):
                fresh = block[max(0, given - passed) :]
                passed += len(block)
                if len(fresh):
                    given += len(fresh)
                    yield fresh
                del block, fresh  # as in `scored`
        except MemoryError as error:
            if most == 1:
                raise OutOfMemory(1, "cpu") from error
            most //= 2
        else:
            return


def _batches(blocks: Iterable[NDArray[np.float32]], size: int) -> Iterator[NDArray[np.float32]]:
    """The same inputs in batches of exactly `size`, the last one perhaps smaller."""
    held: list[NDArray[np.float32]] = []
    count = 0
    for block in blocks:
        rest = block
        while len(rest):
            held.append(rest[: size - count])
            rest = rest[len(held[-1]) :]
            count += len(held[-1])
            if count == size:
                yield from _one(held)
                held, count = [], 0
        del block, rest  # as in `scored`
    yield from _one(held)


def _one(held: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """The blocks as one; as they are when there is no memory for it."""
    if len(held) < 2:
        return held
    try:
        return [np.concatenate(held)]
    except MemoryError:
        return held
