"""Which instances of a study a model may read, and why each other one may not; over headers only, no pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydicom import uid
from pydicom.config import IGNORE
from pydicom.dataset import Dataset

from dicom_node.errors import NotAnImage, ReadingError, UndecodablePixels, UnreadableFile
from dicom_node.provenance import Reason
from dicom_node.reading.codecs import decodable

IMAGE_CLASSES: Final = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.DigitalXRayImageStorageForPresentation,
        uid.DigitalMammographyXRayImageStorageForPresentation,
        uid.XRayAngiographicImageStorage,
        uid.XRayRadiofluoroscopicImageStorage,
        uid.CTImageStorage,
        uid.EnhancedCTImageStorage,
        uid.MRImageStorage,
        uid.EnhancedMRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.NuclearMedicineImageStorage,
        uid.UltrasoundImageStorage,
        uid.UltrasoundMultiFrameImageStorage,
        uid.OphthalmicPhotography8BitImageStorage,
        uid.VLPhotographicImageStorage,
        uid.VLEndoscopicImageStorage,
    }
)
"""Storage classes whose pixels are an image of the patient as acquired, ready to be shown (PS3.4 B.5)."""

FOR_PROCESSING: Final = frozenset(
    {
        uid.DigitalXRayImageStorageForProcessing,
        uid.DigitalMammographyXRayImageStorageForProcessing,
        uid.DigitalIntraOralXRayImageStorageForProcessing,
    }
)

SECONDARY_CAPTURES: Final = frozenset(
    {
        uid.SecondaryCaptureImageStorage,
        uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
    }
)

OWN_MODEL_NAME: Final = "camnode"

PHANTOM_WORDS: Final = re.compile(r"(?<![a-z])(phantom|calibration|flat[ _-]?field)(?![a-z])", re.IGNORECASE)
QUALITY_WORDS: Final = re.compile(
    r"(?<![a-z])(qa|qc|quality (control|assurance)|acceptance test)(?![a-z])", re.IGNORECASE
)
NAME_KEYWORDS: Final = ("PatientName", "PatientID")
DESCRIPTION_KEYWORDS: Final = ("StudyDescription", "SeriesDescription", "ProtocolName", "BodyPartExamined")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """An instance that no model gets to see.

    Attributes
    ----------
    sop_instance_uid, sop_class_uid, series_instance_uid : str
    reason : Reason
        `kind` is one of own-result, not-an-image, secondary-capture, for-processing, localizer, quality-control,
        phantom, undecodable, unsupported, unreadable.
    """

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    reason: Reason


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The instances of a study, divided; both parts in series, acquisition and instance order."""

    images: tuple[Dataset, ...]
    left_out: tuple[LeftOut, ...]


def may_be_image(sop_class_uid: str) -> bool:
    """Whether a file that can't be parsed may have been an image for a model; without a known class it may."""
    return not sop_class_uid or sop_class_uid in IMAGE_CLASSES


def select(headers: Iterable[Dataset]) -> Selection:
    """Divide the instances of a study or series into images for a model and the others.

    Parameters
    ----------
    headers : iterable of Dataset
        As `read_header` gives them, in any order.
    """
    images, left_out = [], []
    for header in sorted(headers, key=_order):
        reason = why_left_out(header)
        if reason is None:
            images.append(header)
        else:
            left_out.append(left_out_entry(header, reason))
    return Selection(images=tuple(images), left_out=tuple(left_out))


def left_out_entry(header: Dataset, reason: Reason) -> LeftOut:
    """An entry for an instance that was refused at any step, for example by the decoder."""
    return LeftOut(
        sop_instance_uid=str(header.get("SOPInstanceUID", "")),
        sop_class_uid=str(header.get("SOPClassUID", "")),
        series_instance_uid=str(header.get("SeriesInstanceUID", "")),
        reason=reason,
    )


def reason_for(error: ReadingError) -> Reason:
    """What a report says about an instance that could not be read."""
    if isinstance(error, NotAnImage):
        return Reason(kind="not-an-image", words=f"{error.sop_class} holds no image", concept="not supported")
    if isinstance(error, UndecodablePixels):
        words = f"Its pixels can't be decoded: {error}"
        return Reason(kind="undecodable", words=words, concept="incorrectly formatted")
    if isinstance(error, UnreadableFile):
        return Reason(kind="unreadable", words=f"It can't be read: {error}", concept="incorrectly formatted")
    return Reason(kind="unsupported", words=f"It is not supported: {error}", concept="not supported")


def why_left_out(header: Dataset) -> Reason | None:
    """The first reason for which a model may not see an instance, None for an image that it may."""
    for rule in _RULES:
        reason = rule(header)
        if reason is not None:
            return reason
    return None


def is_own_result(header: Dataset) -> bool:
    """Whether this node, or another of its kind, made the object (PS3.3 C.7.5.1, C.12.1: Contributing Equipment)."""
    makers = [header, *(header.get("ContributingEquipmentSequence") or [])]
    return any(str(maker.get("ManufacturerModelName", "")).strip().lower() == OWN_MODEL_NAME for maker in makers)


def _own_result(header: Dataset) -> Reason | None:
    if is_own_result(header):
        return Reason(kind="own-result", words="A result of this software, not an image of the patient")
    return None


def _not_an_image(header: Dataset) -> Reason | None:
    sop_class = str(header.get("SOPClassUID", ""))
    if sop_class in SECONDARY_CAPTURES:
        return Reason(kind="secondary-capture", words="A secondary capture, not an acquired image")
    if sop_class in FOR_PROCESSING or header.get("PresentationIntentType") == "FOR PROCESSING":
        return Reason(kind="for-processing", words="Raw detector values that are not for presentation")
    if sop_class not in IMAGE_CLASSES:
        name = uid.UID(sop_class, validation_mode=IGNORE).name if sop_class else "an object without SOP Class"
        if "Rows" in header:
            return Reason(kind="unsupported", words=f"{name} is not read by any model here", concept="not supported")
        return Reason(kind="not-an-image", words=f"{name} holds no image", concept="not supported")
    return None


def _image_type(header: Dataset) -> Reason | None:
    value = header.get("ImageType") or []
    kinds = [str(part).upper() for part in ([value] if isinstance(value, str) else value)]
    if any(word in kinds[2:] for word in ("LOCALIZER", "SCOUT", "TOPOGRAM")):
        return Reason(kind="localizer", words="A localizer for planning, not a diagnostic image")
    if kinds[1:2] == ["SECONDARY"]:
        return Reason(kind="secondary-capture", words="A secondary image (Image Type), not an acquired one")
    return None


def _quality_control(header: Dataset) -> Reason | None:
    if "YES" in (header.get("QualityControlImage"), header.get("QualityControlSubject")):
        return Reason(kind="quality-control", words="Marked as a quality control image")
    texts = [str(header.get(keyword, "")) for keyword in DESCRIPTION_KEYWORDS]
    names = [str(header.get(keyword, "")) for keyword in NAME_KEYWORDS]
    if any(PHANTOM_WORDS.search(text) for text in texts + names) or any(QUALITY_WORDS.search(text) for text in texts):
        return Reason(kind="phantom", words="Its descriptions name a phantom, a calibration or quality control")
    return None


def _pixels(header: Dataset) -> Reason | None:
    meta = getattr(header, "file_meta", None)
    syntax = str(meta.get("TransferSyntaxUID", "")) if meta is not None else ""
    if syntax and not decodable(syntax):
        name = uid.UID(syntax, validation_mode=IGNORE).name
        return Reason(kind="undecodable", words=f"No decoder for transfer syntax {name}", concept="not supported")
    if not header.get("Rows") or not header.get("Columns"):
        return Reason(kind="unsupported", words="An image without rows or columns", concept="incorrectly formatted")
    return None


_RULES: Final[Sequence[Callable[[Dataset], Reason | None]]] = (
    _own_result,
    _not_an_image,
    _image_type,
    _quality_control,
    _pixels,
)


def _order(header: Dataset) -> tuple[int, str, int, str]:
    return (
        _whole(header.get("SeriesNumber")),
        str(header.get("SeriesInstanceUID", "")),
        _whole(header.get("InstanceNumber")),
        str(header.get("SOPInstanceUID", "")),
    )


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 1 << 31
