"""A result as the bytes of a DICOM file, the same bytes for the same object every time; knows no content."""

from __future__ import annotations

import io
import os
import warnings
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


def encoded(result: Dataset) -> bytes:
    """The file's bytes: preamble, File Meta Information and data set in Explicit VR Little Endian (PS3.10 7.1).

    Raises
    ------
    ObjectError
        An attribute that can't be encoded.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    file = Dataset(result)
    _keep_verbatim(file, convert_encodings(file.get("SpecificCharacterSet")))
    file.file_meta = meta
    file.preamble = b"\0" * 128
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings quote values of the patient
            dcmwrite(buffer, file, enforce_file_format=True)
    except (AttributeError, LookupError, OSError, OverflowError, TypeError, ValueError) as failure:
        raise ObjectError(f"the object can't be encoded ({type(failure).__name__})") from failure
    return buffer.getvalue()


def _keep_verbatim(file: Dataset, encodings: list[str]) -> None:
    """Tell pydicom that raw elements already are in the file's encoding, or it decodes texts and encodes them anew."""
    file.set_original_encoding(False, True, encodings)
    for tag in list(file.keys()):
        element = file.get_item(tag, keep_deferred=True)
        if isinstance(element, DataElement) and element.VR == "SQ":
            for item in element.value:
                _keep_verbatim(item, encodings)


def write(result: Dataset, path: Path) -> None:
    """Write a result under a temporary name, flush it to the disk and rename it: a reader sees all of it or nothing.

    A second run of the same job puts the same bytes in the same place.

    Raises
    ------
    ObjectError
        An attribute that can't be encoded.
    OSError
        The file can't be written.
    """
    content = encoded(result)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
