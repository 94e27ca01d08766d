"""What a child process may use: memory, processor time, wall time, files. Knows nothing of what the child does."""

import os
import resource
import threading
import time
from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The bounds of one request in a child process.

    Attributes
    ----------
    memory_bytes : int
        Private writable memory (RLIMIT_DATA, which unlike RLIMIT_AS leaves alone the address space that CUDA reserves).
    cpu_seconds, wall_seconds : float
        Processor time and elapsed time of one request.
    threads : int
        Threads of the numeric libraries; 0 leaves the choice to them.
    """

    memory_bytes: int
    cpu_seconds: float
    wall_seconds: float
    threads: int = 0


def confine(limits: Limits) -> None:
    """Bind the calling process for its whole life: memory, no core dumps, lower priority than the receiver."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)


def allow_processor_time(limits: Limits) -> None:
    """Give the request that starts now its processor time; when it is used up the kernel ends the process (SIGXCPU)."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    budget = int(used.ru_utime + used.ru_stime + limits.cpu_seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (budget, hard))


def end_with_parent(parent: int, every_seconds: float = 0.5) -> None:
    """End this process soon after its parent is gone, however the parent ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(every_seconds)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
