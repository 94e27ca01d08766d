"""Where a class activation map points against a known mask, with cells placed by the receptive field.

Knows nothing of files or of the network's inside but its stages. Figures per film and label: is the map's peak
inside the mask, is it within a tolerance of it, and how much of the positive map lies inside. Chance is the mask's
share of the image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

BY_DESIGN = (0.0, 8.0)  # odd kernels, padding k // 2: cell i is centred at pixel 0 + 8 i
TOLERANCE = 0.04  # of the image's side


def field_centres(model: Any, side: int, cells: tuple[int, ...] = (24, 28, 32, 36, 40)) -> tuple[float, float]:
    """Measure where cells look: the centroid of the squared input gradient of single cells, fitted as a line.

    The picture is twice as large as the model's grid, so that no receptive field is cut off at an edge.

    Returns
    -------
    offset, step : pixels, so that cell i is centred at offset + step * i; the mean of rows and columns
    """
    generator = torch.Generator().manual_seed(0)
    rows: list[tuple[int, float]] = []
    x = torch.randn(2, 1, 2 * side, 2 * side, generator=generator, requires_grad=True)
    features = model.stages(model.stem(x))
    along = torch.arange(2 * side, dtype=torch.float32)
    for index in cells:
        (gradient,) = torch.autograd.grad(features[:, :, index, index].sum(), x, retain_graph=True)
        weight = (gradient**2).sum(dim=(0, 1))
        rows.append((index, float((weight.sum(1) * along).sum() / weight.sum())))
        rows.append((index, float((weight.sum(0) * along).sum() / weight.sum())))
    step, offset = np.polyfit([r[0] for r in rows], [r[1] for r in rows], 1)
    return float(offset), float(step)


def to_pixels(cam: Array, side: int, offset: float, step: float) -> Array:
    """Interpolate a map (h, w) linearly to (side, side), cell i at pixel offset + step * i, edges held."""
    where = np.clip((np.arange(side) - offset) / step, 0, np.array(cam.shape[0] - 1))
    rows, columns = np.meshgrid(where, where, indexing="ij")
    return np.asarray(ndimage.map_coordinates(cam, [rows, columns], order=1, mode="nearest"), dtype=np.float32)


def judged(cam: Array, mask: Mask, offset: float, step: float) -> dict[str, float]:
    """Judge one positive map against one mask.

    Parameters
    ----------
    cam : (h, w) float32, the signed map; negative parts are cut off as Grad-CAM does
    mask : (H, H) bool, not empty

    Returns
    -------
    hit, hit_tolerant : 0 or 1
    energy : share of the map inside the mask, 0 for an empty map
    chance : share of the image that is mask; chance_tolerant : the same for the mask grown by the tolerance
    empty : 1 if the map is zero everywhere
    """
    side = mask.shape[0]
    drawn = to_pixels(np.maximum(cam, 0), side, offset, step)
    away = ndimage.distance_transform_edt(~mask)
    row, column = np.unravel_index(int(np.argmax(drawn)), drawn.shape)
    empty = float(drawn.max() <= 0)
    reach = TOLERANCE * side
    return {
        "hit": (1 - empty) * float(mask[row, column]),
        "hit_tolerant": (1 - empty) * float(away[row, column] <= reach),
        "energy": float(drawn[mask].sum() / max(float(drawn.sum()), 1e-9)),
        "chance": float(mask.mean()),
        "chance_tolerant": float((away <= reach).mean()),
        "empty": empty,
    }
