"""Where tiles and the legend lie on a picture; knows neither maps nor what the words say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw

from cam_core.legend import BLACK, WHITE, Block, Colour, draw_legend, fitted_text, legend_height
from cam_core.lettering import Ink, broken, height, write

TEXT_SHARE = 56
"""The basic text is this part of a picture's longest side."""

TEXT_BOUNDS = (15, 36)
"""Smallest and largest size of the basic text that is tried first, pixel."""

LEGEND_TEXTS = 17
"""Width of a legend, basic text sizes."""


LEAST_LEGEND = 0.85
"""In a grid the legend's basic text is at least this part of the titles': it is read on the same screen."""


def basic_text(side: int) -> int:
    """Basic text size for a picture of this longest side, pixel."""
    return min(max(side // TEXT_SHARE, TEXT_BOUNDS[0]), TEXT_BOUNDS[1])


def beside(tile: PillowImage.Image | None, blocks: Sequence[Block], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A tile with its legend to the right; the canvas grows downwards when the legend needs it.

    Parameters
    ----------
    tile : PIL image or None
        At the upper left corner when there is one.
    blocks : sequence of Block
    size : (width, height), pixel
        Size of the tile, or of the area for the words alone.
    """
    text = basic_text(max(size))
    margin = text
    room = LEGEND_TEXTS * text if tile is not None else size[0] - 2 * margin
    text = fitted_text(blocks, (room, size[1] - 2 * margin), text)
    left = size[0] if tile is not None else 0
    tall = max(size[1], legend_height(blocks, room, text) + 2 * margin)
    canvas = PillowImage.new("RGB", (_even(left + room + 2 * margin), _even(tall)), BLACK)
    if tile is not None:
        canvas.paste(tile, (0, 0))
    draw_legend(canvas, (left + margin, margin), blocks, room, text)
    return np.asarray(canvas)


@dataclass(frozen=True, kw_only=True, eq=False)
class Titled:
    """A tile with the words over it."""

    title: str
    tile: PillowImage.Image
    colour: Colour = WHITE


def grid(tiles: Sequence[Titled], blocks: Sequence[Block]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Tiles of one size in rows, each under its title; the legend has the last place of the last row.

    Returns
    -------
    pixels : (H, W, 3) uint8
    corner : (x, y), pixel
        Upper left corner of the first tile.
    """
    wide, tall = tiles[0].tile.size
    text = basic_text(max(wide, tall) * 2)
    cell = max(wide, LEGEND_TEXTS * text + 2 * text)
    titles = [broken(one.title, text, cell - text) for one in tiles]
    head, gap = height(max(len(lines) for lines in titles), text) + text // 2, text // 2
    columns = _columns(len(tiles) + 1)
    rows = -(-(len(tiles) + 1) // columns)
    row = head + tall + gap
    room = cell - 2 * text
    legend_text = fitted_text(
        blocks, (room, row - 2 * text), min(room // LEGEND_TEXTS, TEXT_BOUNDS[1]), round(text * LEAST_LEGEND)
    )
    legend_tall = legend_height(blocks, room, legend_text) + 2 * text
    canvas = PillowImage.new("RGB", (_even(columns * (cell + gap)), _even((rows - 1) * row + max(row, legend_tall))))
    draw = ImageDraw.Draw(canvas)
    for number, (one, lines) in enumerate(zip(tiles, titles, strict=True)):
        left, top = (number % columns) * (cell + gap), (number // columns) * row
        write(draw, (left + text // 2, top + text // 4), lines, Ink(size=text, colour=one.colour))
        canvas.paste(one.tile, (left, top + head))
    left, top = (columns - 1) * (cell + gap), (rows - 1) * row
    draw_legend(canvas, (left + text, top + text), blocks, room, legend_text)
    return np.asarray(canvas), (0, head)


def _columns(cells: int) -> int:
    """Up to three cells in one row, four in two, more in rows of three."""
    if cells <= 3:
        return cells
    return 2 if cells == 4 else 3


def _even(size: int) -> int:
    return size + size % 2
