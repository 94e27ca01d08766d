"""Attributes of one frame from the top level or its functional groups (PS3.3 C.7.6.16); no pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pydicom.dataset import Dataset


def functional_groups(header: Dataset, frame: int, keyword: str) -> Iterator[Dataset]:
    """Items of the macro `keyword` for a frame: its own first, then the shared ones."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for group in [*per_frame[frame : frame + 1], *shared[:1]]:
        yield from (group.get(keyword) or [])[:1]


def frame_item(header: Dataset, frame: int, keyword: str) -> Dataset:
    """Where to look for the attributes of macro `keyword`: its functional group item, else the data set itself."""
    return next(functional_groups(header, frame, keyword), header)


def frame_count(header: Dataset) -> int:
    """Number of Frames; 1 where it is absent or no number."""
    try:
        return max(int(header.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError):
        return 1


def spacing_mm(header: Dataset, frame: int = 0) -> tuple[float, float] | None:
    """Distance of pixel centres in the patient (row, column), mm; None when it is not known.

    Only Pixel Spacing counts. Imager Pixel Spacing is measured at the detector, where a projection is larger than the
    patient (PS3.3 10.7.1.3), and zero, negative or non-finite values are no measurement.
    """
    values = frame_item(header, frame, "PixelMeasuresSequence").get("PixelSpacing")
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != 2:
        return None
    row, column = float(values[0]), float(values[1])
    if all(math.isfinite(value) and value > 0 for value in (row, column)):
        return row, column
    return None


def spacing_remark(header: Dataset) -> str | None:
    """What a reader of millimetres should know about a projection image's Pixel Spacing (PS3.3 10.7.1.1)."""
    if spacing_mm(header) is None or "ImagerPixelSpacing" not in header:
        return None
    kind = header.get("PixelSpacingCalibrationType")
    if kind:
        return f"Pixel Spacing of the projection is calibrated ({kind})"
    return "Pixel Spacing of the projection is not corrected for magnification"
