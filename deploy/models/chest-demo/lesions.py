"""Lesions and devices as added attenuation with a known mask, and the look-alikes that must stay unlabelled.

Knows nothing of exposure. Every function takes the background's channels in film geometry (mm per pixel given) and
returns the added path in mm of water together with the (H, W) mask of what was added.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage
from scipy.special import expit

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Added = tuple[Array, Mask]

LABELS = ("Nodule", "Consolidation", "Pleural effusion", "Device")


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """A background in film geometry. Depths are (H, W) float32, mm of path."""

    depth_right: Array
    depth_left: Array
    body: Mask
    pixel_mm: float

    @property
    def depth(self) -> Array:
        """Path in both lungs."""
        return self.depth_right + self.depth_left


def grid(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return x and y of every pixel."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return x, y


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Array:
    """Return smooth noise of unit variance, correlated over `sigma` pixels."""
    factor = max(1, int(sigma / 2))
    coarse = rng.standard_normal((shape[0] // factor + 3, shape[1] // factor + 3)).astype(np.float32)
    smooth = ndimage.zoom(ndimage.gaussian_filter(coarse, sigma / factor), factor, order=1)[: shape[0], : shape[1]]
    return np.asarray((smooth - smooth.mean()) / max(float(smooth.std()), 1e-6), dtype=np.float32)


def draw(shape: tuple[int, int], points: Array, width: float) -> Array:
    """Draw an open polyline, anti-aliased: coverage (H, W) in 0..1. `points` (N, 2) and `width` in pixels."""
    scale = 3
    picture = Image.new("L", (shape[1] * scale, shape[0] * scale))
    line = [((float(x) + 0.5) * scale, (float(y) + 0.5) * scale) for x, y in points]
    ImageDraw.Draw(picture).line(line, fill=255, width=max(1, round(width * scale)), joint="curve")
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BOX), dtype=np.float32) / 255


def bezier(corners: Array, count: int = 48) -> Array:
    """Return a smooth path through the control polygon `corners` (N, 2): (count, 2)."""
    points = np.repeat(corners[None].astype(np.float32), count, axis=0)
    t = np.linspace(0, 1, count, dtype=np.float32)[:, None, None]
    while points.shape[1] > 1:
        points = points[:, :-1] * (1 - t) + points[:, 1:] * t
    return points[:, 0]


def place(rng: np.random.Generator, allowed: Mask) -> tuple[float, float] | None:
    """Draw one allowed pixel as (x, y), or None if there is none."""
    where = np.flatnonzero(allowed)
    if len(where) == 0:
        return None
    row, column = divmod(int(rng.choice(where)), allowed.shape[1])
    return float(column), float(row)


def blob(rng: np.random.Generator, shape: tuple[int, int], centre: tuple[float, float], radius: float) -> Added:
    """Return the chord (pixels) through a lobulated ball and its outline. `centre` (x, y) and `radius` in pixels."""
    x, y = grid(shape)
    dx, dy = x - centre[0], y - centre[1]
    angle = np.arctan2(dy, dx)
    rough = rng.uniform(0.0, 0.09)
    edge = sum(rng.normal(0, rough / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 6))
    stretch = rng.uniform(0.85, 1.18)
    apart = np.hypot(dx * stretch, dy / stretch) / (radius * (1 + np.asarray(edge)))
    chord = 2 * radius * np.sqrt(np.clip(1 - apart**2, 0, None))
    soft = ndimage.gaussian_filter(chord, rng.uniform(0.2, 0.14 * radius + 0.35))
    return soft.astype(np.float32), apart < 1


def nodules(rng: np.random.Generator, anatomy: Anatomy) -> Added:
    """Return one nodule, or two to twelve, 6-40 mm across, inside the lungs; mask: their outlines."""
    many = rng.random() < 0.45
    count = int(rng.integers(2, 13)) if many else 1
    typical = float(np.exp(rng.uniform(np.log(9), np.log(34))))
    shape = anatomy.depth.shape
    share = 0.45 if rng.random() < 0.85 else 0.15
    inside = ndimage.binary_erosion(anatomy.depth > share * float(anatomy.depth.max()), iterations=2)
    added, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for _ in range(count):
        centre = place(rng, inside & ~mask)
        if centre is None:
            break
        diameter = float(np.clip(typical * np.exp(rng.normal(0, 0.28)), 6, 40))
        density = rng.uniform(0.55, 0.95) if diameter > 14 else rng.uniform(0.75, 1.5)
        chord, outline = blob(rng, (shape[0], shape[1]), centre, diameter / 2 / anatomy.pixel_mm)
        added += chord * np.float32(anatomy.pixel_mm * density)
        mask |= outline
    return added, mask


def consolidation(rng: np.random.Generator, anatomy: Anatomy) -> Added:
    """Return one or more patches of filled air space; mask: where more than 30 % of the strongest filling lies."""
    shape = (anatomy.depth.shape[0], anatomy.depth.shape[1])
    added = np.zeros(shape, dtype=np.float32)
    sides = [anatomy.depth_right, anatomy.depth_left]
    rng.shuffle(sides)
    for depth in sides[: 1 if rng.random() < 0.75 else 2]:
        centre = place(rng, depth > 0.4 * float(depth.max()))
        if centre is None:
            continue
        x, y = grid(shape)
        rx, ry = rng.uniform(17, 52, 2) / anatomy.pixel_mm
        turn = rng.uniform(0, np.pi)
        dx, dy = x - centre[0], y - centre[1]
        u, v = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
        apart = np.hypot(u / rx, v / ry) + 0.28 * noise(rng, shape, rng.uniform(5, 10))
        window = expit((1 - apart) / rng.uniform(0.06, 0.16))
        if rng.random() < 0.3:
            fissure = centre[1] + rng.uniform(-0.3, 0.5) * ry + rng.uniform(-0.25, 0.25) * dx
            window = window * expit((y - fissure) / 1.2)
        texture = np.clip(1 + rng.uniform(0.1, 0.4) * noise(rng, shape, rng.uniform(1.2, 3.0)), 0.2, 1.8)
        filled = rng.uniform(0.18, 0.62)
        added += (np.minimum(depth, 150) * window * texture * filled * 0.75).astype(np.float32)
    smooth = ndimage.gaussian_filter(added, 1.5)
    return added, smooth > max(0.3 * float(smooth.max()), 4.0)


def effusion(rng: np.random.Generator, anatomy: Anatomy) -> Added:
    """Return fluid at the base of one lung or both, with a meniscus that climbs the chest wall; mask: the fluid."""
    shape = (anatomy.depth.shape[0], anatomy.depth.shape[1])
    x, y = grid(shape)
    added, mask = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    middle = np.average(x, weights=anatomy.depth + 1e-3)
    sides = [anatomy.depth_right, anatomy.depth_left]
    rng.shuffle(sides)
    for depth in sides[: 1 if rng.random() < 0.7 else 2]:
        aerated = depth > 0.5 * float(depth.max())
        if aerated.sum() < 50:
            continue
        columns = np.flatnonzero(aerated.any(axis=0))
        outward = 1.0 if columns.mean() > middle else -1.0
        inner, outer = (columns[0], columns[-1]) if outward > 0 else (columns[-1], columns[0])
        bottom = float(np.flatnonzero(aerated.any(axis=1))[-1])
        height = float(np.exp(rng.uniform(np.log(18), np.log(110)))) / anatomy.pixel_mm
        along = np.clip((x - inner) / (outer - inner), -0.2, 1.2)
        level = bottom - height * (0.55 + rng.uniform(0.35, 0.8) * along**2) + rng.uniform(-2, 2)
        surface = expit((y - level) / rng.uniform(0.8, 3.0))
        added += (np.minimum(depth, 140) * surface * rng.uniform(0.5, 0.85)).astype(np.float32)
        mask |= (surface > 0.5) & (depth > 0.3 * float(depth.max()))
    return added, mask


def look_alikes(rng: np.random.Generator, anatomy: Anatomy) -> Array:
    """Return what is on the film and is none of the labels: nipples, clips, folds. (H, W) float32, mm of water."""
    shape = (anatomy.depth.shape[0], anatomy.depth.shape[1])
    added = np.zeros(shape, dtype=np.float32)
    rows, columns = np.nonzero(anatomy.depth > 40)
    if len(rows) == 0:
        return added
    top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
    if rng.random() < 0.12:
        y = bottom - rng.uniform(0.05, 0.25) * (bottom - top)
        radius, weight = rng.uniform(3, 5) / anatomy.pixel_mm, rng.uniform(0.4, 0.9)
        for x in (left + 0.22 * (right - left), right - 0.22 * (right - left)):
            added += blob(rng, shape, (x + rng.normal(0, 2), y + rng.normal(0, 3)), radius)[0] * np.float32(weight)
    if rng.random() < 0.15:
        for _ in range(int(rng.integers(1, 7))):
            start = np.array([rng.uniform(left, right), rng.uniform(top, bottom)])
            end = start + rng.normal(0, 3.0 / anatomy.pixel_mm, 2)
            added += draw(shape, np.stack([start, end]), 0.8) * np.float32(rng.uniform(8, 20))
    if rng.random() < 0.2:
        x, y = grid(shape)
        slope, offset = rng.uniform(-1, 1), rng.uniform(left, right)
        fold = expit((offset + slope * (y - top) - x) / rng.uniform(0.5, 3))
        added += (fold * anatomy.body * rng.uniform(1, 7)).astype(np.float32)
    return added
