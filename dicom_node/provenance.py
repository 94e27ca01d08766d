"""Who made a result, from what, under which UID and with which codes; pure values, no file, database or peer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import Final
from uuid import UUID

from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as Concept

__all__ = [
    "CONCEPTS",
    "SERIES_NUMBERS",
    "ClinicalStatus",
    "Concept",
    "Equipment",
    "Provenance",
    "Reason",
    "derived_uid",
    "presence_concept",
    "processing_summary",
    "result_uid",
    "series_uid",
    "tracking_uid",
    "visual_explanation",
]

SERIES_NUMBERS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "secondary-capture": 9001,
        "measurement-report": 9002,
        "measurement-report-fallback": 9002,
        "parametric-map": 9003,
        "segmentation": 9004,
        "presentation-state": 9005,
        "summary-report": 9006,
        "advanced-blending": 9007,
        "notice": 9008,
        "key-object-selection": 9009,
        "encapsulated-pdf": 9010,
    }
)
"""Series Number of each kind of result: high, so that viewers list results after the images of the study."""

_DCM, _SCT, _LN, _UCUM = codes.DCM, codes.SCT, codes.LN, codes.UCUM

CONCEPTS: Final[Mapping[str, Concept]] = MappingProxyType(
    {
        # report titles, sections and plain text (PS3.16 TID 1500, TID 2000, CID 7000, 7001, 7002, 7021)
        "imaging measurement report": _DCM.ImagingMeasurementReport,
        "diagnostic imaging report": _LN.DiagnosticImagingReport,
        "imaging measurements": _DCM.ImagingMeasurements,
        "summary": _LN.Summary,
        "findings": _LN.Findings,
        "finding": _DCM.Finding,
        "conclusion": _DCM.Conclusion,
        "procedure descriptions": _LN.CurrentProcedureDescriptions,
        "procedure description": _DCM.ProcedureDescription,
        "key images": _LN.KeyImages,
        "comment": _DCM.Comment,
        "source": _DCM.SourceOfMeasurement,
        "illustration": _DCM.IllustrationOfROI,
        "source image": _DCM.SourceImageForImageProcessingOperation,
        "source report": _DCM.SourceReport,
        "procedure reported": _DCM.ProcedureReported,
        # what was done, with what (TID 4019, CID 7005, 7162)
        "algorithm name": _DCM.AlgorithmName,
        "algorithm version": _DCM.AlgorithmVersion,
        "algorithm manufacturer": _DCM.AlgorithmManufacturer,
        "algorithm parameters": _DCM.AlgorithmParameters,
        "algorithm family": _DCM.AlgorithmFamily,
        "artificial intelligence": _DCM.ArtificialIntelligence,
        "processing equipment": _DCM.ProcessingEquipment,
        "acquisition equipment": _DCM.AcquisitionEquipment,
        # measurements of a region and the scores of an image (TID 310, 1410, CID 217, 219, 225, 240, 6048, 7464)
        "certainty": _DCM.CertaintyOfFinding,
        "class activation": _DCM.ClassActivation,
        "gradient-weighted class activation": _DCM.GradientWeightedClassActivation,
        "saliency": _DCM.Saliency,
        "area": _SCT.Area,
        "maximum": _SCT.Maximum,
        "derivation": _DCM.Derivation,
        "standard deviation": _SCT.StandardDeviation,
        "below": _SCT.RangeOfLowerMeasurementUncertainty,
        "above": _SCT.RangeOfUpperMeasurementUncertainty,
        "mean": _SCT.Mean,
        "outline": _DCM.Outline,
        "threshold": _DCM.ThresholdValue,
        "abnormal structure": _SCT.MorphologicallyAbnormalStructure,
        "present": _SCT.Present,
        "absent": _SCT.Absent,
        "undetermined": _SCT.Undetermined,
        # units
        "percent": _UCUM.Percent,
        "square millimetre": _UCUM.SquareMillimeter,
        "pixels": Concept("{pixels}", "UCUM", "pixels"),
        # how the processing ended (CID 6042, 6047, 9300, 7011)
        "processing summary": _DCM.CADProcessingAndFindingsSummary,
        "with findings": _DCM.AllAlgorithmsSucceededWithFindings,
        "without findings": _DCM.AllAlgorithmsSucceededWithoutFindings,
        "partly, without findings": _DCM.NotAllAlgorithmsSucceededWithoutFindings,
        "partly, with findings": _DCM.NotAllAlgorithmsSucceededWithFindings,
        "none succeeded": _DCM.NoAlgorithmsSucceededWithoutFindings,
        "outcome": _DCM.SummaryOfDetections,
        "succeeded": _DCM.Succeeded,
        "partially succeeded": _DCM.PartiallySucceeded,
        "failed": _DCM.Failed,
        "not attempted": _DCM.NotAttempted,
        "equipment failure": _DCM.EquipmentFailure,
        "incorrectly formatted": _DCM.ObjectsIncorrectlyFormatted,
        "not supported": _DCM.ObjectTypesNotSupported,
        "set incomplete": _DCM.ObjectSetIncomplete,
        "resource inadequate": _DCM.ResourceInadequate,
        "no image": _DCM.NoImage,
        "quality failure": _DCM.OtherFailure,
        "image quality": _DCM.ImageQuality,
        # the imaging procedure reported on (CID 100)
        "CT procedure": _LN.CTUnspecifiedBodyRegion,
        "MR procedure": _LN.MRIUnspecifiedBodyRegion,
        "XR procedure": _LN.XRUnspecifiedBodyRegion,
        "imaging procedure": _SCT.ImagingProcedure,
    }
)
"""Every coded concept that a result of this node may carry, apart from a model card's own; taken from pydicom's copy of
PS3.16, never written by hand (the unit {pixels} is PS3.16's example of an annotated UCUM unit)."""


class ClinicalStatus(Enum):
    """What a radiologist has to be able to tell apart; the value is the word used in texts and rows."""

    PROCESSED = "processed"
    PARTLY_PROCESSED = "partly processed"
    EXPLANATION_FAILED = "explanation failed"
    NOT_INDICATED = "not in the model's indication"
    UNUSABLE = "images unusable"
    INCOMPLETE = "incomplete set"
    UNSUPPORTED = "unsupported or undecodable object"
    FAILED = "processing failed"

    @property
    def outcome(self) -> Concept:
        """The value of Summary of Detections (PS3.16 CID 6042)."""
        if self is ClinicalStatus.PROCESSED:
            return CONCEPTS["succeeded"]
        if self.answered:
            return CONCEPTS["partially succeeded"]
        return CONCEPTS["failed"] if self is ClinicalStatus.FAILED else CONCEPTS["not attempted"]

    @property
    def default_reason(self) -> str | None:
        """Key in CONCEPTS of the reason that is coded where the caller names none."""
        return _DEFAULT_REASONS.get(self)

    @property
    def answered(self) -> bool:
        """Whether the model gave scores."""
        return self in _ANSWERED


_ANSWERED: Final = (ClinicalStatus.PROCESSED, ClinicalStatus.PARTLY_PROCESSED, ClinicalStatus.EXPLANATION_FAILED)

_DEFAULT_REASONS: Final = {
    ClinicalStatus.NOT_INDICATED: "not supported",
    ClinicalStatus.UNUSABLE: "quality failure",
    ClinicalStatus.INCOMPLETE: "set incomplete",
    ClinicalStatus.UNSUPPORTED: "not supported",
    ClinicalStatus.FAILED: "equipment failure",
}


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why something was not done.

    Attributes
    ----------
    words : str
        One plain sentence without a full stop.
    kind : str
        A short stable word for tests, rows and statistics, such as ``modality`` or ``localizer``.
    concept : str or None
        Key in CONCEPTS of the coded reason; None leaves the code to the status.
    """

    words: str
    kind: str
    concept: str | None = None

    def __post_init__(self) -> None:
        if self.concept is not None and self.concept not in CONCEPTS:
            raise KeyError(self.concept)


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """This node as the device that made a result (PS3.3 C.7.5.1, PS3.16 TID 1004)."""

    manufacturer: str = "camnode project"
    model_name: str = "camnode"
    software_version: str
    device_serial_number: str
    station_name: str
    device_uid: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Everything that decides the bytes of a job's results apart from the images.

    Attributes
    ----------
    card_digest : str
        SHA-256 of the model card: thresholds, fitting and layer decide the pixels as much as the weights do.
    created : datetime, with time zone
        The job's own time, from its row: two builds of one job are equal byte for byte.
    """

    study_uid: str
    route: str
    job_id: str
    model_name: str
    model_version: str
    model_sha256: str
    card_digest: str
    pipeline_version: str
    settings_digest: str
    source_digest: str
    created: datetime
    equipment: Equipment

    def __post_init__(self) -> None:
        if self.created.tzinfo is None:
            raise ValueError("created needs a time zone")

    @property
    def model(self) -> str:
        """Name and version, as shown."""
        return f"{self.model_name} {self.model_version}"


def derived_uid(*parts: str) -> str:
    """A UID that depends on `parts` alone.

    Parameters
    ----------
    parts : str
        Order and division matter: every part is hashed with its length in front.

    Returns
    -------
    str, at most 44 characters
        ``2.25.`` and the decimal value of a version 8 UUID made of the first 128 bits of SHA-256 (PS3.5 B.2, RFC 9562
        section 5.8).
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    octets = bytearray(digest.digest()[:16])
    octets[6] = (octets[6] & 0x0F) | 0x80
    octets[8] = (octets[8] & 0x3F) | 0x80
    return f"2.25.{UUID(bytes=bytes(octets)).int}"


def _result_parts(provenance: Provenance) -> tuple[str, ...]:
    model = (provenance.model_sha256, provenance.card_digest)
    made_with = (*model, provenance.pipeline_version, provenance.settings_digest)
    return (provenance.study_uid, provenance.route, *made_with, provenance.source_digest)


def series_uid(provenance: Provenance, kind: str) -> str:
    """The Series Instance UID of one kind of result (a key of SERIES_NUMBERS) of one job."""
    if kind not in SERIES_NUMBERS:
        raise KeyError(kind)
    return derived_uid("series", *_result_parts(provenance), kind)


def result_uid(provenance: Provenance, kind: str, *facts: str) -> str:
    """The SOP Instance UID of one result: `facts` tell the results of a kind apart (source, finding, method)."""
    if kind not in SERIES_NUMBERS:
        raise KeyError(kind)
    return derived_uid("instance", *_result_parts(provenance), kind, *facts)


def tracking_uid(patient: tuple[str, str], finding: Concept, *place: str) -> str:
    """A Tracking Unique Identifier that stays the same over a patient's studies.

    Parameters
    ----------
    patient : (issuer, ID)
        As in the study; an unknown patient is given a study's UID instead by the caller.
    finding : Concept
    place : str
        What tells the groups of one report apart: method, image and region numbers. Two groups with one tracking UID
        are shown as one by some viewers.
    """
    return derived_uid("tracking", *patient, finding.scheme_designator, finding.value, *place)


def visual_explanation(method: str) -> Concept:
    """What kind of map a method makes (PS3.16 CID 217 Visual Explanation).

    Methods that weight the feature maps by gradients are gradient-weighted class activations, gradient-free ones
    class activations; what weighs no feature maps, such as occlusion, is saliency.
    """
    name = method.partition(":")[0].lower()
    if name in ("cam", "score-cam", "ss-cam", "is-cam", "eigen-cam", "ablation-cam"):
        return CONCEPTS["class activation"]
    if name.endswith(("cam", "cam++")):
        return CONCEPTS["gradient-weighted class activation"]
    return CONCEPTS["saliency"]


def processing_summary(status: ClinicalStatus, any_finding: bool) -> Concept:
    """The value of CAD Processing and Findings Summary (PS3.16 CID 6047)."""
    if status is ClinicalStatus.PROCESSED:
        return CONCEPTS["with findings" if any_finding else "without findings"]
    if status.answered:
        return CONCEPTS["partly, with findings" if any_finding else "partly, without findings"]
    return CONCEPTS["none succeeded"]


def presence_concept(probability: float, threshold: float) -> Concept:
    """Present or Absent by the threshold; Undetermined where the score is not a number (PS3.16 CID 240)."""
    if not 0.0 <= probability <= 1.0:
        return CONCEPTS["undetermined"]
    return CONCEPTS["present" if probability >= threshold else "absent"]
