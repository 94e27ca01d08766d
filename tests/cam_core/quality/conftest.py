"""Maps, masks and a model whose answers are known; nothing here is a measurement."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cam_core.quality.query import Query

GRIDS = [(24, 20), (7, 12, 10)]


@pytest.fixture(params=GRIDS, ids=["2D", "3D"])
def grid(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def values(grid: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A raw map with both signs and no ties."""
    return rng.standard_normal(grid).astype(np.float32)


@pytest.fixture
def mask(grid: tuple[int, ...]) -> np.ndarray:
    """A box off the middle."""
    found = np.zeros(grid, dtype=bool)
    found[tuple(slice(size // 4, size // 2 + 1) for size in grid)] = True
    return found


@pytest.fixture
def mean_query() -> Callable[..., Query]:
    """A model whose one score is the mean of the input: what taking cells away does to it is arithmetic."""

    def make(image: np.ndarray, micro_batch: int = 5) -> Query:
        def score(batch: np.ndarray) -> np.ndarray:
            return batch.reshape(len(batch), -1).mean(axis=1, dtype=np.float64)[:, None]

        return Query(input=image.astype(np.float32), score=score, label=0, micro_batch=micro_batch)

    return make
