"""The part of `make bench-cam` about memory: every work in a process of its own, which this file is, too."""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import cam_contest as contest
import peers
import stopwatch
import torch
from cam_contest import FINDINGS, GRADIENTS, SCORE_CAM, raw_maps
from small_networks import Case
from stopwatch import Part, Verdict

FLAT = 24
"""MiB that count as no growth: less than one pass needs."""


def _passes(case: Case, part: int) -> None:
    """The masked passes of one in so many live channels."""
    live = len(contest.live_subject(case).activations)
    contest.masked_passes(case.classifier, contest.live_subject(case, live // part))


MEMORY: dict[str, Callable[[Case], object]] = {
    "ours, five gradient methods": lambda case: raw_maps(case.classifier, contest.input_of(case), GRADIENTS),
    "torchcam, four gradient methods": contest.torchcam_loop,
    "pytorch-grad-cam, five gradient methods, 2 findings": lambda case: contest.pytorch_grad_cam_loop(case, labels=2),
    "ours, Score-CAM, 1 finding": lambda case: raw_maps(case.classifier, contest.input_of(case), [SCORE_CAM], 1),
    "ours, Score-CAM": lambda case: raw_maps(case.classifier, contest.input_of(case), [SCORE_CAM]),
    "ours, masked passes of a quarter of the channels": lambda case: _passes(case, 4),
    "ours, masked passes": lambda case: _passes(case, 1),
    "torchcam, Score-CAM, 1 finding": lambda case: contest.stopped(
        case, lambda: peers.torchcam_map("ScoreCAM", case, 0)
    ),
    "pytorch-grad-cam, Score-CAM, 1 finding": lambda case: contest.stopped(
        case, lambda: peers.pytorch_grad_cam_map("ScoreCAM", case, 0)
    ),
}


def child(name: str, case: Case) -> float:
    """MiB that a work needs more than one forward pass of the same model; to be asked in a process of its own."""
    for library in ("pytorch-grad-cam", "torchcam"):
        if name.startswith(library):
            peers.peer(library)
    batch = contest.input_of(case)
    forward: Callable[[], object] = contest.plain_forward(case)
    if name.startswith("ours"):
        case.classifier.registration, case.classifier.micro_batch  # noqa: B018 - once a model, before any picture
        forward = lambda: case.classifier.scores(batch)  # noqa: E731
    forward()
    stopwatch.trim()
    stopwatch.reset_peak()
    forward()
    alone = stopwatch.peak()
    MEMORY[name](case)
    return stopwatch.peak() - alone


def memory(case: Case, options: argparse.Namespace) -> Part:
    """Peak memory of each work above that of one forward pass."""
    found = {name: [_of_child(name, case)] for name in MEMORY}

    def of(name: str) -> float:
        return found[name][0]

    libraries = (of("torchcam, Score-CAM, 1 finding"), of("pytorch-grad-cam, Score-CAM, 1 finding"))
    more_findings = of("ours, Score-CAM") - of("ours, Score-CAM, 1 finding")
    more_channels = of("ours, masked passes") - of("ours, masked passes of a quarter of the channels")
    return Part(
        title=f"{case.name}: peak memory above one forward pass, {FINDINGS} findings where nothing else is said",
        unit="MiB",
        measured=found,
        verdicts=[
            Verdict(target="five gradient methods, MiB", measured=of("ours, five gradient methods"), at_most=30),
            Verdict(target="Score-CAM, 14 findings - 1 finding, MiB", measured=more_findings, at_most=FLAT),
            Verdict(target="Score-CAM, all channels - a quarter, MiB", measured=more_channels, at_most=FLAT),
            Verdict(
                target="Score-CAM / the more frugal library",
                measured=of("ours, Score-CAM") / min(libraries),
                at_most=0.5,
            ),
            Verdict(
                target="Score-CAM / the other library", measured=of("ours, Score-CAM") / max(libraries), at_most=0.5
            ),
        ],
        notes=["the libraries' Score-CAM is stopped after six passes: by then they hold what they hold at most"],
    )


def _of_child(name: str, case: Case) -> float:
    command = [sys.executable, __file__, name, case.name, str(case.grid[0])]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **threads})
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(child(sys.argv[1], contest.contested(sys.argv[2], int(sys.argv[3]))))
