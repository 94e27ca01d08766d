"""From attenuation to a displayed film: exposure, scatter, noise, processing, collimation, padding and markers.

Knows nothing of anatomy or labels: whatever is drawn here is drawn alike on every film. Display values are 0..1, bone
bright.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

MARKERS = ("L", "R", "L PA", "R AP", "PORTABLE", "ERECT", "SUPINE", "AP SITZEND", "12:40", "AB", "00417", "LEFT")


def expose(rng: np.random.Generator, path: Array) -> Array:
    """Return the detector's log signal for a `path` in mm of water: Beer's law, scatter, quantum noise."""
    primary = np.exp(-rng.uniform(0.015, 0.024) * path)
    scatter = ndimage.zoom(ndimage.gaussian_filter(primary[::4, ::4], rng.uniform(3, 8)), 4, order=1)
    received = primary + rng.uniform(0.1, 1.6) * np.minimum(scatter, primary.mean() * 3)
    quanta = rng.standard_normal(path.shape).astype(np.float32)
    if rng.random() < 0.5:
        quanta = ndimage.gaussian_filter(quanta, 0.6) * 2
    sigma = np.exp(rng.uniform(np.log(0.002), np.log(0.03)))
    typical = float(np.percentile(received, 40))
    noisy = received * (1 + sigma * quanta * np.sqrt(typical / np.maximum(received, 1e-5)).clip(0.2, 4))
    return np.asarray(-np.log(np.maximum(noisy, 1e-5)), dtype=np.float32)


def process(rng: np.random.Generator, signal: Array, body: Mask) -> Array:
    """Return display values 0..1: edge enhancement, a window on the body, a gamma or sigmoid curve, blur."""
    if rng.random() < 0.5:
        broad = ndimage.gaussian_filter(signal, rng.uniform(2, 14))
        signal = signal + rng.uniform(0.2, 1.3) * (signal - broad)
    inside = signal[body] if body.sum() > 500 else signal.ravel()
    low, high = np.percentile(inside, [rng.uniform(0.1, 9), rng.uniform(88, 99.9)])
    margin = (high - low) * rng.uniform(0.0, 0.25)
    shown = (signal - low + margin) / max(float(high - low + margin), 1e-3)
    if rng.random() < 0.4:
        shown = 1 / (1 + np.exp(-rng.uniform(2.5, 6) * (shown - rng.uniform(0.35, 0.6))))
    shown = np.clip(shown, 0, 1) ** np.exp(rng.normal(0, 0.35))
    if rng.random() < 0.4:
        shown = ndimage.gaussian_filter(shown, rng.uniform(0.3, 1.0))
    return np.asarray(shown, dtype=np.float32)


def collimate(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[Mask, Mask]:
    """Return what the collimator leaves open, and what is film rather than padding to the square."""
    height, width = shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turn = np.deg2rad(rng.normal(0, 1.5))
    u = (x - width / 2) * np.cos(turn) + (y - height / 2) * np.sin(turn)
    v = (y - height / 2) * np.cos(turn) - (x - width / 2) * np.sin(turn)
    left, right, top, bottom = rng.uniform(0.40, 0.53, 4)
    is_open = (u > -left * width) & (u < right * width) & (v > -top * height) & (v < bottom * height)
    film = np.ones(shape, dtype=bool)
    if rng.random() < 0.6:
        aspect = np.exp(rng.normal(0, 0.13))
        bar = round(abs(1 - min(aspect, 1 / aspect)) / 2 * width)
        where = (slice(None), slice(bar, width - bar)) if aspect < 1 else (slice(bar, height - bar), slice(None))
        film[:] = False
        film[where] = True
    return is_open, film


def mark(rng: np.random.Generator, shown: Array, film: Mask) -> Array:
    """Burn one to three markers into the film's margins: lead letters or text, bright, sometimes on a plate."""
    picture = Image.fromarray((np.clip(shown, 0, 1) * 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    rows, columns = np.flatnonzero(film.any(axis=1)), np.flatnonzero(film.any(axis=0))
    for _ in range(int(rng.integers(1, 4))):
        size = float(rng.uniform(8, 20))
        x = columns[0] + (columns[-1] - columns[0]) * rng.choice([rng.uniform(0.01, 0.2), rng.uniform(0.72, 0.95)])
        y = rows[0] + (rows[-1] - rows[0]) * rng.choice([rng.uniform(0.0, 0.3), rng.uniform(0.75, 0.93)])
        text = str(rng.choice(MARKERS)) if size < 12 else str(rng.choice(["L", "R"]))
        font = ImageFont.load_default(size)
        if rng.random() < 0.15:
            pen.rectangle(pen.textbbox((float(x), float(y)), text, font=font), fill=int(rng.uniform(0, 90)))
        pen.text((float(x), float(y)), text, fill=int(rng.uniform(170, 256)), font=font)
    return np.where(film, np.asarray(picture, dtype=np.float32) / 255, shown).astype(np.float32)


def develop(rng: np.random.Generator, path: Array, body: Mask) -> tuple[npt.NDArray[np.uint8], Mask]:
    """Turn attenuation into a film.

    Parameters
    ----------
    path : (H, W) float32, mm of water
    body : (H, W) bool

    Returns
    -------
    shown : (H, W) uint8, display value, bone bright, padding 0
    visible : (H, W) bool, neither padding nor behind the collimator
    """
    is_open, film = collimate(rng, (path.shape[0], path.shape[1]))
    if rng.random() >= 0.4:
        is_open[:] = True
    shown = process(rng, expose(rng, path), body & is_open)
    unexposed = 0.0 if rng.random() < 0.65 else rng.uniform(0.7, 1.0)
    shown = np.where(is_open, shown, np.float32(unexposed)).astype(np.float32)
    if rng.random() < 0.55:
        shown = mark(rng, shown, film)
    shown = np.where(film, shown, 0)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8), is_open & film
