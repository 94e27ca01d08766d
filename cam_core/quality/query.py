"""One question to a model: how it scores changed versions of one input for one label; knows no map and no measure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Score = Callable[[NDArray[np.float32]], NDArray[np.floating]]
"""From inputs (N, C, *grid) to scores (N, K): the probabilities by the card's activation, for measures that need a
share, or the logits."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """An input, a label, and the model's answer to anything that is made of that input.

    Attributes
    ----------
    input : (C, *grid) float32
        The normalised model input.
    score : callable
    label : int
        Which column of the scores.
    micro_batch : int
        At most so many inputs are made and scored at a time.
    """

    input: NDArray[np.float32]
    score: Score
    label: int
    micro_batch: int = 16

    @property
    def grid(self) -> tuple[int, ...]:
        """Size of the model's grid."""
        return self.input.shape[1:]

    def own(self) -> float:
        """Score of the input as it is."""
        return float(self.answers([self.input[None]])[0])

    def answers(self, batches: Iterable[NDArray[np.float32]]) -> NDArray[np.float64]:
        """Scores (n,) of the inputs in the batches (m, C, *grid), in order."""
        found = [np.asarray(self.score(batch)[:, self.label], dtype=np.float64) for batch in batches]
        return np.concatenate(found)
