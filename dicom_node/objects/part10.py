"""A result as the bytes of a DICOM file, the same bytes for the same object every time; knows no content."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydicom import dcmwrite
from pydicom.charset import convert_encodings
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicom_node.errors import ObjectError
from dicom_node.provenance import derived_uid

IMPLEMENTATION_CLASS_UID: Final = UID(derived_uid("camnode", "implementation class"))
IMPLEMENTATION_VERSION_NAME: Final = "CAMNODE"


PIXEL_DATA: Final = 0x7FE00010
#: filters of warnings belong to the whole process
_ONE_AT_A_TIME: Final = threading.Lock()


def encoded(result: Dataset) -> bytes:
    """The file's bytes: preamble, File Meta Information and data set in Explicit VR Little Endian (PS3.10 7.1).

    Raises
    ------
    ObjectError
        An attribute that can't be encoded.
    """
    return b"".join(_chunks(result))


def _chunks(result: Dataset) -> Iterator[bytes]:
    """The same bytes in order, without a copy of the pixels: they go last and as they are."""
    pixels = _plain_pixels(result)
    file = Dataset(result)
    if pixels is not None:
        del file[PIXEL_DATA]
    _keep_verbatim(file, convert_encodings(file.get("SpecificCharacterSet")))
    file.file_meta = _file_meta(result)
    file.preamble = b"\0" * 128
    buffer = io.BytesIO()
    try:
        with _ONE_AT_A_TIME, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings quote values of the patient
            dcmwrite(buffer, file, enforce_file_format=True)
    except (AttributeError, LookupError, OSError, OverflowError, TypeError, ValueError) as failure:
        raise ObjectError(f"the object can't be encoded ({type(failure).__name__})") from failure
    yield buffer.getvalue()
    if pixels is not None:
        yield struct.pack("<HH2sHI", PIXEL_DATA >> 16, PIXEL_DATA & 0xFFFF, b"OB", 0, len(pixels))  # PS3.5 7.1.2
        yield pixels


def _plain_pixels(result: Dataset) -> bytes | None:
    """Pixel Data when its bytes can follow the rest unchanged: OB, uncompressed, of even length, the last element."""
    if PIXEL_DATA not in result or max(result.keys()) != PIXEL_DATA:
        return None
    element = result[PIXEL_DATA]
    value = element.value
    if element.VR != "OB" or element.is_undefined_length or not isinstance(value, bytes) or len(value) % 2:
        return None
    return value


def _file_meta(result: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    return meta


def _keep_verbatim(file: Dataset, encodings: list[str]) -> None:
    """Tell pydicom that raw elements already are in the file's encoding, or it decodes texts and encodes them anew."""
    file.set_original_encoding(False, True, encodings)
    for tag in list(file.keys()):
        element = file.get_item(tag, keep_deferred=True)
        if isinstance(element, DataElement) and element.VR == "SQ":
            for item in element.value:
                _keep_verbatim(item, encodings)


def write(result: Dataset, path: Path) -> None:
    """Write a result under a temporary name and rename it: a reader sees all of it or nothing.

    It is not flushed to the disk: what is kept for sending is made durable where it is kept, and a second run of the
    same job puts the same bytes in the same place.

    Raises
    ------
    ObjectError
        An attribute that can't be encoded.
    OSError
        The file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb", buffering=0) as file:
        for chunk in _chunks(result):
            _write_all(file, chunk)
    temporary.replace(path)


def _write_all(file: io.FileIO, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        left = left[file.write(left) :]
