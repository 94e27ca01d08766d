"""Colours of map values and their blend with grey; knows no maps and no layout."""

from __future__ import annotations

from functools import lru_cache

import cmap
import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=16)
def colours(name: str) -> NDArray[np.uint8]:
    """256 RGB colours (256, 3) uint8 of a palette, from map value 0 to the map's maximum; not to be written to."""
    table = np.round(np.asarray(cmap.Colormap(name).lut(256))[:, :3] * 255).astype(np.uint8)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=16)
def _blend_table(name: str, opacity: float) -> NDArray[np.uint32]:
    """Packed RGBX of every grey (high byte of the index) under every map level (low byte)."""
    grey = np.arange(256, dtype=np.float64)[:, None, None]
    level = np.arange(256, dtype=np.float64)[None, :, None]
    alpha = opacity * level / 255
    mixed = np.round((1 - alpha) * grey + alpha * colours(name).astype(np.float64)[None])
    packed = np.full((256, 256, 4), 255, dtype=np.uint8)
    packed[..., :3] = mixed
    table: NDArray[np.uint32] = packed.reshape(-1, 4).view(np.uint32).reshape(-1)
    table.setflags(write=False)
    return table


def blend(picture: NDArray[np.uint8], level: NDArray[np.uint8], palette: str, opacity: float) -> NDArray[np.uint8]:
    """Lay a map's colours over a picture: ``(1 - a) * grey + a * colour(m)`` with ``a = opacity * m / 255``.

    Parameters
    ----------
    picture : (H, W) or (H, W, 3) uint8
    level : (H, W) uint8
        Map value, 255 at its maximum; where it is 0 the picture stays as it is.
    palette : str
    opacity : float, 0..1

    Returns
    -------
    (H, W, 4) uint8, RGB and an unused fourth byte
    """
    table = _blend_table(palette, opacity)
    if picture.ndim == 2:
        index = picture.astype(np.uint16)
        index <<= 8
        index |= level
        return np.take(table, index).view(np.uint8).reshape(*picture.shape, 4)
    parts = table.view(np.uint8).reshape(256, 256, 4)
    mixed = np.full((*level.shape, 4), 255, dtype=np.uint8)
    for channel in range(3):
        mixed[..., channel] = parts[picture[..., channel], level, channel]
    return mixed
