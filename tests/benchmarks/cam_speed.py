"""The parts of `make bench-cam` that are about time: gradient methods, Score-CAM, the panel."""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence

import cam_contest as contest
import numpy as np
import peers
import stopwatch
from cam_contest import FINDINGS, GRADIENTS, PANEL, SCORE_CAM, raw_maps
from numpy.typing import NDArray
from small_networks import Case
from stopwatch import Part, Verdict, interleaved, ratio

from cam_core.classifier import Classifier, ForwardOptions
from cam_core.errors import ModelLoadError
from cam_core.method import Subject

Work = Callable[[], object]


def gradients(case: Case, options: argparse.Namespace) -> Part:
    """Five gradient methods for all findings beside one forward pass."""
    batch = contest.input_of(case)
    ours, slow = "ours, five methods", f"pytorch-grad-cam, five methods, {options.their_findings} finding(s)"
    torchcam = "torchcam, four methods"
    found = interleaved(
        {
            "forward": contest.plain_forward(case),
            "forward as ours runs it": lambda: case.classifier.scores(batch),
            ours: lambda: raw_maps(case.classifier, batch, GRADIENTS),
            torchcam: lambda: contest.torchcam_loop(case),
        },
        options.rounds,
    )
    found |= interleaved(
        {
            "ours, five methods, with regions": lambda: contest.explained(case, GRADIENTS),
            slow: lambda: contest.pytorch_grad_cam_loop(case, options.their_findings),
            f"{ours}, beside it": lambda: raw_maps(case.classifier, batch, GRADIENTS),
        },
        max(1, options.rounds // 4),
        warm=False,
    )
    return Part(
        title=f"{case.name}: gradient methods, {FINDINGS} findings",
        unit="s",
        measured=found,
        verdicts=[
            Verdict(target=f"{ours} / forward", measured=ratio(found, ours, "forward"), at_most=1.15),
            Verdict(
                target=f"{ours} / forward as ours runs it",
                measured=ratio(found, ours, "forward as ours runs it"),
                note="channels last on a CPU, faster than the model as it is given",
            ),
            Verdict(
                target=f"pytorch-grad-cam, five methods / ours, {FINDINGS} findings",
                measured=ratio(found, slow, f"{ours}, beside it") * FINDINGS / options.their_findings,
                at_least=100,
            ),
            Verdict(target=f"{torchcam} / ours, five", measured=ratio(found, torchcam, ours), at_least=4),
        ],
    )


def score_cam(case: Case, options: argparse.Namespace) -> Part:
    """Score-CAM for all findings; the libraries run one finding, for their time is linear in findings."""
    live = len(contest.live_subject(case).activations)
    subject = contest.live_subject(case, options.channels or None)
    planes = subject.activations
    engines, notes = _engines(case)
    works = _limited(case, subject, engines) if options.channels else _complete(case, engines)
    for one in engines.values():
        contest.masked_passes(one, subject, 1)
    found = interleaved(works, options.long_rounds, warm=False)
    linear = _linear_in_findings(case, planes[:32])
    verdicts = [
        Verdict(
            target=f"{library} / ours by {name}, {FINDINGS} findings",
            measured=FINDINGS * ratio(found, f"{library}, 1 finding", f"ours by {name}, {FINDINGS} findings"),
            at_least={"model": 14, "onnxruntime": 28}.get(name) if library == "pytorch-grad-cam" else None,
            note=f"computed, {FINDINGS} x 1 finding",
        )
        for library in ("pytorch-grad-cam", "torchcam")
        for name in engines
    ]
    return Part(
        title=f"{case.name}: Score-CAM by {len(planes)} of {live} live channels",
        unit="s",
        measured=found | linear,
        verdicts=verdicts + _agreement(engines, case),
        notes=[*notes, *shares(case, found, engines, len(planes))],
    )


def _complete(case: Case, engines: Mapping[str, Classifier]) -> dict[str, Work]:
    """Whole calls, the libraries' for one finding and ours for all."""
    batch = contest.input_of(case)
    works: dict[str, Work] = {
        "pytorch-grad-cam, 1 finding": lambda: peers.pytorch_grad_cam_map("ScoreCAM", case, 0),
        "torchcam, 1 finding": lambda: peers.torchcam_map("ScoreCAM", case, 0),
    }
    return works | {
        f"ours by {name}, {FINDINGS} findings": lambda one=one: raw_maps(one, batch, [SCORE_CAM])
        for name, one in engines.items()
    }


def _limited(case: Case, subject: Subject, engines: Mapping[str, Classifier]) -> dict[str, Work]:
    """The passes of a subject's few channels alone."""
    works: dict[str, Work] = {
        "pytorch-grad-cam, 1 finding": lambda: contest.pytorch_grad_cam_masked(case, subject.activations, 1),
        "torchcam, 1 finding": lambda: contest.torchcam_masked(case, subject.activations, 1),
    }
    return works | {
        f"ours by {name}, {FINDINGS} findings": lambda one=one: contest.masked_passes(one, subject)
        for name, one in engines.items()
    }


def _engines(case: Case) -> tuple[dict[str, Classifier], list[str]]:
    """The model itself and what else can run its many passes exactly, and what can't."""
    found: dict[str, Classifier] = {"model": case.classifier}
    notes = []
    for engine in ("fused", "onnxruntime"):
        try:
            found[engine] = contest.with_engine(case, ForwardOptions(engine=engine))
        except ModelLoadError as error:
            notes.append(f"no {engine}: {str(error)[:120]}")
    return found, notes


def _linear_in_findings(case: Case, planes: NDArray[np.float32]) -> dict[str, list[float]]:
    """The libraries' seconds for one and for two findings, by few channels."""
    works: dict[str, Work] = {}
    for count in (1, 2):
        works |= {
            f"pytorch-grad-cam, {len(planes)} channels, {count} finding(s)": lambda count=count: (
                contest.pytorch_grad_cam_masked(case, planes, count)
            ),
            f"torchcam, {len(planes)} channels, {count} finding(s)": lambda count=count: contest.torchcam_masked(
                case, planes, count
            ),
        }
    return interleaved(works, 2, warm=False)


def _agreement(engines: Mapping[str, Classifier], case: Case) -> list[Verdict]:
    """How far each engine's logits of masked inputs are from the model's, as a part of their spread."""
    subject = contest.live_subject(case, 32)
    exact = contest.masked_passes(engines["model"], subject).astype(np.float64)
    spread = np.ptp(exact, axis=0)
    return [
        Verdict(
            target=f"{name}: greatest difference of masked logits / their spread",
            measured=float((np.abs(contest.masked_passes(one, subject) - exact).max(axis=0) / spread).max()),
            at_most=1e-6,
            note="reported",
        )
        for name, one in engines.items()
        if name != "model"
    ]


def shares(
    case: Case, found: Mapping[str, Sequence[float]], engines: Mapping[str, Classifier], channels: int
) -> list[str]:
    """For each engine its operations a second, on a GPU as a share of what the card can do."""
    count, notes = contest.operations(case) * (channels + 1), []
    for name, one in engines.items():
        label = f"ours by {name}, {FINDINGS} findings"
        if label in found:
            reduced = one.numerics.precision != "fp32"
            notes.append(stopwatch.rate(label, count / statistics.median(found[label]), reduced=reduced))
    return notes


def panel(case: Case, options: argparse.Namespace) -> Part:
    """Four methods for all findings beside the masked passes alone."""
    classifier, size = case.classifier, case.classifier.micro_batch
    count = len(contest.live_subject(case).activations) + 1  # and the baseline
    block = np.repeat(contest.input_of(case), size, axis=0)
    alone, whole = f"{count} masked passes alone", "four methods with regions"

    def passes() -> None:
        for first in range(0, count, size):
            classifier.perturbed_scores(block[: min(size, count - first)])

    works: dict[str, Work] = {
        alone: passes,
        whole: lambda: contest.explained(case, PANEL),
        "four methods": lambda: raw_maps(classifier, contest.input_of(case), PANEL),
    }
    found = interleaved(works, options.long_rounds, warm=False)
    return Part(
        title=f"{case.name}: CAM, Grad-CAM, Grad-CAM++ and Score-CAM, {FINDINGS} findings, passes of {size}",
        unit="s",
        measured=found,
        verdicts=[
            Verdict(target=f"{whole} / passes alone", measured=ratio(found, whole, alone), at_most=1.05),
            Verdict(target="four methods / passes alone", measured=ratio(found, "four methods", alone)),
        ],
    )
