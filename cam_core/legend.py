"""The column of words beside a picture: blocks of text, boxes and a colour bar, fitted to a height; knows no maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image as PillowImage
from PIL import ImageDraw

from cam_core.lettering import Ink, broken, height, width, writable, write
from cam_core.palette import colours

Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
QUIET: Colour = (200, 200, 200)
AMBER: Colour = (255, 205, 90)
BLACK: Colour = (0, 0, 0)
RED: Colour = (150, 16, 16)
DARK: Colour = (64, 46, 0)
RULE: Colour = (90, 90, 90)

SMALLEST_TEXT = 13
"""Smallest size of the basic text, pixel; a legend that needs more height gets it."""


@dataclass(frozen=True, kw_only=True)
class Words:
    """A paragraph; `size` in basic text sizes, `box` the colour behind it."""

    text: str
    size: float = 1.0
    colour: Colour = QUIET
    box: Colour | None = None


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A colour bar with a name and a label at each of its evenly spaced ticks, from the bottom (0) to the top."""

    palette: str
    title: str
    ticks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A thin line between parts."""


Block = Words | Bar | Rule

BAR_HEIGHT = 8.5
"""Height of the bar, basic text sizes."""


def legend_height(blocks: Sequence[Block], room: int, text: int) -> int:
    """Height of the blocks in `room` pixels of width, pixel, without the margins outside."""
    return sum(_block_height(block, room, text) for block in blocks) + _gap(text) * max(len(blocks) - 1, 0)


def fitted_text(blocks: Sequence[Block], size: tuple[int, int], text: int, least: int = SMALLEST_TEXT) -> int:
    """The largest basic text size up to `text` with which the blocks fit a (width, height) area, or the `least`."""
    while text > least and legend_height(blocks, size[0], text) > size[1]:
        text -= 1
    return text


def draw_legend(
    canvas: PillowImage.Image, corner: tuple[int, int], blocks: Sequence[Block], room: int, text: int
) -> None:
    """Draw blocks on a canvas from their upper left corner down, `room` pixels wide."""
    draw = ImageDraw.Draw(canvas)
    left, top = corner
    for block in blocks:
        used = _block_height(block, room, text)
        if isinstance(block, Words):
            _draw_words(draw, (left, top), block, room, text)
        elif isinstance(block, Bar):
            _draw_bar(canvas, (left, top), block, room, text)
        else:
            draw.line((left, top + used // 2, left + room - 1, top + used // 2), fill=RULE, width=max(text // 16, 1))
        top += used + _gap(text)


def _gap(text: int) -> int:
    return round(text * 0.35)


def _inset(block: Words, text: int) -> int:
    return round(text * 0.5) if block.box else 0


def _words_lines(block: Words, room: int, text: int) -> tuple[list[str], int]:
    size = round(text * block.size)
    return broken(block.text, size, room - 2 * _inset(block, text)), size


def _block_height(block: Block, room: int, text: int) -> int:
    if isinstance(block, Words):
        lines, size = _words_lines(block, room, text)
        return height(len(lines), size) + 2 * _inset(block, text)
    if isinstance(block, Bar):
        return height(len(broken(block.title, text, room)), text) + round((BAR_HEIGHT + 1.4) * text)
    return max(round(text * 0.4), 3)


def _draw_words(draw: ImageDraw.ImageDraw, corner: tuple[int, int], block: Words, room: int, text: int) -> None:
    lines, size = _words_lines(block, room, text)
    inset = _inset(block, text)
    if block.box:
        bottom = corner[1] + height(len(lines), size) + 2 * inset
        draw.rectangle((corner[0], corner[1], corner[0] + room - 1, bottom - 1), fill=block.box)
    write(draw, (corner[0] + inset, corner[1] + inset), lines, Ink(size=size, colour=block.colour))


def _draw_bar(canvas: PillowImage.Image, corner: tuple[int, int], bar: Bar, room: int, text: int) -> None:
    """Title, then the palette with its greatest value on top, a tick and a label at every step."""
    draw = ImageDraw.Draw(canvas)
    left = corner[0]
    top = corner[1] + round(text * 0.7)
    top += write(draw, corner, broken(bar.title, text, room), Ink(size=text, colour=QUIET))
    wide, tall = round(text * 1.8), round(text * BAR_HEIGHT)
    strip = PillowImage.fromarray(colours(bar.palette)[::-1].reshape(256, 1, 3).copy())
    canvas.paste(strip.resize((wide, tall), PillowImage.Resampling.BILINEAR), (left, top))
    draw.rectangle((left, top, left + wide - 1, top + tall - 1), outline=WHITE, width=max(text // 16, 1))
    ink = Ink(size=text, colour=WHITE)
    line = height(1, text)
    for number, label in enumerate(bar.ticks):
        level = top + round((tall - 1) * (1 - number / (len(bar.ticks) - 1)))
        draw.line((left + wide, level, left + wide + text // 2, level), fill=WHITE, width=max(text // 12, 1))
        shown = writable(label)
        while width(shown, text) > room - wide - text and len(shown) > 1:
            shown = shown[:-1]
        write(draw, (left + wide + text, level - line // 2), [shown], ink)
