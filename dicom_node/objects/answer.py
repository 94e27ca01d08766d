"""What the node answers to one study, as one value that every builder takes; holds no pixels, makes no object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydicom import uid
from pydicom.dataset import Dataset

from cam_core.card import ModelCard
from cam_core.explanation import Explanation
from cam_core.finding import Finding, Prediction, percent
from dicom_node.provenance import CONCEPTS, ClinicalStatus, Concept, Reason
from dicom_node.reading.groups import frame_count
from dicom_node.reading.selection import LeftOut

SINGLE_FRAME: Final = frozenset(
    {
        uid.ComputedRadiographyImageStorage,
        uid.CTImageStorage,
        uid.MRImageStorage,
        uid.PositronEmissionTomographyImageStorage,
        uid.SecondaryCaptureImageStorage,
        uid.UltrasoundImageStorage,
    }
)
"""Classes whose instances have one frame, whatever Number of Frames says; no frame may be named (PS3.3 10.3)."""

PictureKind = Literal["overlay", "panel", "notice"]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An instance as DICOM refers to it; `frame` from 1, None for a whole instance."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame: int | None = None


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A secondary capture that belongs to an answer.

    Attributes
    ----------
    reference : Reference
    kind : str
        ``overlay`` (one map), ``panel`` (methods side by side) or ``notice`` (words instead of a map).
    source_uid : str
        SOP Instance UID of the image shown; empty for none.
    finding, method : str
        Label name and map name (``score-cam:delta``); empty where the picture is not about one.
    title : str
        What a reader sees as the picture's name.
    """

    reference: Reference
    kind: PictureKind
    source_uid: str
    finding: str
    method: str
    title: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageAnswer:
    """What was found on one image.

    Attributes
    ----------
    header : Dataset
        As `read_header` gives it.
    frame : int
        From 0.
    spacing_mm : (row, column) float or None, mm
    prediction : Prediction
    explanations : tuple of Explanation
        Of the findings that were explained; may be empty.
    pictures : tuple of Picture
    warnings : tuple of str
        Quality remarks on this image and its maps, in plain words.
    """

    header: Dataset
    prediction: Prediction
    frame: int = 0
    spacing_mm: tuple[float, float] | None = None
    explanations: tuple[Explanation, ...] = ()
    pictures: tuple[Picture, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyAnswer:
    """The answer to one study under one route, whether the model could be used or not.

    Attributes
    ----------
    status : ClinicalStatus
    header : Dataset
        Any instance of the study, image or not; patient and study are copied from it.
    card : ModelCard or None
        None where it can't be read; the model's name is in the provenance.
    images : tuple of ImageAnswer
        Empty unless the model gave scores.
    reasons : tuple of Reason
        Why the model was not used or did not finish; may be empty when it did.
    warnings : tuple of str
    left_out : tuple of LeftOut
        What is not for the model.
    unread : tuple of LeftOut
        Images for the model that could not be read.
    pictures : tuple of Picture
        That belong to no one image, such as a notice.
    parameters : tuple of str
        ``name=value`` settings that decided the result, besides the model's own.
    predecessor : Reference or None
        The report that this one replaces.
    """

    status: ClinicalStatus
    header: Dataset
    card: ModelCard | None
    images: tuple[ImageAnswer, ...] = ()
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    unread: tuple[LeftOut, ...] = ()
    pictures: tuple[Picture, ...] = ()
    parameters: tuple[str, ...] = ()
    predecessor: Reference | None = None


def reference_to(header: Dataset, frame: int | None = None) -> Reference:
    """Refer to an instance; `frame` from 0 is named only where the object, and its class, has several."""
    several = frame_count(header) > 1 and header.SOPClassUID not in SINGLE_FRAME
    return Reference(
        sop_class_uid=str(header.SOPClassUID),
        sop_instance_uid=str(header.SOPInstanceUID),
        series_instance_uid=str(header.SeriesInstanceUID),
        study_instance_uid=str(header.StudyInstanceUID),
        frame=frame + 1 if several and frame is not None else None,
    )


def findings_present(answer: StudyAnswer) -> tuple[Finding, ...]:
    """Every finding at or over its threshold, image by image."""
    return tuple(finding for image in answer.images for finding in image.prediction.findings if finding.present)


def all_pictures(answer: StudyAnswer) -> tuple[Picture, ...]:
    """Pictures of the images, then those of the study."""
    return tuple(picture for image in answer.images for picture in image.pictures) + answer.pictures


def reason_concept(answer: StudyAnswer) -> Concept | None:
    """The coded reason: the first one that a reason carries, else the status' own; None for a processed study."""
    named = next((reason.concept for reason in answer.reasons if reason.concept), None)
    key = named or answer.status.default_reason
    return CONCEPTS[key] if key and not answer.status.answered else None


def headline(answer: StudyAnswer) -> str:
    """A few plain sentences that say what came out; the first thing a radiologist reads."""
    if not answer.status.answered:
        words = _joined(answer.reasons)
        verb = "AI failed" if answer.status is ClinicalStatus.FAILED else "AI not performed"
        kind = "" if answer.status.value in words else f" ({answer.status.value})"
        return f"{verb}{kind}: {words}."
    highest = _highest(answer)
    shown = [_with_score(finding) for finding in highest if finding.present]
    close = [_with_score(finding) for finding in highest if finding.borderline and not finding.present]
    result = f"AI suggests: {', '.join(shown)}." if shown else "No finding reached its threshold."
    below = [f"Below the threshold: {', '.join(close)}."] if close else []
    return " ".join([result, *below, *_shortcomings(answer)])


def _highest(answer: StudyAnswer) -> list[Finding]:
    """The finding with the highest score of each meaning over all images, the present and then the likeliest first."""
    best: dict[str, Finding] = {}
    for image in answer.images:
        for finding in image.prediction.findings:
            known = best.setdefault(finding.label.code.meaning, finding)
            if (finding.present, finding.probability) > (known.present, known.probability):
                best[finding.label.code.meaning] = finding
    return sorted(best.values(), key=lambda finding: (not finding.present, -finding.probability))


def _with_score(finding: Finding) -> str:
    words = f"{percent(finding.probability, finding.label.threshold)} %"
    return f"{finding.label.code.meaning} ({words}{', borderline' if finding.borderline else ''})"


def _shortcomings(answer: StudyAnswer) -> Iterator[str]:
    """What an answer that was given lacks, a sentence each."""
    unread = tuple(dict.fromkeys(one.reason for one in answer.unread))
    if unread:
        count = len(answer.unread)
        yield f"{count} of {count + len(answer.images)} images could not be read: {_joined(unread)}."
    unexplained = [reason for reason in answer.reasons if reason not in unread]
    if unexplained or answer.status is ClinicalStatus.EXPLANATION_FAILED:
        yield f"There is no activation map: {_joined(unexplained)}."


def _joined(reasons: Sequence[Reason]) -> str:
    return "; ".join(reason.words for reason in reasons) or "no reason was recorded"
