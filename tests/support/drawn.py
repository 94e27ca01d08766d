"""Seeded pictures, maps and explanations made by hand, and what was drawn and said of them."""

from __future__ import annotations

import numpy as np

from cam_core.caption import overlay_caption
from cam_core.equivalence import equivalent_groups
from cam_core.explanation import Explanation
from cam_core.finding import Finding
from cam_core.image import Image, fit_to
from cam_core.legend import Bar, Words
from cam_core.overlay import OverlayPicture, OverlayStyle
from cam_core.region import regions
from cam_core.registration import Registration
from cam_core.saliency import SaliencyMap

MODEL = "small 0.1"
CELLS = 16


def picture(shape: tuple[int, int], seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).random(shape, dtype=np.float32)
    return Image(pixels=pixels, spacing_mm=(0.5, 0.5))


def blob(row: float = 5, column: float = 10) -> np.ndarray:
    y, x = np.mgrid[:CELLS, :CELLS]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 4).astype(np.float32)


def saliency(image: Image, values: np.ndarray, **names: str) -> SaliencyMap:
    return SaliencyMap(
        values=values.astype(np.float32),
        method=names.get("method", "grad-cam"),
        variant=names.get("variant", ""),
        title=names.get("title", "Grad-CAM"),
        label="finding 0",
        fit=fit_to(image.shape, (128, 128), "stretch"),
        registration=Registration(start=(0.0, 0.0), step=(8.0, 8.0), measured=True),
    )


def explanation(
    image: Image, finding: Finding, *maps: SaliencyMap, failures: tuple[tuple[str, str], ...] = ()
) -> Explanation:
    return Explanation(
        finding=finding,
        maps=maps,
        equivalent=equivalent_groups(maps),
        failures=failures,
        regions_of=regions,
    )


def anatomy(drawn: OverlayPicture) -> np.ndarray:
    assert drawn.anatomy is not None
    x0, y0, x1, y1 = drawn.anatomy
    return drawn.pixels[y0:y1, x0:x1]


def shown(image: Image) -> np.ndarray:
    return (np.clip(image.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def sharp(values: np.ndarray) -> np.ndarray:
    """Exactly zero away from the blob."""
    return np.where(values < 0.05, 0, values)


def texts(image: Image, one: SaliencyMap, finding: Finding, style: OverlayStyle) -> list[str]:
    blocks = overlay_caption(one, finding, regions(one, spacing_mm=image.spacing_mm), MODEL, style)
    ticks = [tick for block in blocks if isinstance(block, Bar) for tick in block.ticks]
    return [block.text for block in blocks if isinstance(block, Words)] + ticks
