"""The parts of `make bench-cam` about what is near the exact maps: lower precision, and Score-CAM by clusters."""

import argparse
import statistics
from collections.abc import Sequence

import cam_contest as contest
import numpy as np
import stopwatch
import torch
from cam_contest import FINDINGS, SCORE_CAM, Counting, raw_maps
from cam_speed import shares
from numpy.typing import NDArray
from scipy.stats import spearmanr
from small_networks import Case
from stopwatch import Part, Verdict, interleaved, ratio

from cam_core.card import load_card
from cam_core.classifier import Classifier, ForwardOptions, open_classifier
from cam_core.errors import ModelLoadError
from cam_core.model_input import model_input

CLUSTERED = "score-cam:clustered"
FILMS = 6


def bf16(case: Case, options: argparse.Namespace) -> Part:
    """The masked passes in lower precision, and what that does to the map."""
    subject = contest.live_subject(case, options.channels or 64)
    engines: dict[str, Classifier] = {"model": case.classifier}
    notes = []
    half = [("model", "fp16"), ("fused", "fp16")] if torch.cuda.is_available() else []
    for engine, precision in (("model", "bf16"), ("fused", "bf16"), *half):
        try:
            forward = ForwardOptions(engine=engine, precision=precision)
            engines[f"{engine} in {precision}"] = contest.with_engine(case, forward)
        except ModelLoadError as error:
            notes.append(f"no {engine} in {precision}: {str(error)[:120]}")
    name_of = {name: f"ours by {name}, {FINDINGS} findings" for name in engines}
    found = interleaved(
        {name_of[name]: (lambda one=one: contest.masked_passes(one, subject)) for name, one in engines.items()},
        max(2, options.long_rounds),
    )
    exact = _delta(case.classifier, subject)
    verdicts = []
    for name, one in engines.items():
        if name == "model":
            continue
        closeness = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(exact, _delta(one, subject), strict=True)]
        verdicts += [
            Verdict(target=f"model in fp32 / {name}", measured=ratio(found, name_of["model"], name_of[name])),
            Verdict(target=f"{name}: deviation of logits / spread, as recorded", measured=one.numerics.deviation),
            Verdict(target=f"{name}: rank correlation of maps, least of {FINDINGS}", measured=min(closeness)),
        ]
    return Part(
        title=f"{case.name}: Score-CAM in lower precision by {len(subject.activations)} channels",
        unit="s",
        measured=found,
        verdicts=verdicts,
        notes=[*notes, *shares(case, found, engines, len(subject.activations))],
    )


def _delta(classifier: Classifier, subject: contest.Subject) -> NDArray[np.float64]:
    """Score-CAM's sums (K, *cells) over a subject's own channels, before their ReLU."""
    answers = contest.masked_passes(classifier, subject).astype(np.float64)
    return np.tensordot((answers[1:] - answers[0]).T, subject.activations, axes=1)


def clustered(case: Case, options: argparse.Namespace) -> Part:
    """How many passes the clustered Score-CAM needs, and how far its maps are from the full ones."""
    random = _clustered_against_full(case.classifier, [contest.input_of(case)])
    demonstration = open_classifier(load_card(contest.DEMONSTRATION / "model.toml"), case.device.partition(":")[0])
    films = contest.phantoms(1 if options.quick else FILMS)
    trained = _clustered_against_full(demonstration, [model_input(film, demonstration.card.input)[0] for film in films])
    verdicts = []
    for name, found in ((f"{case.name}, random weights", random), ("demonstration model", trained)):
        verdicts += [
            Verdict(target=f"{name}: passes / those of the full one", measured=found["share"], at_most=1 / 8),
            *(
                Verdict(target=f"{name}: {key}", measured=found[key])
                for key in (
                    "rank correlation, mean",
                    "rank correlation, least",
                    "top 10 % IoU, mean",
                    "top 10 % IoU, least",
                )
            ),
        ]
    return Part(
        title="Score-CAM clustered and in full",
        unit="s",
        measured={f"{case.name}, {name}": [random[name]] for name in ("clustered", "full")},
        verdicts=verdicts,
        notes=[f"the demonstration model on {len(films)} phantom film(s), every label"],
    )


def _clustered_against_full(classifier: Classifier, batches: Sequence[NDArray[np.float32]]) -> dict[str, float]:
    """Seconds, passes and agreement of the two on some inputs (1, C, *grid), over all labels."""
    labels, ranks, areas = len(classifier.card.labels), [], []
    inputs, seconds = {CLUSTERED: 0, SCORE_CAM: 0}, {CLUSTERED: 0.0, SCORE_CAM: 0.0}
    for batch in batches:
        maps = {}
        for name in inputs:
            counting = Counting(classifier)

            def work(name: str = name, counting: Counting = counting) -> None:
                maps[name] = raw_maps(counting, batch, [name], labels)[0]  # noqa: B023 - run at once

            seconds[name] += stopwatch.timed(work)
            inputs[name] += counting.inputs - 1  # without the baseline
        for near, full in zip(maps[CLUSTERED], maps[SCORE_CAM], strict=True):
            if near.any() and full.any():
                ranks.append(float(spearmanr(near.ravel(), full.ravel())[0]))
                areas.append(_overlap(near, full))
    return {
        "share": inputs[CLUSTERED] / inputs[SCORE_CAM],
        "clustered": seconds[CLUSTERED],
        "full": seconds[SCORE_CAM],
        "rank correlation, mean": statistics.mean(ranks),
        "rank correlation, least": min(ranks),
        "top 10 % IoU, mean": statistics.mean(areas),
        "top 10 % IoU, least": min(areas),
    }


def _overlap(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Intersection over union of the highest tenth of the cells of two maps."""
    tops = [set(np.argsort(-values, axis=None)[: max(1, round(0.1 * values.size))].tolist()) for values in (one, other)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])
