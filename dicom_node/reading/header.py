"""A file's attributes without its pixels, every one of them parsed and bounded; knows nothing of what they mean."""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, Final, cast

from pydicom import dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_node.errors import ImageTooLarge, UnreadableFile
from dicom_node.reading.limits import DEFAULT_LIMITS, Limits

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # its warnings quote values of the file: patients' names

TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Value representations that Specific Character Set governs (PS3.5 6.1.2.3)."""

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})

PARSER_FAILURES: Final = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom was seen to raise, or can raise, on bytes that are not what they claim. Not `Exception`: a mistake of
our own such as a failed import must not look like a bad file."""


class Header(Dataset):
    """A data set with the bytes in which its top-level texts came.

    Decoding a text with a wrongly declared character set loses bytes; results have to give a patient's name back as it
    was received, so the bytes are kept beside the decoded values.

    Attributes
    ----------
    verbatim : mapping of tag to (VR, bytes)
        Top-level text elements as received, padding included.
    """

    verbatim: Mapping[int, tuple[str, bytes]]


class ClampedFile(io.BufferedReader):
    """A file that never allocates more than it holds, whatever length an element claims."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(os.fspath(path), "r"), buffer_size=1 << 16)
        self.size: Final = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most the rest of the file."""
        left = max(self.size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def read_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> Header:
    """Every attribute before the pixels.

    Elements whose value can't be parsed as their value representation (private or standard) are left out, as if the
    sender had not sent them: a broken private element must not keep a study from being read.

    Parameters
    ----------
    path : Path
        A DICOM file with preamble and File Meta Information (PS3.10 7.1).
    limits : Limits

    Returns
    -------
    Header
        With `file_meta`; values are converted, nested sequences included.

    Raises
    ------
    UnreadableFile
        The file is no DICOM file, is cut off within an element, or nests too deeply.
    ImageTooLarge
        The file or its inflated data set exceeds the limits.
    """
    return _settled(_parsed(path, limits, stop_before_pixels=True), limits)


def read_data_set(path: Path, limits: Limits = DEFAULT_LIMITS) -> Header:
    """As `read_header`, with the pixels (not decoded)."""
    return _settled(_parsed(path, limits, stop_before_pixels=False), limits)


def _parsed(path: Path, limits: Limits, *, stop_before_pixels: bool) -> Dataset:
    try:
        with ClampedFile(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns with values of the file, which may name a patient
            if file.size > limits.file_bytes:
                raise ImageTooLarge("file size in bytes", file.size, limits.file_bytes)
            source = cast(BinaryIO, _inflated(path, file, limits) or file)
            parsed = dcmread(source, stop_before_pixels=stop_before_pixels)
            if "TransferSyntaxUID" not in parsed.file_meta:
                raise UnreadableFile("the file meta information names no transfer syntax")
            return parsed
    except InvalidDicomError:
        raise UnreadableFile("not a DICOM file: no preamble and prefix") from None
    except RecursionError:
        raise UnreadableFile("sequences are nested too deeply") from None
    except PARSER_FAILURES as failure:
        raise UnreadableFile(f"the data set can't be parsed ({type(failure).__name__})") from failure


def _inflated(path: Path, file: ClampedFile, limits: Limits) -> DicomBytesIO | None:
    """A deflated file as its explicit little endian twin, inflated within the limit; None for any other file."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    if "FileMetaInformationGroupLength" not in meta:
        raise UnreadableFile("deflated, and the length of the file meta information is missing")
    file.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(file.read(), limits.inflated_bytes)
    if inflater.unconsumed_tail:
        raise ImageTooLarge("inflated size in bytes (at least)", limits.inflated_bytes + 1, limits.inflated_bytes)
    if not inflater.eof:
        raise UnreadableFile("the deflated data set is cut off")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    twin = DicomBytesIO()
    twin.write(b"\0" * 128 + b"DICM")
    write_file_meta_info(twin, meta, enforce_standard=False)
    twin.write(body)
    twin.seek(0)
    return twin


def _settled(parsed: Dataset, limits: Limits) -> Header:
    """Convert every element now, so that no later access can fail, and keep the texts' bytes."""
    verbatim = dict(_verbatim_texts(parsed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _convert(parsed, limits.nesting)
            header = Header(parsed)
        except RecursionError:
            raise UnreadableFile("sequences are nested too deeply") from None
    header.file_meta = parsed.file_meta
    implicit, little = parsed.original_encoding
    header.set_original_encoding(implicit, little, parsed.original_character_set)
    header.verbatim = verbatim
    return header


def _verbatim_texts(parsed: Dataset) -> list[tuple[int, tuple[str, bytes]]]:
    texts: list[tuple[int, tuple[str, bytes]]] = []
    for tag in parsed.keys():  # noqa: SIM118 - iterating the data set would convert its elements
        raw = parsed.get_item(tag, keep_deferred=True)
        if isinstance(raw, RawDataElement) and isinstance(raw.value, bytes):
            vr = raw.VR or _dictionary_vr(tag)
            if vr in TEXT_VRS:
                texts.append((int(tag), (vr, raw.value)))
    return texts


def _dictionary_vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _convert(parsed: Dataset, depth: int) -> None:
    if depth == 0:
        raise UnreadableFile("sequences are nested too deeply")
    for tag in list(parsed.keys()):
        raw = parsed.get_item(tag, keep_deferred=True)
        if isinstance(raw, RawDataElement):
            _check_length(raw)
        if tag in PIXEL_TAGS:
            continue
        element = _value_or_none(lambda tag=tag: parsed[tag].value)  # type: ignore[misc]
        if element is _BROKEN:
            del parsed[tag]
        elif isinstance(element, ItemSequence):
            for item in element:
                _convert(item, depth - 1)


_BROKEN: Final = object()


def _value_or_none(value_of: Callable[[], object]) -> object:
    try:
        return value_of()
    except RecursionError:
        raise
    except PARSER_FAILURES:
        return _BROKEN


def _check_length(raw: RawDataElement) -> None:
    """pydicom reads what there is of an element that claims more; a cut-off element is an error here."""
    if raw.tag in PIXEL_TAGS or raw.length == UNDEFINED_LENGTH or raw.value is None:
        return  # cut-off pixels have an error of their own
    if len(raw.value) < raw.length:
        raise UnreadableFile(f"element {raw.tag} claims {raw.length} bytes, {len(raw.value)} are there")
