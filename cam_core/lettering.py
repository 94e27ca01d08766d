"""Text that is surely legible: one bundled font, only glyphs that it has, lines broken to a width; knows no content."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageDraw, ImageFont

LINE_HEIGHT = 1.3
"""Distance of base lines, text size."""

REPLACEMENTS = str.maketrans(
    {
        "–": "-",
        "—": "-",
        "×": "x",
        "≥": ">=",
        "≤": "<=",
        "²": "2",
        "³": "3",
        "µ": "u",
        "μ": "u",
        "ß": "ss",
        "æ": "ae",
        "Æ": "Ae",
        "ø": "o",
        "Ø": "O",
        "ł": "l",
        "Ł": "L",
        "œ": "oe",
        "đ": "d",
        "Đ": "D",
        "→": "->",
    }
)
"""Characters that the font lacks and how they are written instead; accents are left out, anything else becomes "?"."""


@dataclass(frozen=True, kw_only=True)
class Ink:
    """Size (pixel) and colour of text."""

    size: int
    colour: tuple[int, int, int]


@lru_cache(maxsize=64)
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's bundled scalable font at a size in pixels."""
    loaded = ImageFont.load_default(size=size)
    if not isinstance(loaded, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow is built without FreeType, so it has no scalable font")
    return loaded


@lru_cache(maxsize=1)
def _missing_glyph() -> bytes:
    return bytes(font(40).getmask("\uffff"))


@lru_cache(maxsize=1024)
def _has_glyph(character: str) -> bool:
    return character == " " or bytes(font(40).getmask(character)) != _missing_glyph()


@lru_cache(maxsize=1024)
def writable(text: str) -> str:
    """The text in characters that the font has."""
    plain = " ".join(text.translate(REPLACEMENTS).split())
    parts = []
    for character in plain:
        if _has_glyph(character):
            parts.append(character)
            continue
        base = "".join(one for one in unicodedata.normalize("NFKD", character) if not unicodedata.combining(one))
        parts.append(base if base and all(_has_glyph(one) for one in base) else "?")
    return "".join(parts)


@lru_cache(maxsize=4096)
def width(text: str, size: int) -> int:
    """Width of a line, pixel; kept, because the same words stand beside every map of a study."""
    return int(font(size).getlength(text)) + 1


def broken(text: str, size: int, room: int) -> list[str]:
    """The text in lines that are at most `room` pixels wide; a word that is wider by itself is cut."""
    lines: list[str] = []
    for word in writable(text).split(" "):
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and width(joined, size) <= room:
            lines[-1] = joined
            continue
        pieces = _pieces(word, size, room)
        lines.extend(pieces)
    return lines


def _pieces(word: str, size: int, room: int) -> list[str]:
    pieces = [""]
    for character in word:
        if pieces[-1] and width(pieces[-1] + character, size) > room:
            pieces.append("")
        pieces[-1] += character
    return pieces


def height(lines: int, size: int) -> int:
    """Height of so many lines, pixel."""
    return round(lines * size * LINE_HEIGHT)


def write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: list[str], ink: Ink) -> int:
    """Write lines from their upper left corner down; returns the height used, pixel."""
    for number, line in enumerate(lines):
        top = corner[1] + round((number + 0.5) * ink.size * LINE_HEIGHT)
        draw.text((corner[0], top), line, fill=ink.colour, font=font(ink.size), anchor="lm")
    return height(len(lines), ink.size)
