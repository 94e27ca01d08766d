"""A child's three tasks: load models ahead, answer a study, report a failure; files in, files out, no network."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from cam_core.card import ModelCard, load_card
from cam_core.classifier import ForwardOptions, Numerics
from cam_core.errors import CamCoreError, CardError
from cam_core.method import clinical_method
from dicom_node.errors import NoHeader, ReadingError
from dicom_node.objects.answer import ImageAnswer, StudyAnswer, headline
from dicom_node.objects.secondary_capture import picture_of
from dicom_node.pipeline.building import build_objects, job_state, summarise, write_objects
from dicom_node.pipeline.clock import Clock, Progress
from dicom_node.pipeline.explaining import Drawn, draw_notice, explain_images, numbered, opened
from dicom_node.pipeline.identity import header_of
from dicom_node.pipeline.reading import StudyReading, read_study
from dicom_node.pipeline.request import JobRequest, forward_options, parse_request
from dicom_node.provenance import ClinicalStatus, Provenance, Reason
from dicom_node.reading import read_header
from dicom_node.reading.selection import LeftOut
from storage.schema import JobState


def answer(request: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
    """Do what `request["task"]` asks.

    Raises
    ------
    DicomNodeError, CamCoreError
        What makes the job fail: a model that can't be used, a file that nothing can be made of.
    """
    if request["task"] == "warm":
        return {"models": [_warm(Path(card), request["device"], forward_options(request)) for card in request["cards"]]}
    job = parse_request(request)
    clock = Clock(progress)
    if request["task"] == "report failure":
        return _report_failure(job, _failure(str(request["reason"]), str(request.get("kind", ""))), clock)
    return _answer_study(job, clock)


def _warm(card_path: Path, device: str, forward: ForwardOptions) -> dict[str, str]:
    try:
        card = load_card(card_path)
        classifier = opened(card, device, forward)
        _ = classifier.registration
    except CamCoreError as error:
        return {"card": str(card_path), "reason": str(error)}
    numerics = classifier.numerics
    found = {
        "model": f"{card.name} {card.version}",
        "model_sha256": card.sha256,
        "device": classifier.device,
        "masked_passes": f"{numerics.engine} {numerics.precision}",
    }
    return {"card": str(card_path), **found}


def _answer_study(job: JobRequest, clock: Clock) -> Mapping[str, Any]:
    with clock.step("open model"):
        classifier = opened(load_card(job.card), job.device, job.forward)
        card = classifier.card
        for name in job.methods:
            clinical_method(name)
    reading = read_study(job.files, card, clock, job.identity)
    provenance = job.provenance(card)
    images, drawn = explain_images(reading.images, classifier, job, provenance, clock)
    found = _study_answer(job, card, reading, images, classifier.numerics)
    return _finish(found, drawn, job, provenance, clock, (classifier.device, classifier.runtime))


def _study_answer(
    job: JobRequest, card: ModelCard, reading: StudyReading, images: tuple[ImageAnswer, ...], numerics: Numerics
) -> StudyAnswer:
    status, reasons = reading.refusal or _how_it_went(images, reading.unread)
    return StudyAnswer(
        status=status,
        header=images[0].header if images else reading.header,
        card=card,
        images=images,
        reasons=reasons,
        left_out=reading.left_out,
        unread=reading.unread,
        parameters=(*_parameters(job), *_numerics(numerics)),
    )


def _how_it_went(
    images: tuple[ImageAnswer, ...], unread: tuple[LeftOut, ...]
) -> tuple[ClinicalStatus, tuple[Reason, ...]]:
    """Processed, or without some of the images, or with a finding that no method could explain."""
    unexplained = [
        Reason(words=f"{each.finding.label.name}: {reason}", kind="explanation-failed")
        for image in images
        for each in image.explanations
        if not each.maps
        for _, reason in each.failures[:1]
    ]
    if unread:
        return ClinicalStatus.PARTLY_PROCESSED, (*dict.fromkeys(one.reason for one in unread), *unexplained)
    if unexplained:
        return ClinicalStatus.EXPLANATION_FAILED, tuple(unexplained)
    return ClinicalStatus.PROCESSED, ()


def _parameters(job: JobRequest) -> tuple[str, ...]:
    output = job.output
    return (
        f"methods={','.join(job.methods)}",
        f"region_threshold={output.region_threshold:g} of the map's maximum",
        f"opacity={output.opacity:g}",
        f"palette={output.palette}",
    )


def _numerics(numerics: Numerics) -> tuple[str, ...]:
    """How masked passes were computed, where it was not by the model itself."""
    if numerics == Numerics():
        return ()
    return (
        f"masked_passes={numerics.engine} {numerics.precision}",
        f"masked_passes_deviation={numerics.deviation:.1g} of the logits' spread",
    )


def _failure(words: str, kind: str) -> Reason:
    """Why a job failed, coded: want of time, processor time or memory, or anything else (PS3.16 CID 9300)."""
    wanting = kind == "ChildTimedOut" or any(word in words.lower() for word in ("memory", "processor time"))
    return Reason(words=words, kind="failed", concept="resource inadequate" if wanting else "equipment failure")


def _report_failure(job: JobRequest, reason: Reason, clock: Clock) -> Mapping[str, Any]:
    """A status report from headers alone, at worst from what reception kept: it needs neither a card nor a file."""
    card = _card_or_none(job.card)
    failed = StudyAnswer(
        status=ClinicalStatus.FAILED,
        header=_any_header(job, clock),
        card=card,
        reasons=(reason,),
        parameters=_parameters(job),
    )
    return _finish(failed, [], job, job.provenance(card), clock, ("", ""))


def _card_or_none(path: Path) -> ModelCard | None:
    try:
        return load_card(path)
    except CardError:
        return None  # perhaps the very failure that is reported


def _any_header(job: JobRequest, clock: Clock) -> Dataset:
    with clock.step("read headers"):
        for file in job.files:
            try:
                return read_header(file.path)
            except ReadingError:
                continue  # the next instance of the study will do
    if not job.identity:
        raise NoHeader(len(job.files))
    return header_of(job.identity)


def _finish(
    found: StudyAnswer,
    drawn: list[Drawn],
    job: JobRequest,
    provenance: Provenance,
    clock: Clock,
    ran_on: tuple[str, str],
) -> Mapping[str, Any]:
    if not found.status.answered and job.output.notice_picture:
        notice = draw_notice(found, job, provenance)
        drawn = [notice]
        found = replace(found, pictures=(picture_of(notice.capture, provenance),))
    with clock.step("build objects"):
        results = write_objects(build_objects(found, numbered(drawn), provenance), job.staging)
    state = job_state(found.status)
    return {
        "state": state,
        "reason": None if state is JobState.DONE else headline(found),
        "results": results,
        "summary": summarise(found, provenance, ran_on, clock.seconds),
    }
