"""From a file to an `Image`: the one place where pixels of outside files become numbers; knows no model and no network.

Runs in a child process with bounded memory and time; what it raises is a `ReadingError`.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.config import IGNORE
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID

from cam_core.image import Image
from dicom_node.errors import NotAnImage, ReadingError, UndecodablePixels, UnsupportedObject
from dicom_node.reading.codecs import stored_values, used_bits
from dicom_node.reading.display import display_values, table_entries
from dicom_node.reading.groups import spacing_mm
from dicom_node.reading.header import PARSER_FAILURES, Header, read_data_set
from dicom_node.reading.limits import DEFAULT_LIMITS, Limits

GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
PIXEL_KEYWORDS: Final = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PhotometricInterpretation",
)


def read_image(path: Path, frame: int = 0, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Display pixels of one frame with their millimetres.

    Parameters
    ----------
    path : Path
        A DICOM file.
    frame : int
        From 0.
    limits : Limits

    Returns
    -------
    Image
        (H, W) or (H, W, 3) float32, 0 black .. 1 white, whatever the photometric interpretation; spacing (row, column)
        in mm or None.

    Raises
    ------
    ReadingError
        One of its children, for whatever is wrong with the file.
    """
    data_set = read_data_set(path, limits)
    try:
        return image_of(data_set, frame, limits)
    except ReadingError:
        raise
    except PARSER_FAILURES as failure:
        raise UnsupportedObject(f"the pixels' attributes are no use together ({type(failure).__name__})") from failure


def image_of(data_set: Header, frame: int, limits: Limits) -> Image:
    """As `read_image`, from a data set that holds its pixels."""
    _check_attributes(data_set)
    words, photometric = stored_values(data_set, frame, limits)
    if photometric in GREY:
        pixels = display_values(used_bits(words, data_set), words, data_set, frame)
    elif photometric == "PALETTE COLOR":
        pixels = _palette_colours(used_bits(words, data_set), data_set)
    elif photometric == "RGB":
        pixels = _full_range(used_bits(words, data_set), data_set)
    else:
        raise UnsupportedObject(f"photometric interpretation {photometric}")
    return Image(pixels=np.ascontiguousarray(pixels, dtype=np.float32), spacing_mm=spacing_mm(data_set, frame))


def _check_attributes(data_set: Dataset) -> None:
    if "PixelData" not in data_set:
        if "FloatPixelData" in data_set or "DoubleFloatPixelData" in data_set:
            raise UnsupportedObject("floating point pixels")
        raise NotAnImage(UID(str(data_set.get("SOPClassUID", "")), validation_mode=IGNORE).name or "no SOP class")
    missing = [keyword for keyword in PIXEL_KEYWORDS if data_set.get(keyword) in (None, "")]
    if missing:
        raise UndecodablePixels(str(data_set.file_meta.TransferSyntaxUID), f"missing {', '.join(missing)}")
    allocated, stored = int(data_set.BitsAllocated), int(data_set.BitsStored)
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated:
        raise UnsupportedObject(f"{stored} bits stored of {allocated} allocated")
    if int(data_set.SamplesPerPixel) not in (1, 3):
        raise UnsupportedObject(f"{data_set.SamplesPerPixel} samples per pixel")


def _full_range(values: NDArray[Any], header: Dataset) -> NDArray[np.float32]:
    if values.ndim != 3:
        raise UnsupportedObject("a colour image with one sample per pixel")
    bits = min(int(header.BitsStored), values.dtype.itemsize * 8)
    return (values / float((1 << bits) - 1)).astype(np.float32)


def _palette_colours(values: NDArray[Any], header: Dataset) -> NDArray[np.float32]:
    """Red, green and blue of the Palette Color Lookup Table (PS3.3 C.7.9)."""
    if "RedPaletteColorLookupTableDescriptor" not in header:
        raise UnsupportedObject("a palette image without its palette")
    count, first, bits = (int(part) for part in header.RedPaletteColorLookupTableDescriptor)
    if "RedPaletteColorLookupTableData" not in header:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            colours = apply_color_lut(values, header)[..., :3]  # segmented tables are expanded by pydicom
        return (colours / float(np.iinfo(colours.dtype).max)).astype(np.float32)
    index = np.clip(values.astype(np.int64) - first, 0, (count or 65536) - 1)
    channels = []
    for colour in ("Red", "Green", "Blue"):
        entries = table_entries(header[f"{colour}PaletteColorLookupTableData"].value, count or 65536, bits, header)
        channels.append(entries[index])
    pixels = np.stack(channels, axis=-1)
    white = 255.0 if bits <= 8 or pixels.max() <= 255 else 65535.0
    return np.clip(pixels / white, 0.0, 1.0).astype(np.float32)
