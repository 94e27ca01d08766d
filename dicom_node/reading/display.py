"""From stored grey values to display values, by PS3.3 C.11 and PS3.4 N.2; knows no file and no decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import UnsupportedObject
from dicom_node.reading.groups import frame_item

LOW_PERCENT: Final = 0.1
HIGH_PERCENT: Final = 99.9
DENSE_LEVELS: Final = 1 << 16


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """A LUT of PS3.3 C.11: the value `first` and below gives the first entry, from the last one on the last entry."""

    first: int
    entries: NDArray[np.float64]
    bits: int

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Entries at `values`."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(np.intp)
        chosen: NDArray[np.float64] = self.entries[index]
        return chosen


@dataclass(frozen=True, kw_only=True)
class Window:
    """Window centre, width and function (PS3.3 C.11.2.1)."""

    centre: float
    width: float
    function: str

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 .. 1."""
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):
                sigmoid: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-4.0 * (values - self.centre) / self.width))
            return sigmoid
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.centre) / self.width + 0.5, 0.0, 1.0)
        centre, width = self.centre - 0.5, self.width - 1.0
        if width <= 0:
            return (values > centre).astype(np.float64)
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)


def display_values(stored: NDArray[Any], words: NDArray[Any], header: Dataset, frame: int) -> NDArray[np.float32]:
    """Grey values as a reader would see them.

    Order (PS3.4 N.2): Modality LUT, VOI LUT, inversion. The first VOI LUT of an image is preferred to its first window.
    An image with neither is shown over its stored range when it has 8 bits or fewer, else from the 0.1th to the 99.9th
    percentile of its pixels without padding: a dead pixel or a marker doesn't darken the anatomy. MONOCHROME1 or
    Presentation LUT Shape INVERSE inverts; the two together say the same thing and invert once (PS3.3 C.8.11.3.1.2).

    Parameters
    ----------
    stored : (H, W) integer
        Stored values, unused bits removed.
    words : (H, W) integer
        The same with unused bits, in which Pixel Padding Value may lie outside the used range.
    header : Dataset
    frame : int

    Returns
    -------
    (H, W) float32, 0 black .. 1 white
        Padding is 0, whatever the inversion.
    """
    padding = padding_mask(stored, words, header)
    anatomy = stored[~padding] if padding.any() else stored.ravel()
    if anatomy.size == 0:
        return np.zeros(stored.shape, dtype=np.float32)
    low, high = int(anatomy.min()), int(anatomy.max())
    if high - low < DENSE_LEVELS:
        levels = np.arange(low, high + 1, dtype=np.float64)
        table = _display(levels, anatomy, header, frame).astype(np.float32)
        shown = table[np.clip(stored.astype(np.int64) - low, 0, high - low)]
    else:
        shown = _display(stored.astype(np.float64), anatomy, header, frame).astype(np.float32)
    shown[padding] = 0.0
    return shown


def _display(levels: NDArray[np.float64], anatomy: NDArray[Any], header: Dataset, frame: int) -> NDArray[np.float64]:
    values = modality_values(levels, header, frame)
    shown = voi_values(values, header, frame)
    if shown is None:
        ends = modality_values(_default_range(anatomy, header), header, frame)
        low, high = float(ends.min()), float(ends.max())
        shown = np.clip((values - low) / (high - low), 0.0, 1.0) if high > low else np.zeros_like(values)
    return 1.0 - shown if is_inverted(header) else shown


def _default_range(anatomy: NDArray[Any], header: Dataset) -> NDArray[np.float64]:
    bits = int(header.BitsStored)
    if bits <= 8:
        lowest = -(1 << (bits - 1)) if header.PixelRepresentation == 1 else 0
        return np.array([lowest, lowest + (1 << bits) - 1], dtype=np.float64)
    low = np.percentile(anatomy, LOW_PERCENT, method="lower")
    high = np.percentile(anatomy, HIGH_PERCENT, method="higher")
    return np.array([low, high], dtype=np.float64)


def is_inverted(header: Dataset) -> bool:
    """Whether high values are dark."""
    return bool(header.PhotometricInterpretation == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE")


def modality_values(values: NDArray[np.float64], header: Dataset, frame: int) -> NDArray[np.float64]:
    """Modality LUT Sequence, or Rescale Slope and Intercept, whose slope may be negative (PS3.3 C.11.1)."""
    table = _first_table(header, "ModalityLUTSequence", values)
    if table is not None:
        return table(values)
    item = frame_item(header, frame, "PixelValueTransformationSequence")
    slope, intercept = _number(item.get("RescaleSlope")), _number(item.get("RescaleIntercept"))
    return values * (1.0 if slope is None or slope == 0 else slope) + (intercept or 0.0)


def voi_values(values: NDArray[np.float64], header: Dataset, frame: int) -> NDArray[np.float64] | None:
    """The first VOI LUT or window applied, 0 .. 1; None when the image has neither (PS3.3 C.11.2)."""
    table = _first_table(header, "VOILUTSequence", values)
    if table is not None:
        return np.clip(table(values) / ((1 << table.bits) - 1), 0.0, 1.0)
    window = first_window(frame_item(header, frame, "FrameVOILUTSequence"))
    return window(values) if window is not None else None


def first_window(item: Dataset) -> Window | None:
    """The first of possibly several windows; None when absent or not usable."""
    centre, width = _number(item.get("WindowCenter")), _number(item.get("WindowWidth"))
    function = str(item.get("VOILUTFunction") or "LINEAR")
    if centre is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise UnsupportedObject(f"VOI LUT Function {function} is not known")
    return Window(centre=centre, width=width, function=function)


def padding_mask(stored: NDArray[Any], words: NDArray[Any], header: Dataset) -> NDArray[np.bool_]:
    """Pixels that are no image: Pixel Padding Value, up to Pixel Padding Range Limit (PS3.3 C.7.5.1.1.2)."""
    value = header.get("PixelPaddingValue")
    if not isinstance(value, int):
        return np.zeros(stored.shape, dtype=np.bool_)
    limit = header.get("PixelPaddingRangeLimit")
    ends = sorted(_as_stored(end, header) for end in (value, limit if isinstance(limit, int) else value))
    mask: NDArray[np.bool_] = (words >= ends[0]) & (words <= ends[1])
    if words is not stored and _fits(ends[0], header) and _fits(ends[1], header):
        mask |= (stored >= ends[0]) & (stored <= ends[1])
    return mask


def _as_stored(value: int, header: Dataset) -> int:
    """US or SS: read with the sign that Pixel Representation asks for, however it was encoded."""
    allocated = int(header.BitsAllocated)
    if header.PixelRepresentation == 1:
        return value - (1 << allocated) if value >= 1 << (allocated - 1) else value
    return value + (1 << allocated) if value < 0 else value


def _fits(value: int, header: Dataset) -> bool:
    bits = int(header.BitsStored)
    lowest = -(1 << (bits - 1)) if header.PixelRepresentation == 1 else 0
    return lowest <= value < lowest + (1 << bits)


def _first_table(header: Dataset, keyword: str, values: NDArray[np.float64]) -> LookupTable | None:
    items = header.get(keyword) or []
    if not items or "LUTDescriptor" not in items[0] or "LUTData" not in items[0]:
        return None
    count, first, bits = (int(part) for part in items[0].LUTDescriptor)
    entries = table_entries(items[0].LUTData, count or 65536, bits, header)
    if first >= 1 << 15 and (header.PixelRepresentation == 1 or values.min() < 0):
        first -= 1 << 16
    needed = max(int(entries.max()), 1).bit_length()
    return LookupTable(first=first, entries=entries, bits=min(max(needed, 8), bits) if 8 <= bits <= 16 else needed)


def table_entries(encoded: Any, count: int, bits: int, header: Dataset) -> NDArray[np.float64]:
    """LUT Data as numbers: a list of US values, or OW bytes of one or two octets an entry, in the object's order."""
    if isinstance(encoded, bytes):
        little = header.original_encoding[1] is not False
        narrow = bits <= 8 and len(encoded) < 2 * count
        kind = np.dtype(np.uint8) if narrow else np.dtype("<u2" if little else ">u2")
        entries = np.frombuffer(encoded[: len(encoded) // kind.itemsize * kind.itemsize], dtype=kind)[:count]
    else:
        entries = np.atleast_1d(np.asarray(encoded))[:count].astype(np.int64) & 0xFFFF
    if len(entries) < count:
        raise UnsupportedObject(f"a look-up table has {len(entries)} of {count} entries")
    return entries.astype(np.float64)


def _number(value: Any) -> float | None:
    """The first of possibly several decimal strings."""
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int, float)) and hasattr(value, "__len__"):
        value = value[0] if len(value) else None
    number = float(value) if value is not None else float("nan")
    return number if np.isfinite(number) else None
