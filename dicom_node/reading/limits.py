"""How large a file from outside may be before it is refused; bounds only, no parsing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes over which nothing is parsed, inflated or decoded.

    Attributes
    ----------
    file_bytes : int, byte
        Whole file.
    inflated_bytes : int, byte
        A deflated data set after inflating.
    nesting : int
        Sequences within sequences.
    side : int, pixel
        Rows or columns.
    frame_pixels : int, pixel
        Rows times columns.
    frame_bytes : int, byte
        One decoded frame.
    frames : int
        Number of Frames.
    """

    file_bytes: int = 2 << 30
    inflated_bytes: int = 512 << 20
    nesting: int = 24
    side: int = 16_384
    frame_pixels: int = 64_000_000
    frame_bytes: int = 512 << 20
    frames: int = 20_000


DEFAULT_LIMITS = Limits()
