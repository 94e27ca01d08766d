"""Evaluates the weights on banks that training never saw and writes ``evaluation.json``.

AUC with a 95 % bootstrap interval, sensitivity and specificity at the card's thresholds, and the class activation map
against the masks, for procedural and CT backgrounds apart; and, from a bank of the CT's own mass, what the model makes
of a lesion that nobody drew.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lesions import LABELS
from localisation import BY_DESIGN, field_centres, judged
from network import card, features_and_cam, normalised, trained
from scipy.stats import rankdata

Scores = npt.NDArray[np.float64]


def area(scores: Scores, labels: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve by ranks, ties counted half."""
    positive = int(labels.sum())
    ranks = rankdata(scores)[labels].sum()
    return float((ranks - positive * (positive + 1) / 2) / (positive * (len(labels) - positive)))


def interval(scores: Scores, labels: npt.NDArray[np.bool_], draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of `area`, films drawn with replacement."""
    rng = np.random.default_rng(0)
    areas = []
    for _ in range(draws):
        picks = rng.integers(len(labels), size=len(labels))
        if 0 < labels[picks].sum() < len(picks):
            areas.append(area(scores[picks], labels[picks]))
    low, high = np.percentile(areas, [2.5, 97.5])
    return float(low), float(high)


@torch.no_grad()
def run(model: Any, folder: Path) -> tuple[Scores, npt.NDArray[np.float32]]:
    """Return probabilities (N, K) and signed maps (N, K, h, w) of a bank."""
    images = np.load(folder / "images.npy", mmap_mode="r")
    scores, maps = [], []
    for start in range(0, len(images), 64):
        batch = torch.from_numpy(np.asarray(images[start : start + 64]))[:, None].float() / 255
        logits, cam = features_and_cam(model, normalised(batch))
        scores.append(torch.sigmoid(logits.double()).numpy())
        maps.append(cam.numpy())
    return np.concatenate(scores), np.concatenate(maps)


def masks_of(folder: Path) -> npt.NDArray[np.bool_]:
    """Return the masks (N, K, 256, 256) of a bank."""
    return np.unpackbits(np.load(folder / "masks.npy"), axis=3).astype(bool)


def localised(
    maps: npt.NDArray[np.float32],
    masks: npt.NDArray[np.bool_],
    picks: npt.NDArray[np.int64],
    centres: tuple[float, float],
) -> dict[str, float]:
    """Return the means of ``localisation.judged`` over the films `picks`. maps (N, h, w), masks (N, H, H)."""
    figures = [judged(maps[i], masks[i], *centres) for i in picks]
    means = {name: round(float(np.mean([f[name] for f in figures])), 4) for name in figures[0]} if figures else {}
    return {"films": len(figures), **means}


def by_label(folder: Path, model: Any, source: int, centres: tuple[float, float]) -> dict[str, Any]:
    """Return every figure of one kind of background, label by label."""
    chosen = np.load(folder / "source.npy") == source
    scores, maps = (values[chosen] for values in run(model, folder))
    truth, masks = np.load(folder / "labels.npy")[chosen].astype(bool), masks_of(folder)[chosen]
    report: dict[str, Any] = {"films": int(chosen.sum())}
    for k, (name, entry) in enumerate(zip(LABELS, card()["labels"], strict=True)):
        called, labels = scores[:, k] >= entry["threshold"], truth[:, k]
        low, high = interval(scores[:, k], labels)
        report[name] = {
            "positive": int(labels.sum()),
            "auc": round(area(scores[:, k], labels), 4),
            "auc_95": [round(low, 4), round(high, 4)],
            "sensitivity": round(float(called[labels].mean()), 4),
            "specificity": round(float((~called[~labels]).mean()), 4),
            "map_all_positives": localised(maps[:, k], masks[:, k], np.flatnonzero(labels), centres),
            "map_true_positives": localised(maps[:, k], masks[:, k], np.flatnonzero(labels & called), centres),
            "map_true_positives_half_cell": localised(
                maps[:, k], masks[:, k], np.flatnonzero(labels & called), (centres[1] / 2 - 0.5, centres[1])
            ),
        }
    return report


def real_mass(folder: Path, without: Path, model: Any, centres: tuple[float, float]) -> dict[str, Any]:
    """Return what the model makes of the CT's own mass: the nodule score with it and without it, and the map."""
    (scores, maps), (bare, _) = run(model, folder), run(model, without)
    masks, threshold = masks_of(folder)[:, 0], card()["labels"][0]["threshold"]
    seen = masks.any(axis=(1, 2))
    labels = np.repeat([True, False], [int(seen.sum()), len(bare)])
    both = np.concatenate([scores[seen, 0], bare[:, 0]])
    low, high = interval(both, labels)
    return {
        "films": int(seen.sum()),
        "films_without": len(bare),
        "auc": round(area(both, labels), 4),
        "auc_95": [round(low, 4), round(high, 4)],
        "sensitivity": round(float((scores[seen, 0] >= threshold).mean()), 4),
        "specificity": round(float((bare[:, 0] < threshold).mean()), 4),
        "map": localised(maps[:, 0], masks, np.flatnonzero(seen), centres),
    }


def thresholds(folder: Path, model: Any) -> dict[str, float]:
    """Return the probability that maximises Youden's index for each label on a validation bank."""
    scores, _ = run(model, folder)
    truth = np.load(folder / "labels.npy").astype(bool)
    chosen = {}
    for k, name in enumerate(LABELS):
        steps = np.linspace(0.02, 0.98, 97)
        index = [(scores[truth[:, k], k] >= t).mean() + (scores[~truth[:, k], k] < t).mean() for t in steps]
        best = np.flatnonzero(np.asarray(index) >= max(index) - 1e-9)
        chosen[name] = round(float(steps[best].mean()), 2)
    return chosen


def main() -> None:
    """``python evaluate.py BANK --weights weights.safetensors [--mass BANK --bare BANK] [--choose VALIDATION]``."""
    parser = argparse.ArgumentParser(description="Evaluate the demonstration model on held-out phantoms.")
    parser.add_argument("bank", type=Path)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights.safetensors")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evaluation.json")
    parser.add_argument("--mass", type=Path, help="bank of films with the CT's own mass")
    parser.add_argument("--bare", type=Path, help="bank of the same CT without it and without any label")
    parser.add_argument("--choose", type=Path, help="only print thresholds chosen on this bank")
    args = parser.parse_args()
    torch.set_num_threads(2)
    model = trained(args.weights)
    if args.choose:
        print(json.dumps(thresholds(args.choose, model)))
        return
    offset, step = field_centres(model, card()["input"]["rows"])
    report: dict[str, Any] = {
        "cell_centres_px": {"offset": BY_DESIGN[0], "step": BY_DESIGN[1]},
        "cell_centres_px_by_gradient": {"offset": round(offset, 2), "step": round(step, 3)},
    }
    for source, name in enumerate(("procedural", "ct")):
        report[name] = by_label(args.bank, model, source, BY_DESIGN)
    if args.mass and args.bare:
        report["ct_own_mass"] = real_mass(args.mass, args.bare, model, BY_DESIGN)
    args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
