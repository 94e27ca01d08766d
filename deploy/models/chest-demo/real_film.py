"""Shows the model one real film and prints what it says: scores, and where the class activation maps peak.

The film is a DICOM file of the reader's choosing. It is for looking only: nothing is learned from it or chosen by it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lesions import LABELS
from localisation import BY_DESIGN, to_pixels
from network import card, features_and_cam, normalised, trained
from pydicom import dcmread
from pydicom.pixels import apply_modality_lut, apply_voi_lut


def displayed(path: Path) -> npt.NDArray[np.float32]:
    """Return the film as it is to be displayed, (H, W) float32 in 0..1, bone bright: VOI window, then MONOCHROME1."""
    ds = dcmread(path)
    values = apply_modality_lut(ds.pixel_array, ds)
    shown = np.asarray(apply_voi_lut(values, ds, prefer_lut=False), dtype=np.float32)
    if "WindowCenter" not in ds:
        low, high = np.percentile(shown, [0.5, 99.5])
        shown = np.clip(shown, low, high)
    shown = (shown - shown.min()) / max(float(shown.max() - shown.min()), 1e-6)
    return 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown


def fitted(shown: npt.NDArray[np.float32], side: int) -> tuple[torch.Tensor, tuple[float, int, int]]:
    """Pad to a square with black and resize: (1, 1, side, side), and scale, rows above, columns left of the film."""
    rows, columns = shown.shape
    size = max(rows, columns)
    above, left = (size - rows) // 2, (size - columns) // 2
    square = np.zeros((size, size), dtype=np.float32)
    square[above : above + rows, left : left + columns] = shown
    small = torch.nn.functional.interpolate(
        torch.from_numpy(square)[None, None], (side, side), mode="bilinear", antialias=True, align_corners=False
    )
    return small, (size / side, above, left)


@torch.no_grad()
def said(path: Path, weights: Path) -> dict[str, dict[str, float | bool | list[int]]]:
    """Return for each label the probability, whether it passes the threshold, and the map's peak (row, column)."""
    model, side = trained(weights), card()["input"]["rows"]
    image, (scale, above, left) = fitted(displayed(path), side)
    logits, maps = features_and_cam(model, normalised(image))
    answer: dict[str, dict[str, float | bool | list[int]]] = {}
    for k, (name, entry) in enumerate(zip(LABELS, card()["labels"], strict=True)):
        drawn = to_pixels(np.maximum(maps[0, k].numpy(), 0), side, *BY_DESIGN)
        row, column = np.unravel_index(int(np.argmax(drawn)), drawn.shape)
        score = float(torch.sigmoid(logits[0, k].double()))
        answer[name] = {
            "probability": round(score, 4),
            "positive": score >= entry["threshold"],
            "empty_map": bool(drawn.max() <= 0),
            "peak_row_column": [round((row + 0.5) * scale - above), round((column + 0.5) * scale - left)],
        }
    return answer


def main() -> None:
    """``python real_film.py FILM.dcm``."""
    parser = argparse.ArgumentParser(description="Print what the demonstration model says of one DICOM film.")
    parser.add_argument("film", type=Path)
    parser.add_argument("--weights", type=Path, default=Path(__file__).parent / "weights.safetensors")
    args = parser.parse_args()
    print(json.dumps(said(args.film, args.weights), indent=1))


if __name__ == "__main__":
    main()
