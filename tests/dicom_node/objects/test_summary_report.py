"""A reader can tell no finding, not performed and failed apart, and finds every score and caveat in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from pydicom.dataset import Dataset

from cam_core.card import Augmentations, UncertaintySpecification
from cam_core.finding import Finding, Prediction
from dicom_node.objects import measurement_report, summary_report
from dicom_node.objects.answer import Reference, StudyAnswer, headline
from dicom_node.provenance import ClinicalStatus, Reason
from dicom_node.reading import read_header, read_image
from dicom_node.reading.selection import LeftOut

RealImage = Callable[[str], Path]


@pytest.fixture
def answer(real_image: RealImage, results: ModuleType) -> StudyAnswer:
    path = real_image("CT_small.dcm")
    header = read_header(path)
    made: StudyAnswer = results.answer(header, read_image(path), results.provenance(header))
    return made


def items(tree: Dataset) -> Iterator[tuple[str, str]]:
    """(name, value) of every item."""
    for item in tree.get("ContentSequence", []):
        name = item.ConceptNameCodeSequence[0].CodeMeaning if "ConceptNameCodeSequence" in item else ""
        if item.ValueType == "TEXT":
            yield name, item.TextValue
        elif item.ValueType == "CODE":
            yield name, item.ConceptCodeSequence[0].CodeMeaning
        elif item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            yield name, f"{measured.NumericValue:g} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
        elif item.ValueType in ("IMAGE", "COMPOSITE"):
            yield name, item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        yield from items(item)


def shown(answer: StudyAnswer, results: ModuleType, **more: Reference | None) -> list[tuple[str, str]]:
    return list(items(summary_report.build(answer, results.provenance(answer.header), **more)))


def test_a_finding_is_said_first_and_in_words(answer: StudyAnswer, results: ModuleType) -> None:
    said = shown(answer, results)
    assert ("Conclusion", "AI suggests: Nodule (87.3 %).") in said
    assert ("CAD Processing and Findings Summary", "All algorithms succeeded; with findings") in said
    assert ("Summary of Detections", "Succeeded") in said


def test_every_label_has_its_score_threshold_and_verdict(answer: StudyAnswer, results: ModuleType) -> None:
    said = shown(answer, results)
    for line in (("Nodule", "Present"), ("Pleural effusion", "Absent")):
        assert line in said
    certainties = [value for name, value in said if name == "Certainty of Finding"]
    assert certainties == ["87.3 %", "86.1 %", "2.4 %", "10 %"]  # the score, the passes' mean and deviation; a score
    assert [value for name, value in said if name == "Derivation"] == ["Mean", "Standard Deviation"]
    assert ("-, range of lower measurement uncertainty", "8 %") in said
    assert ("+, range of upper measurement uncertainty", "3.9 %") in said
    assert [value for name, value in said if name == "Threshold Value"] == ["50 %", "50 %"]


def with_findings(answer: StudyAnswer, *findings: Finding) -> StudyAnswer:
    one = replace(answer.images[0], prediction=Prediction(findings=findings), explanations=(), pictures=())
    return replace(answer, images=(one,))


def test_a_borderline_finding_is_said_to_be_one(answer: StudyAnswer, results: ModuleType) -> None:
    near = replace(results.FOUND, probability=0.54, uncertainty=replace(results.SPREAD, low=0.4, high=0.7))
    below = replace(results.NOT_FOUND, probability=0.46, uncertainty=replace(results.SPREAD, low=0.3, high=0.52))
    said = shown(with_findings(answer, near, below), results)
    expected = "AI suggests: Nodule (54 %, borderline). Below the threshold: Pleural effusion (46 %, borderline)."
    assert ("Conclusion", expected) in said
    assert ("Nodule", "Present") in said
    assert ("Pleural effusion", "Absent") in said
    assert ("Comment", "Borderline: the interval reaches below the threshold") in said
    assert ("Comment", "Borderline: the interval reaches the threshold") in said
    assert any(value.startswith("The interval shows how far the model's own score varies") for _, value in said)
    only = shown(with_findings(answer, below), results)
    conclusion = "No finding reached its threshold. Below the threshold: Pleural effusion (46 %, borderline)."
    assert ("Conclusion", conclusion) in only


def test_a_score_outside_its_interval_is_said_to_be(answer: StudyAnswer, results: ModuleType) -> None:
    moved = replace(results.FOUND, probability=0.54, uncertainty=replace(results.SPREAD, low=0.2, high=0.4))
    said = shown(with_findings(answer, moved), results)
    assert ("Comment", "Borderline: the whole interval lies below the threshold") in said
    assert any(value.startswith("The score itself lies above this interval") for _, value in said)
    assert not any("range of" in name for name, _ in said)  # a distance can't be negative


def test_how_the_intervals_were_found_is_among_the_parameters(answer: StudyAnswer, results: ModuleType) -> None:
    declared = UncertaintySpecification(
        kind="test-time-augmentation", passes=8, level=0.95, augmentations=Augmentations(shift=0.02, rotation=2.0)
    )
    said = shown(replace(answer, card=replace(results.CARD, uncertainty=declared)), results)
    expected = "uncertainty: kind=test-time-augmentation, passes=8, level=0.95, seed=0, shift=0.02, rotation=2.0"
    assert ("Algorithm Parameters", expected) in said


def test_maps_are_described_with_what_limits_them(answer: StudyAnswer, results: ModuleType) -> None:
    words = " | ".join(value for name, value in shown(answer, results) if name == "Comment")
    assert "Grad-CAM: 2 regions; the first holds" in words
    assert "grad-cam and score-cam are the same up to scale" in words
    assert "grad-cam++: no map, no gradients" in words
    assert "95 % interval of the score: 79.3 to 91.2 %, from 16 slightly changed copies of the image" in words
    assert "An activation map explains the model; it is not ground truth" in words
    assert "Demonstration model, not for clinical use." in words
    assert "Not for primary diagnosis" in words
    assert "Intended use of the model: Demonstration only" in words


def test_an_empty_map_is_said_to_be_empty(answer: StudyAnswer, results: ModuleType) -> None:
    one = answer.images[0]
    maps = tuple(replace(each, values=-each.values) for each in one.explanations[0].maps)
    blank = replace(one.explanations[0], maps=maps, regions_of=lambda _: ())
    said = shown(replace(answer, images=(replace(one, explanations=(blank,)),)), results)
    assert ("Comment", "Grad-CAM: nothing to show; no positive evidence for this finding in this map") in said
    under = replace(one.explanations[0], regions_of=lambda _: ())
    said = shown(replace(answer, images=(replace(one, explanations=(under,)),)), results)
    assert ("Comment", "Grad-CAM: no region reaches the threshold") in said


def test_no_finding_is_not_silence(answer: StudyAnswer, results: ModuleType) -> None:
    clear = replace(answer.images[0], prediction=Prediction(findings=(results.NOT_FOUND,)), explanations=())
    said = shown(replace(answer, images=(clear,)), results)
    assert ("Conclusion", "No finding reached its threshold.") in said
    assert ("CAD Processing and Findings Summary", "All algorithms succeeded; without findings") in said
    assert ("Pleural effusion", "Absent") in said


@pytest.mark.parametrize(
    ("status", "reason", "opening", "coded"),
    [
        (ClinicalStatus.NOT_INDICATED, None, "AI not performed (not in the model's indication): R.", "110522"),
        (ClinicalStatus.UNUSABLE, "quality failure", "AI not performed (images unusable): R.", "111220"),
        (ClinicalStatus.INCOMPLETE, None, "AI not performed (incomplete set): R.", "110523"),
        (
            ClinicalStatus.UNSUPPORTED,
            "incorrectly formatted",
            "AI not performed (unsupported or undecodable object): R.",
            "110521",
        ),
        (ClinicalStatus.FAILED, "resource inadequate", "AI failed (processing failed): R.", "110527"),
    ],
)
def test_every_refusal_has_words_and_a_code(
    status: ClinicalStatus,
    reason: str | None,
    opening: str,
    coded: str,
    answer: StudyAnswer,
    results: ModuleType,
) -> None:
    refused = replace(answer, status=status, images=(), reasons=(Reason(words="R", kind="r", concept=reason),))
    assert ("Conclusion", opening) in shown(refused, results)
    result = summary_report.build(refused, results.provenance(answer.header))
    assert f'"{coded}"' in result.to_json()
    assert '"111245"' in result.to_json()


def test_an_explanation_that_failed_leaves_the_finding(answer: StudyAnswer, results: ModuleType) -> None:
    bare = replace(answer.images[0], explanations=(), pictures=())
    partly = replace(
        answer,
        status=ClinicalStatus.EXPLANATION_FAILED,
        images=(bare,),
        reasons=(Reason(words="out of memory", kind="memory"),),
    )
    said = shown(partly, results)
    assert ("Conclusion", "AI suggests: Nodule (87.3 %). There is no activation map: out of memory.") in said
    assert ("Summary of Detections", "Partially Succeeded") in said


def test_a_score_below_its_threshold_is_not_shown_at_it(answer: StudyAnswer, results: ModuleType) -> None:
    close = replace(results.NOT_FOUND, probability=0.4996)
    one = replace(answer.images[0], prediction=Prediction(findings=(close,)), explanations=())
    said = shown(replace(answer, images=(one,)), results)
    assert ("Certainty of Finding", "49.9 %") in said
    assert ("Threshold Value", "50 %") in said


def test_a_study_without_a_card_is_answered(answer: StudyAnswer, results: ModuleType) -> None:
    failed = replace(answer, status=ClinicalStatus.FAILED, card=None, images=(), reasons=())
    said = shown(failed, results)
    assert any(value.startswith("Model chest-demo 1.0.0") for _, value in said)
    assert not any("Intended use" in value for _, value in said)


def test_a_study_without_images_is_answered_from_any_header(real_image: RealImage, results: ModuleType) -> None:
    header = read_header(real_image("reportsi.dcm"))
    header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID = "2.25.1", "2.25.2", "2.25.3"
    refused = StudyAnswer(
        status=ClinicalStatus.UNSUPPORTED,
        header=header,
        card=results.CARD,
        reasons=(Reason(words="The study holds no image that a model can read", kind="no-image"),),
    )
    said = shown(refused, results)
    assert ("Procedure Description", "Images read: none") in said


def test_a_header_with_nonsense_in_it_is_answered(real_image: RealImage, results: ModuleType) -> None:
    header = read_header(real_image("badVR.dcm"))
    assert header.NumberOfFrames == "1A"
    refused = StudyAnswer(status=ClinicalStatus.UNSUPPORTED, header=header, card=results.CARD)
    assert ("Procedure Description", "Images read: none") in shown(refused, results)


def test_left_out_instances_are_listed_or_counted(answer: StudyAnswer, results: ModuleType) -> None:
    entries = tuple(
        LeftOut(
            sop_instance_uid=f"2.25.{number}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.88.67",
            series_instance_uid="2.25.2",
            reason=Reason(words="It holds no image", kind="not-an-image"),
        )
        for number in range(60)
    )
    few = [value for _, value in shown(replace(answer, left_out=entries[:2]), results) if value.startswith("Left out")]
    assert few[1] == "Left out: X-Ray Radiation Dose SR Storage 2.25.1. It holds no image"
    many = [value for _, value in shown(replace(answer, left_out=entries), results) if value.startswith("Left out")]
    assert many == ["Left out: 60 instances. It holds no image"]


def test_warnings_are_shown(answer: StudyAnswer, results: ModuleType) -> None:
    said = shown(replace(answer, warnings=("View Position is missing",)), results)
    assert ("Procedure Description", "Warning: View Position is missing") in said
    assert ("Procedure Description", "Warning: The map reaches the border") in said


def test_pictures_and_measurements_are_referred_to_and_are_evidence(answer: StudyAnswer, results: ModuleType) -> None:
    made_by = results.provenance(answer.header)
    measured = measurement_report.reference(answer, made_by)
    assert measured is not None
    result = summary_report.build(answer, made_by, measurements=measured)
    pictures = {picture.reference.sop_instance_uid for picture in answer.images[0].pictures}
    referred = {value for name, value in items(result) if name in ("Illustration of ROI", "Source report")}
    assert referred == pictures | {measured.sop_instance_uid}
    named = {
        instance.ReferencedSOPInstanceUID
        for study in result.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert referred | {answer.header.SOPInstanceUID} == named


def test_a_revision_names_its_predecessor(answer: StudyAnswer, results: ModuleType) -> None:
    older = summary_report.reference(answer, results.provenance(answer.header))
    made_by = results.provenance(answer.header, source_digest="00" * 32)
    result = summary_report.build(replace(answer, predecessor=older), made_by)
    item = result.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert item.ReferencedSOPInstanceUID == older.sop_instance_uid != result.SOPInstanceUID


def test_hostile_words_stay_words(answer: StudyAnswer, results: ModuleType) -> None:
    hostile = replace(answer, warnings=("x" * 5000 + "\\\n\x1b[31m",))
    said = [value for _, value in shown(hostile, results) if value.startswith("Warning: x")]
    assert len(said[0]) <= 2000
    assert "\x1b" not in summary_report.build(hostile, results.provenance(answer.header)).to_json()


def test_several_images_are_told_apart(answer: StudyAnswer, results: ModuleType) -> None:
    twice = replace(answer, images=(answer.images[0], answer.images[0]))
    said = shown(twice, results)
    assert ("Finding", "Image 1 of 2: CT, series 1, instance 1") in said
    assert headline(twice) == "AI suggests: Nodule (87.3 %)."
