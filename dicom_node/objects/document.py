"""The frame of every structured report: series, document and evidence modules; the content tree is made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dicom_node.objects.answer import Reference, StudyAnswer, headline
from dicom_node.objects.header import Identity, common_header
from dicom_node.provenance import Provenance, result_uid, series_uid


@dataclass(frozen=True, kw_only=True)
class DocumentKind:
    """A kind of report: key of SERIES_NUMBERS, SOP Class and what its series is called."""

    kind: str
    sop_class_uid: str
    title: str
    facts: tuple[str, ...] = field(default=())


def document_reference(kind: DocumentKind, answer: StudyAnswer, provenance: Provenance) -> Reference:
    """How other objects refer to the report; known before it is built.

    What it says is part of its UID: a failure that is mended later is another report, never other bytes under one UID.
    """
    return Reference(
        sop_class_uid=kind.sop_class_uid,
        sop_instance_uid=result_uid(provenance, kind.kind, *kind.facts, answer.status.value, headline(answer)),
        series_instance_uid=series_uid(provenance, kind.kind),
        study_instance_uid=str(answer.header.StudyInstanceUID),
    )


def document(
    root: Dataset, kind: DocumentKind, evidence: Iterable[Reference], answer: StudyAnswer, provenance: Provenance
) -> Dataset:
    """A report object (PS3.3 A.35): SR Document Series, General and Content modules.

    Parameters
    ----------
    root : Dataset
        The root CONTAINER.
    kind : DocumentKind
    evidence : iterable of Reference
        Everything that the tree refers to, and what it was made from.
    answer : StudyAnswer
    provenance : Provenance
    """
    identity = Identity(
        kind=kind.kind,
        sop_class_uid=kind.sop_class_uid,
        sop_instance_uid=document_reference(kind, answer, provenance).sop_instance_uid,
        instance_number=1,
        modality="SR",
        series_description=f"{kind.title}: {provenance.model}",
    )
    result = common_header(answer.header, identity, provenance)
    result.CompletionFlag = "COMPLETE"
    result.VerificationFlag = "UNVERIFIED"
    result.PreliminaryFlag = "PRELIMINARY"
    result.PerformedProcedureCodeSequence = []
    result.ReferencedPerformedProcedureStepSequence = []
    same, other = _evidence(evidence, str(answer.header.StudyInstanceUID))
    if same:
        result.CurrentRequestedProcedureEvidenceSequence = same
    if other:
        result.PertinentOtherEvidenceSequence = other
    if answer.predecessor is not None:
        result.PredecessorDocumentsSequence = _hierarchy([answer.predecessor])
    for element in root:
        result[element.tag] = element
    return result


def _evidence(references: Iterable[Reference], study_uid: str) -> tuple[list[Dataset], list[Dataset]]:
    """Items for the report's own study and for others (PS3.3 C.17.2)."""
    unique = {reference.sop_instance_uid: reference for reference in references}
    same = [reference for reference in unique.values() if reference.study_instance_uid == study_uid]
    other = [reference for reference in unique.values() if reference.study_instance_uid != study_uid]
    return _hierarchy(same), _hierarchy(other)


def _hierarchy(references: Iterable[Reference]) -> list[Dataset]:
    """Hierarchical SOP Instance Reference macro (PS3.3 C.17.2.1)."""
    studies: dict[str, dict[str, list[Reference]]] = {}
    for reference in references:
        series = studies.setdefault(reference.study_instance_uid, {})
        series.setdefault(reference.series_instance_uid, []).append(reference)
    return [_study_item(study_uid, series) for study_uid, series in studies.items()]


def _study_item(study_uid: str, series: dict[str, list[Reference]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for series_instance_uid, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_instance_uid
        item.ReferencedSOPSequence = []
        for reference in references:
            instance = Dataset()
            instance.ReferencedSOPClassUID = reference.sop_class_uid
            instance.ReferencedSOPInstanceUID = reference.sop_instance_uid
            item.ReferencedSOPSequence.append(instance)
        study.ReferencedSeriesSequence.append(item)
    return study
