"""Times and memory for benchmarks: works timed in turn in one process, peaks of memory, facts of the machine."""

import ctypes
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

MEBIBYTE = 2**20

PEAKS = {"H200": (67e12, 989e12), "H100": (67e12, 989e12), "A100": (19.5e12, 312e12), "L40": (90.5e12, 181e12)}
"""Greatest operations a second of a card, in fp32 and in dense bf16, by a part of its name (makers' data sheets)."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A target, what was measured, and whether it is met."""

    target: str
    measured: float
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""

    @property
    def is_met(self) -> bool:
        return (self.at_most is None or self.measured <= self.at_most) and (
            self.at_least is None or self.measured >= self.at_least
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of the benchmark found: seconds or MiB by name, targets, and what else there is to say."""

    title: str
    unit: str
    measured: Mapping[str, Sequence[float]]
    verdicts: Sequence[Verdict]
    notes: Sequence[str] = ()


def interleaved(work: Mapping[str, Callable[[], object]], rounds: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of every work, in turn and so many times: what disturbs the machine disturbs all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    if warm:
        for one in work.values():
            one()
    for _ in range(rounds):
        for name, one in work.items():
            seconds[name].append(timed(one))
    return seconds


def timed(work: Callable[[], object]) -> float:
    """Seconds from start to end, waiting for a GPU to be done."""
    _finish()
    started = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - started


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(seconds: Mapping[str, Sequence[float]], slower: str, faster: str) -> float:
    """Median over median."""
    return statistics.median(seconds[slower]) / statistics.median(seconds[faster])


def trim() -> None:
    """Give freed memory back to the system, so that what follows can't grow into it unseen (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def reset_peak() -> None:
    """Forget how much memory was in use at most (Linux: of this process; with a GPU: of the card)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak() -> float:
    """Most memory in use since `reset_peak`, MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / MEBIBYTE
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def machine() -> str:
    cores = f"{_processor()}, {psutil.cpu_count()} cores, {torch.get_num_threads()} threads"
    card = f"; {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cores}{card}; load {psutil.getloadavg()[0]:.1f}"


def versions(packages: Sequence[str]) -> str:
    return f"Python {platform.python_version()}, " + ", ".join(f"{one} {version(one)}" for one in packages)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def rate(name: str, operations_per_second: float, *, reduced: bool) -> str:
    """A work's operations a second in words, on a known GPU with the share of what the card can do at most."""
    said = f"{name}: {operations_per_second / 1e12:.3g} TFLOP/s"
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peaks = next((both for part, both in PEAKS.items() if part in card), None)
    return f"{said}, {operations_per_second / peaks[reduced]:.0%} of the card's peak" if peaks else said
