"""Stored pixel values of one frame, by a named decoder for every transfer syntax; knows nothing of display.

python-gdcm is never used: its decoders and encoders abort the process on malformed or odd-sized pixels, so its plug-ins
are taken out of pydicom's tables when this module is imported.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.encoders.base import get_encoder

from dicom_node.errors import ImageTooLarge, TruncatedPixels, UndecodablePixels, UnsupportedObject
from dicom_node.reading.header import PARSER_FAILURES
from dicom_node.reading.limits import Limits

NATIVE: Final = frozenset(
    {
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.DeflatedExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
    }
)

PLUGINS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(NATIVE, ""),
        uid.JPEGBaseline8Bit: "pylibjpeg",
        uid.JPEGExtended12Bit: "pylibjpeg",
        uid.JPEGLossless: "pylibjpeg",
        uid.JPEGLosslessSV1: "pylibjpeg",
        uid.JPEGLSLossless: "pyjpegls",
        uid.JPEGLSNearLossless: "pyjpegls",
        uid.JPEG2000Lossless: "pylibjpeg",
        uid.JPEG2000: "pylibjpeg",
        uid.HTJ2KLossless: "pylibjpeg",
        uid.HTJ2KLosslessRPCL: "pylibjpeg",
        uid.HTJ2K: "pylibjpeg",
        uid.RLELossless: "pydicom",  # pylibjpeg's panics on malformed runs, past every `except Exception`
    }
)
"""Transfer syntaxes that are decoded here and the pydicom plug-in that does it ("" for its own native reader)."""

RLE_BEST_RATIO: Final = 64
"""A PackBits run of 128 equal bytes takes two (PS3.5 G.3.1); nothing can be denser."""

FORBIDDEN_PLUGIN: Final = "gdcm"


def _forbid_gdcm() -> None:
    for syntax in PLUGINS:
        for table in (get_decoder, get_encoder):
            try:
                table(uid.UID(syntax)).remove_plugin(FORBIDDEN_PLUGIN)
            except (NotImplementedError, ValueError):
                continue  # no coder for this syntax, or no such plug-in in it


_forbid_gdcm()


def decodable(transfer_syntax: str) -> bool:
    """Whether pixels in this transfer syntax are decoded here."""
    return transfer_syntax in PLUGINS


def stored_values(data_set: Dataset, frame: int, limits: Limits) -> tuple[NDArray[Any], str]:
    """Decode one frame.

    Parameters
    ----------
    data_set : Dataset
        With pixels and `file_meta`.
    frame : int
        From 0.
    limits : Limits

    Returns
    -------
    values : (H, W) or (H, W, 3) integer array
        Values as stored; unused bits of native and RLE pixels are still there (see `used_bits`).
    photometric : str
        Photometric Interpretation of `values`: YBR_FULL and YBR_FULL_422 have become RGB.

    Raises
    ------
    ImageTooLarge, TruncatedPixels, UndecodablePixels, UnsupportedObject
    """
    syntax = str(data_set.file_meta.TransferSyntaxUID)
    if not decodable(syntax):
        raise UndecodablePixels(syntax, "no decoder for this transfer syntax")
    _check_size(data_set, frame, limits)
    if syntax in NATIVE:
        _check_native_length(data_set, syntax)
    else:
        _check_encapsulated(data_set, frame, syntax)
    options: dict[str, Any] = {"correct_unused_bits": False} if syntax in NATIVE or syntax == uid.RLELossless else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # texts may hold values of the file
            decoder: Any = get_decoder(uid.UID(syntax))
            values, facts = decoder.as_array(data_set, index=frame, decoding_plugin=PLUGINS[syntax], **options)
    except (*PARSER_FAILURES, RuntimeError) as failure:  # the latter for a codestream that a decoder refused
        raise UndecodablePixels(syntax, f"the decoder refused the pixels ({type(failure).__name__})") from failure
    return values, str(facts["photometric_interpretation"])


def used_bits(values: NDArray[Any], header: Dataset) -> NDArray[Any]:
    """Keep Bits Stored bits up to High Bit and extend the sign (PS3.5 8.1.1); the others may hold overlays or noise."""
    stored, allocated, high = int(header.BitsStored), int(header.BitsAllocated), int(header.HighBit)
    if stored >= allocated or stored > values.dtype.itemsize * 8:
        return values
    width = values.dtype.itemsize * 8
    left = width - 1 - high
    if left < 0 or high + 1 < stored:
        raise UnsupportedObject(f"high bit {high} does not fit {stored} of {allocated} bits")
    aligned: NDArray[Any] = np.right_shift(np.left_shift(values, left), width - stored)  # arithmetic where signed
    return aligned


def number_of_frames(header: Dataset) -> int:
    """Number of Frames, 1 where absent or empty."""
    try:
        return max(int(header.get("NumberOfFrames") or 1), 1)
    except (TypeError, ValueError):
        raise UnsupportedObject("the number of frames is no number") from None


def _check_size(data_set: Dataset, frame: int, limits: Limits) -> None:
    rows, columns = int(data_set.Rows), int(data_set.Columns)
    frames = number_of_frames(data_set)
    sample_bytes = (int(data_set.BitsAllocated) + 7) // 8
    measures = (
        ("rows", rows, limits.side),
        ("columns", columns, limits.side),
        ("number of frames", frames, limits.frames),
        ("pixels of a frame", rows * columns, limits.frame_pixels),
        ("bytes of a frame", rows * columns * int(data_set.SamplesPerPixel) * sample_bytes, limits.frame_bytes),
    )
    for measure, value, limit in measures:
        if value > limit:
            raise ImageTooLarge(measure, value, limit)
    if rows < 1 or columns < 1:
        raise UnsupportedObject("the image has no rows or no columns")
    if not 0 <= frame < frames:
        raise UnsupportedObject(f"frame {frame + 1} was asked for, the object has {frames}")


def _frame_bytes(data_set: Dataset) -> int:
    bits = int(data_set.Rows) * int(data_set.Columns) * int(data_set.SamplesPerPixel) * int(data_set.BitsAllocated)
    if data_set.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits // 3 * 2
    return (bits + 7) // 8


def _check_native_length(data_set: Dataset, syntax: str) -> None:
    expected = _frame_bytes(data_set) * number_of_frames(data_set)
    actual = len(data_set.PixelData)
    if actual < expected:
        raise TruncatedPixels(syntax, expected, actual)


def _check_encapsulated(data_set: Dataset, frame: int, syntax: str) -> None:
    """Refuse a codestream of another size than the attributes claim before a decoder allocates for it."""
    try:
        codestream = get_frame(data_set.PixelData, frame, number_of_frames=number_of_frames(data_set))
    except PARSER_FAILURES as failure:
        raise UndecodablePixels(syntax, "the encapsulated fragments can't be parsed") from failure
    if syntax == uid.RLELossless:
        if len(codestream) * RLE_BEST_RATIO < int(data_set.Rows) * int(data_set.Columns):
            raise UndecodablePixels(syntax, f"{len(codestream)} bytes can't hold the frame")
        return
    size = _jpeg2000_size(codestream) or _jpeg_size(codestream)
    if size is None:
        raise UndecodablePixels(syntax, "no codestream of a known kind in the frame")
    if size != (int(data_set.Rows), int(data_set.Columns)):
        claimed = f"{data_set.Rows} x {data_set.Columns}"
        raise UndecodablePixels(syntax, f"the codestream is {size[0]} x {size[1]}, the attributes say {claimed}")


def _jpeg2000_size(codestream: bytes) -> tuple[int, int] | None:
    """Rows and columns of the SIZ marker segment, raw or within a JP2 box (ISO/IEC 15444-1 A.5.1)."""
    start = codestream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or start + 24 > len(codestream):
        return None
    x_size, y_size, x_offset, y_offset = (
        int.from_bytes(codestream[start + 8 + 4 * i : start + 12 + 4 * i], "big") for i in range(4)
    )
    return y_size - y_offset, x_size - x_offset


def _jpeg_size(codestream: bytes) -> tuple[int, int] | None:
    """Lines and samples per line of the frame header (ISO/IEC 10918-1 B.2.2, ISO/IEC 14495-1 C.2.2)."""
    if codestream[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(codestream):
        if codestream[at] != 0xFF:
            return None
        marker = codestream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            lines = int.from_bytes(codestream[at + 5 : at + 7], "big")
            return lines, int.from_bytes(codestream[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(codestream[at + 2 : at + 4], "big")
    return None
