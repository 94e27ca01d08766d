"""Tests of memory: passes are sized by what is free, shrink when it runs out, and don't grow with the channels.

The figures are those of child processes: run as a program, this file is one of them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from cam_core.errors import OutOfMemory
from cam_core.explanation import explain
from cam_core.finding import Finding
from cam_core.method import method_named
from cam_core.runtimes import memory
from cam_core.runtimes.onnx_runtime import open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

ROOT = Path(__file__).parents[2]
MIB = 2**20
LARGE = 144
"""Rows and columns of the inputs that take tens of MiB each on their way through `Wide`."""


ROOM = 60
"""MiB for a child that has too little for sixteen of these; finding out how many fit takes about as much again."""


class Wide(nn.Module):
    """Two convolutions of `width` at full size, then `channels` planes of few cells."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, 1, 1)
        self.second = nn.Conv2d(width, width, 3, 1, 1)
        self.planes = nn.Sequential(nn.MaxPool2d(24), nn.Conv2d(width, channels, 1), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(channels, 8), nn.SiLU(), nn.Linear(8, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.planes(torch.relu(self.second(torch.relu(self.first(x)))))
        logits: torch.Tensor = self.head(planes.mean((2, 3)))
        return logits


def opened(runtime: str, channels: int, side: int, target: str = "planes") -> Any:
    from small_networks import card

    torch.manual_seed(0)
    module = Wide(channels, 32 if side == LARGE else 8).eval()
    paper = card(target=target, channels=1, grid=(side, side))
    if runtime == "torch":
        return TorchClassifier(paper, module)
    from conftest import exported  # that of tests/cam_core

    weights = exported(module, 1, side)
    tensor = None if target == "planes" else f"/{target}/Conv_output_0"
    return open_onnx(replace(paper, runtime="onnx", target_layer=tensor), weights, "cpu")


ASKS = {"score-cam": ("planes", "perturbed_scores"), "ablation-cam": ("second", "head_scores")}
"""The layer that a method is tried on, and what it asks of the model."""


def child(
    runtime: str, channels: int, side: int, room_mib: int, sized: str, method: str = "score-cam"
) -> dict[str, Any]:
    """One method in this process with so much room for memory; the size of passes is chosen ``before`` or ``within``.

    Ablation-CAM's layer has full size.
    """
    from small_networks import picture

    torch.set_num_threads(1)
    target, question = ASKS[method]
    model = opened(runtime, channels, side, target)
    model.scores(np.zeros((1, 1, side, side), np.float32))
    assert (np.ones((64, 64)) @ np.ones((64, 64))).any()  # what numpy's multiplication needs once and keeps
    assert model.registration.measured
    assert model.head_weights() is None
    if sized == "before":
        assert model.micro_batch == 16
        assert model.head_batch > 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if room_mib:
        used = psutil.Process().memory_info().data
        resource.setrlimit(resource.RLIMIT_DATA, (used + room_mib * MIB, resource.RLIM_INFINITY))
    sizes: list[int] = []
    ask = getattr(model, question)

    def noted(*given: np.ndarray) -> np.ndarray:
        answer: np.ndarray = ask(*given)
        sizes.append(len(given[-1]))
        return answer

    setattr(model, question, noted)
    findings = [Finding(label=label, logit=1.0, probability=0.7) for label in model.card.labels]
    found = explain(picture((side, side)), model, [method_named(method)], findings)
    return {
        "failures": [one.failures for one in found if one.failures],
        "maps": [one.maps[0].values.tolist() for one in found if one.maps],
        "sizes": sizes,
        "micro_batch": model.micro_batch,
        "grown_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def run(*arguments: object) -> dict[str, Any]:
    """What `child` answers in a process of its own."""
    support = os.pathsep.join(map(str, (ROOT, ROOT / "tests/support", ROOT / "tests/cam_core")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": support, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_score_cam_goes_on_with_smaller_passes_when_memory_runs_out(runtime: str) -> None:
    """Sixteen inputs don't fit in what the process may have; the map is that of the process without a limit."""
    free = run(runtime, 48, LARGE, 0, "before")
    tight = run(runtime, 48, LARGE, ROOM, "before")
    told = run(runtime, 48, LARGE, 2 * ROOM, "within")
    assert free["sizes"][0] == 16
    assert tight["micro_batch"] == 16
    assert min(tight["sizes"][:-1]) < 16
    assert 1 <= told["micro_batch"] < 16
    expected = np.array(free["maps"])
    assert expected.max() > 0
    for one in (free, tight, told):
        assert one["failures"] == []
        assert np.abs(np.array(one["maps"]) - expected).max() <= 1e-4 * expected.max()


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_ablation_cam_on_a_large_layer_goes_on_with_smaller_passes_when_memory_runs_out(runtime: str) -> None:
    """Each of the 32 ablated activations has 2.5 MiB, and the head needs several times that for it."""
    free, tight = (run(runtime, 48, LARGE, room, "before", "ablation-cam") for room in (0, 45))
    assert 1 < free["sizes"][0] <= 16
    assert sum(free["sizes"]) == sum(tight["sizes"]) == 32
    assert min(tight["sizes"]) < free["sizes"][0]
    assert free["grown_mib"] < 16 * 5 * 2.6  # sixteen whole inputs
    expected = np.array(free["maps"])
    assert expected.max() > 0
    for one in (free, tight):
        assert one["failures"] == []
        assert np.abs(np.array(one["maps"]) - expected).max() <= 1e-3 * expected.max()


def test_a_head_pass_takes_no_more_memory_than_a_whole_one() -> None:
    assert memory.head_batch(16, 1000, 10) == 256
    assert memory.head_batch(16, 1000, 100) == 160
    assert memory.head_batch(16, 1000, 3000) == 5
    assert memory.head_batch(1, 1000, 3000) == 1
    assert memory.head_batch(4, 1000, 0) == 64
    early, late = (opened("torch", 48, 48, target) for target in ("second", "planes"))
    assert 1 < early.head_batch <= 16
    assert late.head_batch > 64


def test_the_working_set_does_not_grow_with_the_channels() -> None:
    """All masked inputs of 1024 channels at once would take 36 MiB, as would their masks."""
    few, many = (run("torch", channels, 96, 0, "before") for channels in (64, 1024))
    assert sum(many["sizes"]) > 8 * sum(few["sizes"])
    assert many["grown_mib"] - few["grown_mib"] < 8


def test_the_size_of_a_pass_follows_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1000)
    assert memory.micro_batch(100, "cpu") == 5
    assert memory.micro_batch(10**6, "cpu") == 1
    assert memory.micro_batch(0, "cpu") == 16
    assert memory.micro_batch(1, "cuda:1") == 64
    monkeypatch.setattr(memory, "free_bytes", lambda device: 0)
    assert memory.micro_batch(1, "cpu") == 1


def test_what_is_free_is_the_least_of_machine_container_and_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    machine = memory.free_bytes("cpu")
    assert 0 < machine <= psutil.virtual_memory().total
    for name, content in (("max", "5000\n"), ("current", "3000\n"), ("stat", "anon 1\ninactive_file 400\n")):
        (tmp_path / f"memory.{name}").write_text(content)
    assert memory.free_bytes("cpu") == 2400
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_bytes("cpu") == pytest.approx(machine, rel=0.2)
    own = psutil.Process().memory_info()
    limits = {resource.RLIMIT_AS: own.vms + 900 * MIB, resource.RLIMIT_DATA: own.data + 300 * MIB}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    assert memory.free_bytes("cpu") == pytest.approx(300 * MIB, abs=30 * MIB)


def test_a_footprint_counts_what_is_alive_at_a_time() -> None:
    source = torch.zeros(MIB // 4)

    def chain() -> torch.Tensor:
        one = source + 1
        for _ in range(10):
            one = one + 1  # the one before goes
            view = one[:10]
        view.add_(1)
        return one

    assert memory.footprint(chain) == 2 * MIB
    module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 256))
    with torch.no_grad():
        one, four = (memory.footprint(lambda n=n: module(torch.zeros(n, 256))) for n in (1, 4))
    assert one == 2 * 256 * 4 or one == 3 * 256 * 4
    assert four == 4 * one


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:128] data. DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: not enough memory: you tried"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
    ],
)
def test_whatever_says_that_memory_ran_out_is_one_error(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match="cpu with 7 input") as raised, memory.enough_memory(7, "cpu"):
        raise error
    assert raised.value.inputs == 7
    with pytest.raises(RuntimeError, match="mat1 and mat2"), memory.enough_memory(7, "cpu"):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


class Greedy(nn.Module):
    """Fails as the CPU's allocator does where it is told to."""

    def __init__(self, inner: nn.Module, place: str) -> None:
        super().__init__()
        self.inner = inner
        self.planes = nn.Identity()
        self.place = place

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.place == "trunk" and len(x) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        planes = self.planes(x)
        if self.place == "head" and len(planes) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        logits: torch.Tensor = self.inner(planes)
        return logits


@pytest.mark.parametrize("place", ["trunk", "head"])
def test_every_way_to_ask_says_that_memory_ran_out(place: str) -> None:
    from small_networks import card

    inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))
    model = TorchClassifier(card(target="planes", channels=1, grid=(8, 8)), Greedy(inner, place).eval())
    batch = np.zeros((3, 1, 8, 8), np.float32)
    ways: list[Callable[[], object]] = [
        lambda: model.scores(batch),
        lambda: model.perturbed_scores(batch),
        lambda: model.activations(batch),
        lambda: model.gradients(batch, [0]),
    ]
    for way in ways:
        with pytest.raises(OutOfMemory):
            way()
    assert model.scores(batch[:2]).shape == (2, 5)


if __name__ == "__main__":
    runtime, channels, side, room, *rest = sys.argv[1:]
    print(json.dumps(child(runtime, int(channels), int(side), int(room), *rest)))
