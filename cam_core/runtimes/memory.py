"""How many inputs fit in a pass: free memory, bytes per input, and how running out of it looks; runs no model."""

from __future__ import annotations

import resource
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cam_core.errors import OutOfMemory

MOST = {"cpu": 16, "cuda": 64}
"""Inputs per pass that are never exceeded: more are not faster on a CPU (cache), nor do they fill a GPU better."""

SHARE = 0.5
"""Part of the free memory that a pass may take; the rest is for what the operators need while they work."""

HEADS = 16
"""Activations per head pass that are never exceeded, as a multiple of the inputs per pass: they share one input's way
up to the target layer."""

CGROUP = Path("/sys/fs/cgroup")
"""Where a container's own limit stands (Linux control groups, version 2)."""

FAULTS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError)
"""What a model's own code raises when its input isn't to its taste; running out of memory is among them."""

WORDS = (
    "not enough memory",
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "could not create a primitive",
)
"""How torch's and onnxruntime's allocators say that they have run dry; the last is oneDNN's way, which gives no reason.
"""


def micro_batch(bytes_per_input: int, device: str) -> int:
    """Inputs for one pass, 1 or more, from the memory that is free now.

    Parameters
    ----------
    bytes_per_input : int, byte
        What one more input needs while it is on its way.
    device : str
        ``cpu`` or ``cuda:N``.
    """
    most = MOST[device.partition(":")[0]]
    return max(1, min(most, int(SHARE * free_bytes(device)) // max(1, bytes_per_input)))


def head_batch(inputs: int, bytes_per_input: int, bytes_per_head: int) -> int:
    """Activations for one head pass, 1 or more: as many as take no more memory than a pass of `inputs` whole ones.

    Parameters
    ----------
    inputs : int
        The micro-batch.
    bytes_per_input, bytes_per_head : int, byte
        What one more takes in a pass through the whole model, and in one through the part after the target.
    """
    return max(1, min(HEADS * inputs, inputs * bytes_per_input // max(1, bytes_per_head)))


def free_bytes(device: str) -> int:
    """Memory that this process can still get: of the machine, its container and its own limits, or of the GPU."""
    if device != "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    own = psutil.Process().memory_info()
    rooms = [int(psutil.virtual_memory().available), _left_in_container()]
    for limit, used in ((resource.RLIMIT_AS, own.vms), (resource.RLIMIT_DATA, own.data)):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            rooms.append(most - used)
    return max(0, min(room for room in rooms if room is not None))


def _left_in_container() -> int | None:
    """What its limit leaves; pages of files that the kernel would give up at once count as free."""
    try:
        most, used, lines = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current", "stat"))
    except OSError:
        return None
    if not most.strip().isdecimal():
        return None
    parts = dict(line.split() for line in lines.splitlines())
    return int(most) - int(used) + int(parts.get("inactive_file", 0))


class Footprint(TorchDispatchMode):
    """Most bytes of new tensors that were alive at a time on this thread while it was entered.

    What operators need inside themselves isn't seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive = 0
        self._counted: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the operator and count the storages that it made."""
        given = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, torch.Tensor) and id(one.untyped_storage()) not in given | self._counted:
                self._count(one.untyped_storage())
        return made

    def restart(self) -> None:
        """Count only what is made from now on."""
        self.peak = self._alive = 0
        self._counted.clear()

    def _count(self, storage: torch.UntypedStorage) -> None:
        size, name = storage.nbytes(), id(storage)
        self._counted.add(name)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._forget, name, size)

    def _forget(self, name: int, size: int) -> None:
        if name in self._counted:
            self._counted.discard(name)
            self._alive -= size


def footprint(run: Callable[[], object]) -> int:
    """Most bytes of tensors alive at a time while torch runs something on this thread."""
    seen = Footprint()
    with seen:
        run()
    return seen.peak


@contextmanager
def enough_memory(inputs: int, device: str) -> Iterator[None]:
    """Turn whatever says that memory has run out into one error.

    Raises
    ------
    OutOfMemory
    """
    try:
        yield
    except MemoryError as error:
        raise OutOfMemory(inputs, device) from error
    except RuntimeError as error:
        if out_of_memory(error):
            raise OutOfMemory(inputs, device) from error
        raise


def out_of_memory(error: Exception) -> bool:
    """Whether an error of torch's or onnxruntime's means that memory has run out."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in str(error) for words in WORDS)
