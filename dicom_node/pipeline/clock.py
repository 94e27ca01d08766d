"""How long each step of a job took; knows the names that it is given and nothing else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, float], None]


class Clock:
    """Seconds for each named step, summed over repetitions, and told to whoever shows progress."""

    def __init__(self, progress: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a block."""
        started = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add a step that was timed elsewhere."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._progress(name, seconds)
