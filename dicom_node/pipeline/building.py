"""A study's answer as DICOM files in the staging folder, and in short for the rows; computes no map."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.objects import measurement_report, part10, secondary_capture, summary_report
from dicom_node.objects.answer import StudyAnswer, headline
from dicom_node.pipeline.explaining import Drawn
from dicom_node.provenance import ClinicalStatus, Provenance
from storage.schema import JobState

#: objects that are written while others are made
WRITERS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Built:
    """A DICOM object, its kind, and the result whose place it takes at a peer that refuses that one's SOP class."""

    result: Dataset
    kind: str
    fallback_for: str | None = None


def build_objects(answer: StudyAnswer, drawn: Sequence[Drawn], provenance: Provenance) -> Iterator[Built]:
    """All results in the order of sending: pictures first, so that what a report refers to is there before it."""
    for one in drawn:
        yield Built(result=secondary_capture.build(one.pixels, one.capture, provenance), kind=one.capture.kind)
    summary = summary_report.reference(answer, provenance)
    measurements = measurement_report.reference(answer, provenance)
    report = measurement_report.build(answer, provenance, summary=summary)
    if report is not None:
        yield Built(result=report, kind="measurement-report")
        fallback = measurement_report.as_fallback(report, answer, provenance)
        yield Built(result=fallback, kind="measurement-report", fallback_for=str(report.SOPInstanceUID))
    yield Built(result=summary_report.build(answer, provenance, measurements=measurements), kind="summary-report")


def write_objects(built: Iterator[Built], staging: Path) -> list[dict[str, Any]]:
    """Write objects while the next is made, so that few are in memory; returns what the rows need to know."""
    made: list[dict[str, Any]] = []
    writing: list[Future[None]] = []
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="write") as threads:
        for position, one in enumerate(built, 1):
            path = staging / f"{position:03}-{one.result.SOPInstanceUID}.dcm"
            writing.append(threads.submit(part10.write, one.result, path))
            made.append(_made(one, position, path))
            if position > WRITERS:
                writing[position - 1 - WRITERS].result()
        for each in writing:
            each.result()
    return made


def _made(one: Built, position: int, path: Path) -> dict[str, Any]:
    return {
        "sop_instance_uid": str(one.result.SOPInstanceUID),
        "sop_class_uid": str(one.result.SOPClassUID),
        "transfer_syntax_uid": str(ExplicitVRLittleEndian),
        "kind": one.kind,
        "position": position,
        "description": _description(one.result),
        "fallback_for": one.fallback_for,
        "file": str(path),
    }


def _description(result: Dataset) -> str:
    comments = str(result.get("ImageComments", "")).partition(". ")[0]
    return comments or str(result.get("SeriesDescription", ""))


_STATES: Mapping[ClinicalStatus, JobState] = {
    ClinicalStatus.PROCESSED: JobState.DONE,
    ClinicalStatus.PARTLY_PROCESSED: JobState.DONE,
    ClinicalStatus.EXPLANATION_FAILED: JobState.DONE,
    ClinicalStatus.FAILED: JobState.FAILED,
}


def job_state(status: ClinicalStatus) -> JobState:
    """What a clinical status means for the job: every other is a refusal, which is an answer and no error."""
    return _STATES.get(status, JobState.REFUSED)


def summarise(
    answer: StudyAnswer, provenance: Provenance, ran_on: tuple[str, str], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """The answer in short, for the job's row: no pixel, no patient; `ran_on` is a device and a runtime."""
    device, runtime = ran_on
    left_out = [*answer.unread, *answer.left_out]
    return {
        "status": answer.status.value,
        "headline": headline(answer),
        "model": provenance.model,
        "model_sha256": provenance.model_sha256,
        "device": device,
        "runtime": runtime,
        "findings": [line for one in answer.images for line in _findings(one.prediction.findings, one)],
        "warnings": [*answer.warnings, *(words for one in answer.images for words in one.warnings)],
        "left_out": [{"sop_instance_uid": one.sop_instance_uid, "reason": one.reason.words} for one in left_out],
        "timings": dict(seconds),
    }


def _findings(findings: Sequence[Any], image: Any) -> Iterator[dict[str, Any]]:
    regions = {
        each.finding.label.name: {
            saliency.name: len(found) for saliency, found in zip(each.maps, each.regions, strict=True)
        }
        for each in image.explanations
    }
    for finding in findings:
        yield {
            "image": str(image.header.SOPInstanceUID),
            "finding": finding.label.name,
            "probability": finding.probability,
            "threshold": finding.label.threshold,
            "present": finding.present,
            "borderline": finding.borderline,
            "uncertainty": asdict(finding.uncertainty) if finding.uncertainty else None,
            "regions": regions.get(finding.label.name, {}),
        }
