"""A value that is found on first use and kept, whichever thread asks first; knows nothing of what it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Once(Generic[T]):
    """Calls `find` on the first call and answers with what it gave ever after; a failure is not kept.

    Parameters
    ----------
    find : callable
        Run by one thread at a time, the others wait.
    """

    def __init__(self, find: Callable[[], T]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._found: tuple[T] | None = None

    def __call__(self) -> T:
        """What was found."""
        with self._lock:
            if self._found is None:
                self._found = (self._find(),)
            return self._found[0]
