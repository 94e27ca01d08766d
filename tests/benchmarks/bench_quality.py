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
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cam_core.card import load_card
from cam_core.classifier import Classifier, open_classifier
from cam_core.explanation import ExplainOptions, Explanation, explain
from cam_core.image import Image
from cam_core.method import Method, known_methods, variants_of
from cam_core.model_input import model_input
from cam_core.prediction import predict, probabilities
from cam_core.quality.case import Case, Settings
from cam_core.quality.faithfulness import Removal
from cam_core.quality.query import Query
from cam_core.quality.report import ALL_FINDINGS, Report, assess, to_markdown
from cam_core.quality.sanity import Cascade, cascade
from cam_core.registration import cells_on_grid
from cam_core.runtimes.randomisation import torch_cascade
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
    ("randomised-spearman", "random weights: rank r"),
    ("randomised-ssim", "random weights: SSIM"),
)


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
    """Every variant of every method, or those named."""
    methods = [method for name in known_methods() for method in variants_of(name)]
    return [method for method in methods if not names or method.full_name in names or method.name in names]


def maps_of(explanations: Sequence[Explanation], grid: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Maps (labels, *grid) of each method, blank ones all 0."""
    found: dict[str, list[np.ndarray]] = {}
    for explanation in explanations:
        for one in explanation.maps:
            placed = cells_on_grid(one.values, one.registration, grid)
            found.setdefault(one.name, []).append(np.zeros_like(placed) if one.is_blank else placed)
    return {name: np.stack(values) for name, values in found.items() if len(values) == len(explanations)}


def explained(classifier: Classifier, image: Image, methods: Sequence[Method]) -> dict[str, np.ndarray]:
    findings = predict(image, classifier).findings
    options = ExplainOptions(regions_per_map=1)
    return maps_of(explain(image, classifier, methods, findings, options=options), classifier.card.input.grid)


def cases(classifier: TorchClassifier, methods: Sequence[Method], count: int, randomised: int) -> list[Case]:
    """One case for each lesion that is there and that the model finds."""
    found: list[Case] = []
    drawn = list(films(count))
    steps: list[tuple[str, TorchClassifier]] = []
    if randomised:
        example = np.concatenate([model_input(_image(pixels), classifier.card.input)[0] for pixels, _ in drawn[:8]])
        for layer, module in torch_cascade(classifier.module_copy(), example, steps=4):
            steps.append((layer, TorchClassifier(classifier.card, module)))
    for number, (pixels, masks) in enumerate(drawn):
        image = _image(pixels)
        findings = predict(image, classifier).findings
        wanted = [index for index, one in enumerate(findings) if one.present and masks[index].any()]
        if not wanted:
            continue
        started = time.perf_counter()
        maps = explained(classifier, image, methods)
        cascades = _cascades(steps, image, methods, maps) if number < randomised else {}
        batch, _ = model_input(image, classifier.card.input)
        for index in wanted:
            found.append(_case(classifier, number, index, batch[0], masks[index], maps, cascades))
        print(f"film {number}: {len(wanted)} findings, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return found


def _image(pixels: np.ndarray) -> Image:
    return Image(pixels=pixels, spacing_mm=None)


def _cascades(
    steps: Sequence[tuple[str, TorchClassifier]],
    image: Image,
    methods: Sequence[Method],
    maps: dict[str, np.ndarray],
) -> dict[str, list[Cascade]]:
    """For each method the cascades of all labels."""
    random = [(layer, explained(classifier, image, methods)) for layer, classifier in steps]
    return {
        name: [
            cascade(values[label], [(layer, one[name][label]) for layer, one in random])
            for label in range(len(values))
        ]
        for name, values in maps.items()
    }


def _case(
    classifier: TorchClassifier,
    number: int,
    label: int,
    subject: np.ndarray,
    mask: np.ndarray,
    maps: dict[str, np.ndarray],
    cascades: dict[str, list[Cascade]],
) -> Case:
    card = classifier.card

    def score(batch: np.ndarray) -> np.ndarray:
        return probabilities(classifier.scores(batch).astype(np.float64), card)

    return Case(
        name=f"film {number}",
        patient=f"film {number}",
        finding=card.labels[label].name,
        query=Query(input=subject, score=score, label=label),
        maps={name: values[label] for name, values in maps.items()},
        other_maps={name: np.delete(values, label, axis=0) for name, values in maps.items()},
        mask=mask,
        cascades={name: values[label] for name, values in cascades.items()},
    )


def table(report: Report, methods: Sequence[Method], classifier: Classifier) -> str:
    """One line a method: means over all findings."""
    means = {(row.measure, row.method): row for row in report.rows if row.finding == ALL_FINDINGS}
    lines = [
        "| method | family | " + " | ".join(title for _, title in COLUMNS) + " |",
        "|---|---|" + "---:|" * len(COLUMNS),
    ]
    for method in methods:
        cells = []
        for measure, _ in COLUMNS:
            row = means.get((measure, method.full_name))
            cells.append("–" if row is None or np.isnan(row.value) else f"{row.value:.2f}")
        lines.append(f"| {method.full_name} | {method.family} | " + " | ".join(cells) + " |")
    cases = max(row.n for row in report.rows)
    told = f"{classifier.card.name} {classifier.card.version}, {cases} findings; {classifier.runtime}"
    return "\n".join([told, "", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=24)
    parser.add_argument("--randomised", type=int, default=6, help="films that also go through the weight cascade")
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--full", action="store_true", help="every measure with its interval")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    classifier = open_classifier(load_card(FOLDER / "model.toml"), "cpu")
    assert isinstance(classifier, TorchClassifier)
    made = cases(classifier, all_methods(given.methods), given.films, given.randomised)
    # a method that can't explain this model has no maps anywhere
    methods = [one for one in all_methods(given.methods) if all(one.full_name in case.maps for case in made)]
    settings = Settings(
        removal=replace(Removal(), steps=20),
        road_shares=(0.1, 0.3, 0.5),
        pointing_tolerance=NEAR * classifier.card.input.rows,
    )
    report = assess(
        made,
        [one.full_name for one in methods],
        families={one.full_name: one.family for one in methods if one.family != "control"},
        settings=settings,
    )
    if given.json:
        print(json.dumps(report.to_rows(), indent=1))
    else:
        print(to_markdown(report) if given.full else table(report, methods, classifier))


if __name__ == "__main__":
    main()
