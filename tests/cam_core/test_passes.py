"""Tests of passes: many inputs in order, in batches of one size that shrinks when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from cam_core import passes
from cam_core.errors import OutOfMemory
from cam_core.passes import remade, scored


class Scorer:
    """Answers (n, 2) with the sum of each input and its square; takes at most `room` inputs."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []
        self.refused: list[int] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        if len(batch) > self.room:
            self.refused.append(len(batch))
            raise OutOfMemory(len(batch), "cpu")
        self.sizes.append(len(batch))
        sums = batch.sum(axis=(1, 2))
        return np.stack([sums, sums**2], axis=1)


def blocks(*lengths: int) -> Iterator[np.ndarray]:
    start = 0
    for length in lengths:
        yield np.arange(start, start + length, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
        start += length


def expected(count: int) -> np.ndarray:
    sums = np.arange(count) * 6.0
    return np.stack([sums, sums**2], axis=1)


@pytest.mark.parametrize("lengths", [(10,), (1,) * 10, (3, 4, 3), (7, 0, 3), (0, 10, 0)])
def test_blocks_of_any_length_are_scored_in_order(lengths: tuple[int, ...]) -> None:
    scorer = Scorer(room=100)
    assert np.array_equal(scored(scorer, blocks(*lengths), 4), expected(10))
    assert scorer.sizes == [4, 4, 2]


@pytest.mark.parametrize("room", range(1, 9))
def test_passes_are_halved_until_they_fit_and_stay_so(room: int) -> None:
    scorer = Scorer(room)
    assert np.array_equal(scored(scorer, blocks(5, 16, 4), 8), expected(25))
    assert sum(scorer.sizes) == 25
    fitting = max(size for size in (8, 4, 2, 1) if size <= room)
    assert max(scorer.sizes) == fitting
    assert scorer.refused == [size for size in (8, 4, 2) if size > room]


def test_a_short_last_batch_is_halved_from_its_own_length() -> None:
    scorer = Scorer(room=2)
    assert np.array_equal(scored(scorer, blocks(5), 16), expected(5))
    assert scorer.refused == [5]
    assert scorer.sizes == [2, 2, 1]


def test_not_even_one_input() -> None:
    with pytest.raises(OutOfMemory, match="1 input"):
        scored(Scorer(room=0), blocks(5), 4)


def test_no_inputs_no_scores() -> None:
    scorer = Scorer(room=4)
    assert scored(scorer, blocks(), 4).shape == (0, 0)
    assert scored(scorer, blocks(0, 0), 4).shape == (0, 0)
    assert scorer.sizes == []


def test_no_more_than_two_passes_are_held() -> None:
    """Blocks are taken one by one, each when the batch before it is through."""
    taken: list[int] = []
    seen: list[int] = []

    def source() -> Iterator[np.ndarray]:
        for number in range(6):
            taken.append(number)
            yield np.zeros((4, 1, 1), np.float32)

    def scorer(batch: np.ndarray) -> np.ndarray:
        seen.append(len(taken))
        return np.zeros((len(batch), 1))

    assert scored(scorer, source(), 4).shape == (24, 1)
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8])
def test_blocks_that_do_not_fit_are_made_again_smaller_from_where_they_stopped(room: int) -> None:
    asked: list[int] = []

    def make(most: int) -> Iterator[np.ndarray]:
        asked.append(most)
        yield from blocks(1)  # before memory runs short
        if most > room:
            raise MemoryError
        for first in range(1, 11, most):
            yield np.arange(first, min(11, first + most), dtype=np.float32)[:, None, None] * np.ones((1, 2, 3))

    found = np.concatenate(list(remade(make, 8)))
    assert np.array_equal(found[:, 0, 0], np.arange(11))
    assert asked == [size for size in (8, 4, 2, 1) if size == 8 or 2 * size > room]


def test_not_even_a_block_of_one_fits() -> None:
    def make(most: int) -> Iterator[np.ndarray]:
        yield from blocks(1)
        raise MemoryError

    with pytest.raises(OutOfMemory, match="1 input"):
        list(remade(make, 4))


def test_blocks_that_can_not_be_joined_are_passed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(arrays: list[np.ndarray]) -> np.ndarray:
        if arrays[0].ndim == 3:
            raise MemoryError
        return np.vstack(arrays)

    monkeypatch.setattr(passes, "np", SimpleNamespace(concatenate=refuse, zeros=np.zeros, float32=np.float32))
    scorer = Scorer(room=100)
    assert np.array_equal(scored(scorer, blocks(1, 1, 3), 4), expected(5))
    assert scorer.sizes == [1, 1, 2, 1]
