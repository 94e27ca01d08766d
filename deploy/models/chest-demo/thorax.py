"""A procedural thorax: the same material channels as the CT's projections, drawn from random anatomy.

Knows nothing of lesions, exposure or labels. It stands in for the many patients that one CT is not. Lengths are in mm,
x to the viewer's right (patient's left), y downwards, the origin at the film's centre.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from drr import FIELD_MM, SIZE, Array
from PIL import Image, ImageDraw
from scipy import ndimage

PIXEL_MM = FIELD_MM / SIZE
Mask = npt.NDArray[np.bool_]
X, Y = np.meshgrid(*(2 * [(np.arange(SIZE, dtype=np.float32) - (SIZE - 1) / 2) * PIXEL_MM]))


@dataclass(frozen=True, kw_only=True)
class Build:
    """The random anatomy of one thorax, mm."""

    half_width: float  # of the rib cage inside
    apex: float  # y of the lung apices
    domes: tuple[float, float]  # y of the two domes of the diaphragm, viewer's left and right
    depth: float  # largest path in the lung
    heart: tuple[float, float, float, float]  # centre x, y, half-width, half-height
    wall: float  # chest wall


def random_build(rng: np.random.Generator) -> Build:
    """Draw an adult's build: inspiration, heart size and chest wall vary."""
    half_width = rng.uniform(112, 152)
    dome = rng.uniform(55, 125)
    size = rng.uniform(0.85, 1.3)
    return Build(
        half_width=half_width,
        apex=rng.uniform(-150, -115),
        domes=(dome + rng.normal(0, 5), dome + rng.uniform(0, 22)),
        depth=rng.uniform(110, 190),
        heart=(rng.uniform(10, 32), dome - rng.uniform(15, 45), 56 * size, rng.uniform(55, 75)),
        wall=rng.uniform(10, 42),
    )


def stroke(points: Array, width: float) -> Array:
    """Draw a polyline `width` mm wide through (N, 2) `points` in mm, as coverage (320, 320) in 0..1."""
    twice = Image.new("L", (2 * SIZE, 2 * SIZE))
    pixels = (points / PIXEL_MM + SIZE / 2) * 2
    line = [(float(x), float(y)) for x, y in pixels]
    thick = max(1, round(2 * width / PIXEL_MM))
    ImageDraw.Draw(twice).line(line, fill=255, width=thick, joint="curve")
    drawn = np.asarray(twice.resize((SIZE, SIZE), Image.Resampling.BOX), dtype=np.float32) / 255
    return drawn * np.float32(min(1.0, 2 * width / PIXEL_MM))


def wobble(rng: np.random.Generator, sigma: float) -> Array:
    """Return smooth noise (320, 320) of unit variance, correlated over `sigma` mm."""
    factor = max(1, int(sigma / PIXEL_MM / 3))
    coarse = rng.standard_normal((SIZE // factor + 4,) * 2).astype(np.float32)
    smooth = ndimage.gaussian_filter(coarse, sigma / PIXEL_MM / factor)
    grown = ndimage.zoom(smooth, SIZE / (SIZE // factor), order=1)[:SIZE, :SIZE]
    return np.asarray((grown - grown.mean()) / max(float(grown.std()), 1e-6), dtype=np.float32)


def lung_outline(build: Build, side: int, rng: np.random.Generator) -> tuple[Mask, Mask]:
    """Return the aerated lung of one side (-1: viewer's left) and the part that lies before or behind the heart."""
    dome = build.domes[(side + 1) // 2]
    height = dome - build.apex
    level = np.clip((Y - build.apex) / height, 0, 1.4)
    lateral = build.half_width * (1 - (1 - np.clip(level, 0, 1)) ** rng.uniform(2.2, 3.4)) ** rng.uniform(0.38, 0.52)
    medial = rng.uniform(14, 24) + 6 * np.cos(level * 6 + rng.uniform(0, 6))
    out = side * X
    edge = dome - 18 + 42 * ((out - 0.45 * build.half_width) / (0.6 * build.half_width)) ** 2
    inside = (out > medial) & (out < lateral) & (build.apex < Y) & (np.minimum(edge, dome + 45) > Y)
    cx, cy, rx, ry = build.heart
    heart = ((X - cx) / rx) ** 2 + ((Y - cy) / ry) ** 2 < 1
    if side > 0:
        knob_x, knob_y = rng.uniform(10, 22), build.apex + rng.uniform(62, 85)
        knob = ((X - knob_x) / 20) ** 2 + ((Y - knob_y) / rng.uniform(22, 40)) ** 2 < 1
        heart = heart | knob
    return inside & ~heart, inside & heart


def lung_depth(build: Build, side: int, rng: np.random.Generator) -> Array:
    """Return the path in one lung, (320, 320) float32 mm: rounded at the edges, thin behind the heart."""
    free, covered = lung_outline(build, side, rng)
    inward = ndimage.distance_transform_edt(free | covered) * PIXEL_MM
    rise = np.clip(inward / rng.uniform(35, 55), 0, 1)
    depth = build.depth * np.sqrt(1 - (1 - rise) ** 2)
    depth = np.where(covered, depth * rng.uniform(0.25, 0.55), depth)
    recess = np.clip(1 - np.abs(Y - build.domes[(side + 1) // 2] - 8) / 45, 0, 1) * (side * X > 30)
    behind = recess * (side * X < build.half_width * 0.92) * build.depth * rng.uniform(0.0, 0.3)
    return np.asarray(ndimage.gaussian_filter(np.maximum(depth, behind), 1.3), dtype=np.float32)


def vessels(build: Build, depth: Array, rng: np.random.Generator) -> Array:
    """Return the vascular tree's path in blood, (320, 320) float32 mm: branches that fork from both hila."""
    tree = np.zeros((SIZE, SIZE), dtype=np.float32)
    for side in (-1, 1):
        hilum = np.array([side * rng.uniform(28, 42), build.apex + rng.uniform(85, 110)])
        tree += 12 * np.exp(-(((X - hilum[0]) / 12) ** 2 + ((Y - hilum[1]) / 24) ** 2)) * rng.uniform(0.4, 1.3)
        base = 0.0 if side > 0 else np.pi
        ends = [(hilum, base + a, rng.uniform(5, 9)) for a in np.linspace(-1.3, 1.4, 6) + rng.normal(0, 0.15, 6)]
        while ends:
            start, angle, width = ends.pop()
            bend = angle + np.cumsum(rng.normal(0, 0.12, 4))
            steps = np.stack([np.cos(bend), np.sin(bend)], axis=1) * rng.uniform(5, 9)
            points = np.vstack([start, start + np.cumsum(steps, axis=0)])
            tree = np.maximum(tree, stroke(points.astype(np.float32), width * 0.7) * np.float32(width))
            if width > 1.8:
                turns = rng.uniform(0.15, 0.6, 2) * (1, -1)
                ends += [(points[-1], bend[-1] + t, width * rng.uniform(0.62, 0.8)) for t in turns]
    return np.asarray(tree * np.clip(depth / 40, 0, 1) + 0, dtype=np.float32)


def rib_cage(build: Build, rng: np.random.Generator) -> Array:
    """Return the bone's excess attenuation, (320, 320) float32 mm of water: spine, ribs, clavicles."""
    bone = np.zeros((SIZE, SIZE), dtype=np.float32)
    gap, half = rng.uniform(17, 23), build.half_width + 6
    strength, fall = rng.uniform(3.5, 11.0), rng.uniform(15, 40)
    span = np.linspace(0, 1, 24)
    for index in range(11):
        top = build.apex - 8 + index * gap
        reach = half * (1 - (1 - np.clip((index + 1.2) / 6, 0, 1)) ** 2.5) ** 0.5
        for side in (-1, 1):
            tilt = rng.normal(0, 2)
            back_y = top - 14 * np.sin(span * 2.2) + fall * span**2 + tilt
            back = np.stack([side * (12 + (reach - 12) * span), back_y], 1)
            front_y = top + fall + tilt + (35 + 2 * index) * (1 - (1 - span) ** 2)
            front = np.stack([side * reach * np.sqrt(1 - (0.75 * span) ** 2), front_y], 1)
            for path, weight in ((back, 1.0), (front, rng.uniform(0.3, 0.7))):
                width = rng.uniform(7, 10)
                hollow = stroke(path.astype(np.float32), width) - 0.55 * stroke(path.astype(np.float32), width - 3.5)
                bone += hollow * np.float32(strength * weight)
    for side in (-1, 1):
        x = side * (14 + (build.half_width + 10) * span)
        collar = np.stack([x, build.apex + rng.uniform(2, 22) - 22 * span + 6 * np.sin(6 * span)], 1)
        bone += stroke(collar.astype(np.float32), rng.uniform(9, 12)) * np.float32(strength * 1.4)
    period = rng.uniform(22, 28)
    spine = np.clip(20 - np.abs(X), 0, 8) / 8 * (0.75 + 0.25 * (np.cos(2 * np.pi * Y / period) < 0.8))
    return np.asarray(ndimage.gaussian_filter(bone + spine * rng.uniform(6, 20), 0.8), dtype=np.float32)


def soft_tissue(build: Build, depth: Array, rng: np.random.Generator) -> Array:
    """Return soft tissue outside the lungs, (320, 320) float32 mm: trunk less lungs, neck, breasts, stomach gas."""
    half = build.half_width + build.wall + 12 * np.tanh((Y - build.apex) / 60)
    shoulder = np.clip((build.apex + rng.uniform(10, 40) - Y) / 60, 0, 1)
    half = half * (1 + 0.4 * shoulder) * np.where(build.apex - 35 > Y, rng.uniform(0.35, 1.1), 1)
    trunk = (build.depth + rng.uniform(35, 90)) * np.clip(1 - (np.abs(X) / half) ** 3, 0, 1) ** 0.5
    trunk = trunk * (1 - 0.45 * shoulder)
    for side in (-1, 1):
        x, y = side * rng.uniform(0.5, 0.7) * build.half_width, build.domes[0] - rng.uniform(-10, 40)
        r = rng.uniform(40, 62)
        bulge = np.clip(1 - ((X - x) / r) ** 2 - ((Y - y) / (r * 1.1)) ** 2, 0, 1) ** 0.5
        trunk += bulge * max(0.0, rng.normal(5, 18))
    if rng.random() < 0.6:
        gas = ((X - rng.uniform(45, 80)) / rng.uniform(12, 34)) ** 2
        gas += ((Y - build.domes[1] - 30) / rng.uniform(8, 20)) ** 2
        trunk -= np.clip(1 - gas, 0, 1) ** 0.5 * rng.uniform(15, 50)
    windpipe = np.clip(1 - ((X - 2) / 9) ** 2, 0, 1) ** 0.5 * np.clip((build.apex + 75 - Y) / 10, 0, 1)
    tissue = np.clip(trunk - depth - 16 * windpipe, 0, None) + 2.0 * wobble(rng, 12) * (trunk > 20)
    return np.asarray(np.clip(ndimage.gaussian_filter(tissue, 1.2), 0, None), dtype=np.float32)


def thorax(rng: np.random.Generator) -> Array:
    """Draw one thorax.

    Returns
    -------
    integrals : (6, 320, 320) float32, mm; the channels of ``drr.CHANNELS``, the last (mass) zero
    """
    build = random_build(rng)
    right, left = (lung_depth(build, side, rng) for side in (-1, 1))
    depth = right + left
    tree = vessels(build, depth, rng)
    texture = 1 + 0.05 * wobble(rng, 3) + 0.06 * wobble(rng, 30)
    lung = depth * rng.uniform(0.17, 0.30) * texture + 0.8 * tree
    soft, bone = soft_tissue(build, depth, rng), rib_cage(build, rng)
    return np.stack([soft, bone, lung, right, left, np.zeros_like(soft)]).astype(np.float32)


def main() -> None:
    """Draw thoraces into one float16 array file: ``python thorax.py OUT.npy --count 600 --seed 1``."""
    parser = argparse.ArgumentParser(description="Draw procedural thoraces as line integrals.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    seeds = np.random.SeedSequence(args.seed).spawn(args.count)
    np.save(args.out, np.stack([thorax(np.random.default_rng(s)).astype(np.float16) for s in seeds]))


if __name__ == "__main__":
    main()
