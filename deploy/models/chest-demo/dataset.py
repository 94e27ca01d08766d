"""Phantom films with labels and masks: a background, a random view of it, lesions, a film; written as a bank of arrays.

Run as a script it writes ``images.npy`` (N, 256, 256) uint8, ``labels.npy`` (N, 4) uint8, ``cells.npy`` (N, 4, 32, 32)
uint8 (share of the mask around each cell's centre, 255 = full), ``masks.npy`` (N, 4, 256, 32) uint8 bit-packed and
``source.npy`` (N,) uint8 (0 procedural, 1 CT). The n-th film of a seed is the same whatever the number of processes.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from devices import devices
from drr import FIELD_MM
from film import develop
from lesions import LABELS, Anatomy, Array, Mask, consolidation, effusion, look_alikes, nodules

SIDE = 256  # pixels of the model's square input
STRIDE = 8  # of the model's feature grid; cell i is centred at pixel 8 i
RATES = (0.36, 0.30, 0.30, 0.42)  # how often each label is drawn, independently
BARE = 0.12  # share of films without any label, on top
SMALLEST = (8, 40, 40, 15)  # visible pixels below which a label is not given
MAKERS = (nodules, consolidation, effusion, devices)


@dataclass(frozen=True, kw_only=True)
class Film:
    """One phantom film. image (256, 256) uint8; masks (4, 256, 256) bool; source 0 procedural, 1 CT."""

    image: npt.NDArray[np.uint8]
    masks: Mask
    source: int


def view(rng: np.random.Generator, channels: Array) -> tuple[Array, float]:
    """Take a random view of a background: field, centre, lean, mirror, stretch and a smooth warp.

    Parameters
    ----------
    channels : (6, 320, 320) float32, mm

    Returns
    -------
    seen : (6, 256, 256) float32, mm
    pixel_mm : mean size of a pixel
    """
    field = rng.uniform(255, 375)
    stretch = np.exp(rng.normal(0, 0.07))
    turn = np.deg2rad(rng.normal(0, 4))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shift = rng.normal(0, 0.045, 2) - (0, (1 - field / FIELD_MM) * 0.15)
    axis = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    x, y = x * field / FIELD_MM * stretch, y * field / FIELD_MM / stretch
    u = flip * (x * np.cos(turn) - y * np.sin(turn)) + shift[0]
    v = x * np.sin(turn) + y * np.cos(turn) + shift[1]
    bumps = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.035), (1, 2, 6, 6)).astype(np.float32))
    warp = torch.nn.functional.interpolate(bumps, (SIDE, SIDE), mode="bicubic", align_corners=True)[0]
    where = torch.stack([u + warp[0], v + warp[1]], dim=-1)[None].float()
    seen = torch.nn.functional.grid_sample(torch.from_numpy(channels)[None], where, align_corners=False)[0].numpy()
    if flip < 0:
        seen = seen[[0, 1, 2, 4, 3, 5]]
    return np.asarray(seen, dtype=np.float32), field / SIDE


def compose(rng: np.random.Generator, channels: Array, source: int, lesions: str = "drawn") -> Film:
    """Make one film of a background; `lesions` are "drawn", "none", or "own": the CT's own mass and nothing else."""
    seen, pixel_mm = view(rng, channels)
    soft, bone, lung, right, left, mass = seen
    anatomy = Anatomy(depth_right=right, depth_left=left, body=(soft + lung) > 8, pixel_mm=pixel_mm)
    path = soft * rng.uniform(0.8, 1.2) + bone * rng.uniform(0.6, 1.8) + lung * rng.uniform(0.75, 1.35)
    masks = np.zeros((len(LABELS), SIDE, SIDE), dtype=bool)
    wanted = rng.random(len(LABELS)) < (np.zeros(len(LABELS)) if lesions != "drawn" or rng.random() < BARE else RATES)
    for index in np.flatnonzero(wanted):
        added, masks[index] = MAKERS[index](rng, anatomy)
        path = path + added
    if lesions == "own":
        path, masks[0] = path + mass, mass > 5
    path = path + look_alikes(rng, anatomy)
    image, visible = develop(rng, path.astype(np.float32), anatomy.body)
    masks &= visible
    for index, least in enumerate(SMALLEST):
        if masks[index].sum() < least:
            masks[index] = False
    return Film(image=image, masks=masks, source=source)


def cells(masks: Mask) -> npt.NDArray[np.uint8]:
    """Return the share of each mask in the 9 x 9 pixels around each cell's centre. (4, 32, 32) uint8, 255 = full."""
    pooled = torch.nn.functional.avg_pool2d(
        torch.from_numpy(masks.astype(np.float32))[None], STRIDE + 1, STRIDE, STRIDE // 2, count_include_pad=False
    )
    return np.asarray((pooled[0] * 255).round().byte().numpy(), dtype=np.uint8)


def one(index: int, *, seed: int, backgrounds: tuple[Path, Path], ct_share: float, lesions: str) -> Film:
    """Make the `index`-th film of a seed."""
    torch.set_num_threads(1)
    rng = np.random.default_rng([seed, index])
    source = int(rng.random() < ct_share)
    stock = np.load(backgrounds[source], mmap_mode="r")
    return compose(rng, stock[int(rng.integers(len(stock)))].astype(np.float32), source, lesions)


def write(out: Path, count: int, make: partial[Film], processes: int) -> None:
    """Write `count` films into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)

    def new(name: str, *shape: int) -> npt.NDArray[np.uint8]:
        return np.lib.format.open_memmap(out / name, mode="w+", dtype=np.uint8, shape=(count, *shape))

    n = len(LABELS)
    images, grids = new("images.npy", SIDE, SIDE), new("cells.npy", n, SIDE // STRIDE, SIDE // STRIDE)
    labels, masks, source = new("labels.npy", n), new("masks.npy", n, SIDE, SIDE // 8), new("source.npy")
    with ProcessPoolExecutor(processes) as pool:
        for index, film in enumerate(pool.map(make, range(count), chunksize=16)):
            images[index], grids[index] = film.image, cells(film.masks)
            labels[index], source[index] = film.masks.any(axis=(1, 2)), film.source
            masks[index] = np.packbits(film.masks, axis=2)


def main() -> None:
    """Write a bank: ``python dataset.py OUT --count 20000 --seed 7 --procedural thorax.npy --ct ct.npy``."""
    parser = argparse.ArgumentParser(description="Write a bank of phantom films.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--procedural", type=Path, required=True)
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("--ct-share", type=float, default=0.5)
    parser.add_argument("--lesions", choices=("drawn", "none", "own"), default="drawn", help="own: the CT's own mass")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    both = (args.procedural, args.ct)
    make = partial(one, seed=args.seed, backgrounds=both, ct_share=args.ct_share, lesions=args.lesions)
    write(args.out, args.count, make, args.processes)


if __name__ == "__main__":
    main()
