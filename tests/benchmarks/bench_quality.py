"""Every method on the demonstration model, where the lesions' places are known: how well each of them points, how
faithful, how class-specific it is, and whether it depends on what the model learnt.

The phantoms are drawn by the model's own scripts with a seed that its training never used. Prints a markdown table; all
figures with intervals with --full, or as JSON with --json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cam_core.card import load_card
from cam_core.classifier import Classifier, open_classifier
from cam_core.explanation import explain
from cam_core.image import Image
from cam_core.method import CONTROL, Method, known_methods, variants_of
from cam_core.model_input import model_input
from cam_core.prediction import predict
from cam_core.quality.case import Case, Settings
from cam_core.quality.engine import CONTROLS, Examined, cases, randomised_classifiers, with_cascades, with_controls
from cam_core.quality.faithfulness import Removal
from cam_core.quality.report import ALL_FINDINGS, Report, assess, to_markdown
from cam_core.runtimes.torch_runtime import TorchClassifier

FOLDER = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo"
SEED = 40_001
NEAR = 0.04
"""How far from the lesion a peak may be, part of the image's side: thin leads want a tolerance."""

COLUMNS = (
    ("pointing", "hit"),
    ("energy-inside", "energy inside"),
    ("auprc", "AUPRC"),
    ("iou", "IoU, Otsu"),
    ("deletion", "deletion"),
    ("insertion", "insertion"),
    ("road-combined", "ROAD"),
    ("class-sensitivity", "r between classes"),
    ("randomised-spearman", "rank r with random weights"),
    ("randomised-ssim", "SSIM with random weights"),
)

VERDICTS = {True: "passes", False: "fails", None: "–"}


def films(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pixels 0..1 (H, W) and masks (labels, H, W) of procedural phantoms."""
    sys.path.insert(0, str(FOLDER))
    try:
        dataset, thorax = importlib.import_module("dataset"), importlib.import_module("thorax")
    finally:
        sys.path.remove(str(FOLDER))
    for number in range(count):
        rng = np.random.default_rng([SEED, number])
        film = dataset.compose(rng, thorax.thorax(rng), 0)
        yield film.image.astype(np.float32) / 255, film.masks.astype(bool)


def all_methods(names: Sequence[str]) -> list[Method]:
    """Every variant of every method, or those named; the controls come by themselves."""
    methods = [method for name in known_methods() for method in variants_of(name) if method.family != CONTROL]
    return [method for method in methods if not names or method.full_name in names or method.name in names]


def judged(
    classifier: TorchClassifier, methods: Sequence[Method], count: int, randomised: int
) -> tuple[list[Case], list[Method]]:
    """One case for each lesion that is there and that the model finds, and the methods that can explain this model."""
    labels = [label.name for label in classifier.card.labels]
    found: list[Case] = []
    drawn = [
        Examined(
            name=f"film {number}",
            patient=f"film {number}",
            image=Image(pixels=pixels, spacing_mm=None),
            masks=dict(zip(labels, masks, strict=True)),
        )
        for number, (pixels, masks) in enumerate(films(count))
    ]
    able = _able(classifier, drawn[0], methods)
    example = np.concatenate([model_input(one.image, classifier.card.input)[0] for one in drawn[:8]])
    for number, film in enumerate(drawn):
        present = {one.label.name for one in predict(film.image, classifier).findings if one.present}
        wanted = [name for name in labels if name in present and film.masks[name].any()]
        if not wanted:
            continue
        started = time.perf_counter()
        made = cases(film, classifier, able, wanted, explained_again=False)
        if number < randomised:
            made = with_cascades(made, able, randomised_classifiers(classifier, example, steps=2))
        found += with_controls(made, seed=number)
        print(f"{film.name}: {len(wanted)} findings, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return found, able


def _able(classifier: Classifier, film: Examined, methods: Sequence[Method]) -> list[Method]:
    findings = predict(film.image, classifier).findings[:1]
    (explanation,) = explain(film.image, classifier, methods, findings)
    there = {one.name for one in explanation.maps}
    return [method for method in methods if method.full_name in there]


def table(report: Report, methods: Sequence[Method], classifier: Classifier) -> str:
    """One line a method: means over all findings."""
    means = {(row.measure, row.method): row for row in report.rows if row.finding == ALL_FINDINGS}
    lines = [
        "| method | family | " + " | ".join(title for _, title in COLUMNS) + " | randomisation |",
        "|---|---|" + "---:|" * len(COLUMNS) + "---|",
    ]
    for name, family in [*((one.full_name, one.family) for one in methods), *((name, "") for name in CONTROLS)]:
        rows = [means.get((measure, name)) for measure, _ in COLUMNS]
        cells = ["–" if row is None or np.isnan(row.value) else f"{row.value:.2f}" for row in rows]
        passed = report.verdicts[name].passed if name in report.verdicts else None
        lines.append(f"| {name} | {family} | {' | '.join(cells)} | {VERDICTS[passed]} |")
    count = max(row.n for row in report.rows)
    told = f"{classifier.card.name} {classifier.card.version}, {count} findings; {classifier.runtime}"
    return "\n".join([told, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--randomised", type=int, default=2, help="films that also go through the weight cascade")
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--full", action="store_true", help="every measure with its interval")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    classifier = open_classifier(load_card(FOLDER / "model.toml"), "cpu")
    assert isinstance(classifier, TorchClassifier)
    made, methods = judged(classifier, all_methods(given.methods), given.films, given.randomised)
    settings = Settings(
        removal=Removal(steps=20),
        road_shares=(0.3,),
        pointing_tolerance=NEAR * classifier.card.input.rows,
    )
    names = [*(one.full_name for one in methods), *CONTROLS]
    report = assess(made, names, families={one.full_name: one.family for one in methods}, settings=settings)
    if given.json:
        print(json.dumps(report.to_rows(), indent=1))
    else:
        print(to_markdown(report) if given.full else table(report, methods, classifier))


if __name__ == "__main__":
    main()
