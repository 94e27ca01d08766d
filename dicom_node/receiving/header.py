"""Identifiers and routing attributes from the start of an encoded data set; never reads pixels, never inflates all."""

import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_node.errors import InvalidUID, MissingSeriesUID, MissingStudyUID, MissingUID, UnreadableDataSet
from dicom_node.receiving.instance import AttributeValue

#: bytes of the (inflated) data set that are looked at; enough for everything but sequences of thousands of references
FIRST_LOOK = 256 * 1024
#: bytes looked at when the study isn't named within the first look: large reference sequences stand before group 0020
SECOND_LOOK = 16 * 1024 * 1024
#: longest text kept of one value, characters
LONGEST_TEXT = 1024
#: deflated explicit VR little endian, JPIP referenced deflate, JPIP HTJ2K referenced deflate
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

ROUTING_KEYWORDS = (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "Modality",
    "PresentationIntentType", "Manufacturer", "InstitutionName", "StationName", "StudyDescription", "SeriesDescription",
    "ManufacturerModelName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
    "BodyPartExamined", "ProtocolName", "ViewPosition", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "InstanceNumber", "Laterality", "ImageLaterality", "NumberOfFrames", "PhotometricInterpretation", "Rows", "Columns",
    "RequestedProcedurePriority", "PatientName", "StudyID", "ReferringPhysicianName",
)  # fmt: skip
_TAGS = [Tag(tag) for keyword in ROUTING_KEYWORDS if (tag := tag_for_keyword(keyword)) is not None]
_LAST_TAG = int(max(_TAGS))
_NUMERIC = frozenset(keyword for keyword in ROUTING_KEYWORDS if dictionary_VR(keyword) in {"IS", "DS", "US", "UL"})
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
#: what pydicom raises on bytes from outside (it declares none of them)
_PARSER_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, EOFError, OSError, MemoryError,
    struct.error, InvalidDicomError, BytesLengthException,
)  # fmt: skip
_MISSING = {"StudyInstanceUID": MissingStudyUID, "SeriesInstanceUID": MissingSeriesUID}
_IDENTIFIERS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a data set says about itself: four checked identifiers and the routing attributes by keyword."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    attributes: Mapping[str, AttributeValue]


def read_header(encoded: bytes, transfer_syntax_uid: str) -> Header:
    """Read the identifiers and routing attributes of an encoded data set.

    Parameters
    ----------
    encoded : bytes
        The data set without group 2, in the given transfer syntax. At most `SECOND_LOOK` bytes are looked at.

    Raises
    ------
    MissingStudyUID, MissingSeriesUID, MissingUID
        An identifier that every composite instance has (PS3.3 A.1.2) is absent.
    InvalidUID
        An identifier isn't a UID (see `check_uid`).
    UnreadableDataSet
        The bytes aren't a data set in this transfer syntax.
    """
    ds = _parse(encoded, transfer_syntax_uid, FIRST_LOOK)
    if "StudyInstanceUID" not in ds and _size(encoded, transfer_syntax_uid) > FIRST_LOOK:
        ds = _parse(encoded, transfer_syntax_uid, SECOND_LOOK)
    if not len(ds):
        raise UnreadableDataSet("no known attribute at the start of the data set")
    attributes = {keyword: value for keyword in ROUTING_KEYWORDS if (value := _plain(ds, keyword)) is not None}
    uids = {keyword: _identifier(attributes, keyword) for keyword in _IDENTIFIERS}
    return Header(
        sop_class_uid=uids["SOPClassUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        attributes=attributes,
    )


def check_uid(uid: str, keyword: str) -> str:
    """Give back a UID that is safe and usable, or raise InvalidUID.

    PS3.5 section 9.1: digits and single dots, at most 64 characters. One rule is relaxed: components with leading zeros
    are taken, because devices in the field send them and they do no harm. Anything else (letters, slashes, empty
    components) is not.
    """
    if len(uid) > 64 or _UID.fullmatch(uid) is None:
        raise InvalidUID(keyword)
    return uid


def _identifier(attributes: Mapping[str, AttributeValue], keyword: str) -> str:
    """Take one identifier, checked."""
    uid = attributes.get(keyword)
    if uid is None or uid == "":
        raise _MISSING.get(keyword, MissingUID)(keyword)
    if not isinstance(uid, str):
        raise InvalidUID(keyword)
    return check_uid(uid, keyword)


def _size(encoded: bytes, transfer_syntax_uid: str) -> int:
    """Size of what could be looked at; of a deflated data set only that it may be more than the first look."""
    return SECOND_LOOK if transfer_syntax_uid in DEFLATED else len(encoded)


def _start(encoded: bytes, transfer_syntax_uid: str, limit: int) -> bytes:
    """Take at most `limit` bytes of the data set, inflating no more than that (PS3.5 A.5: raw deflate)."""
    if transfer_syntax_uid not in DEFLATED:
        return encoded[:limit]
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, limit)
    except zlib.error as error:
        raise UnreadableDataSet("the deflated data set can't be inflated") from error


def _parse(encoded: bytes, transfer_syntax_uid: str, limit: int) -> Dataset:
    """Parse up to the last routing attribute. A value that was cut off is left out."""
    uid = UID(transfer_syntax_uid)
    try:
        ds = read_dataset(
            BytesIO(_start(encoded, transfer_syntax_uid, limit)),
            is_implicit_VR=uid == ImplicitVRLittleEndian,
            is_little_endian=uid != ExplicitVRBigEndian,
            stop_when=_is_past,
            specific_tags=[*_TAGS],
        )
    except RecursionError as error:
        raise UnreadableDataSet("sequences are nested too deeply") from error
    except _PARSER_ERRORS as error:
        raise UnreadableDataSet("the data set can't be parsed") from error
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        if isinstance(raw.value, bytes) and len(raw.value) < getattr(raw, "length", 0):
            del ds[tag]
    return ds


def _is_past(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    """Stop after the last routing attribute, well before any pixel."""
    return int(tag) > _LAST_TAG


def _plain(ds: Dataset, keyword: str) -> AttributeValue | None:
    """Give one value as plain JSON, or None when it is absent, empty or broken."""
    try:
        value: Any = ds.get(keyword)
        if value is None:
            return None
        numeric = keyword in _NUMERIC
        if isinstance(value, MultiValue | list):
            return [_scalar(part, numeric) for part in value] or None
        plain = _scalar(value, numeric)
    except _PARSER_ERRORS:
        return None
    return None if plain == "" else plain


def _scalar(value: object, numeric: bool) -> str | int | float:
    """Give one value as text or number; raises ValueError when it is neither, or no number where one belongs."""
    if isinstance(value, bytes):
        raise ValueError("bytes that pydicom could not decode")
    if not numeric:
        return str(value).rstrip("\0 ")[:LONGEST_TEXT]
    if isinstance(value, int):
        return int(value)
    number = float(str(value))
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number
