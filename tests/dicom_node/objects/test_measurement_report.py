"""Every region of every map as a measurement that can be drawn, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.objects import measurement_report, part10, summary_report
from dicom_node.objects.answer import StudyAnswer
from dicom_node.reading import read_header, read_image

RealImage = Callable[[str], Path]


@pytest.fixture
def answered(real_image: RealImage, results: ModuleType) -> Callable[[str], StudyAnswer]:
    def make(name: str) -> StudyAnswer:
        header, image = read_header(real_image(name)), read_image(real_image(name))
        answer: StudyAnswer = results.answer(header, image, results.provenance(header))
        return answer

    return make


def groups(result: Dataset, tmp_path: Path) -> list[hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations]:
    path = tmp_path / "report.dcm"
    part10.write(result, path)
    found: list[hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations] = hd.sr.srread(
        path
    ).content.get_planar_roi_measurement_groups()
    return found


@pytest.mark.parametrize("fallback", [False, True])
def test_an_independent_reader_finds_every_region(
    fallback: bool, answered: Callable[[str], StudyAnswer], results: ModuleType, tmp_path: Path
) -> None:
    answer = answered("CT_small.dcm")
    result = measurement_report.build(answer, results.provenance(answer.header), fallback=fallback)
    assert result is not None
    explanation = answer.images[0].explanations[0]
    regions = [region for found in explanation.regions for region in found]
    read = groups(result, tmp_path)
    assert len(read) == len(regions) == 4
    for group, region in zip(read, regions, strict=True):
        assert np.allclose(group.roi.value, region.contour, atol=0.01)
        assert (group.roi.value[0] == group.roi.value[-1]).all()
        area = group.get_measurements(codes.SCT.Area)[0]
        assert (area.value, area.unit.value) == (pytest.approx(region.area_mm2, abs=0.06), "mm2")
        score, deviation = group.get_measurements(codes.DCM.CertaintyOfFinding)
        assert (score.value, score.derivation) == (87.3, None)
        assert (deviation.value, deviation.derivation) == (2.4, codes.SCT.StandardDeviation)
        assert group.finding_type.value == "27925004"
        assert group.finding_sites[0].topographical_modifier is None
    assert len({group.tracking_uid for group in read}) == 4
    assert [group.tracking_identifier for group in read][:2] == [
        "Nodule, Grad-CAM, region 1",
        "Nodule, Grad-CAM, region 2",
    ]


def test_activation_is_in_percent_of_the_map_by_the_methods_own_concept(
    answered: Callable[[str], StudyAnswer], results: ModuleType, tmp_path: Path
) -> None:
    answer = answered("CT_small.dcm")
    result = measurement_report.build(answer, results.provenance(answer.header))
    assert result is not None
    read = groups(result, tmp_path)
    grad = read[0].get_measurements(codes.DCM.GradientWeightedClassActivation)
    assert [(each.value, each.unit.value, each.derivation.meaning) for each in grad] == [
        (100, "%", "Maximum"),
        (pytest.approx(86, abs=3), "%", "Mean"),
    ]
    assert read[1].get_measurements(codes.DCM.GradientWeightedClassActivation)[0].value == pytest.approx(80, abs=2)
    assert len(read[2].get_measurements(codes.DCM.ClassActivation)) == 2


def test_an_unknown_spacing_gives_pixels(
    answered: Callable[[str], StudyAnswer], results: ModuleType, tmp_path: Path
) -> None:
    answer = answered("RG1_UNCR.dcm")
    result = measurement_report.build(answer, results.provenance(answer.header))
    assert result is not None
    assert "mm2" not in result.to_json()
    assert groups(result, tmp_path)[0].get_measurements(codes.SCT.Area)[0].unit.value == "{pixels}"


def test_no_region_no_report(answered: Callable[[str], StudyAnswer], results: ModuleType) -> None:
    answer = answered("CT_small.dcm")
    one = answer.images[0]
    blank = replace(one.explanations[0], regions_of=lambda _: ())
    empty = replace(answer, images=(replace(one, explanations=(blank,)),))
    made_by = results.provenance(answer.header)
    assert measurement_report.build(empty, made_by) is None
    assert measurement_report.reference(empty, made_by) is None
    assert measurement_report.build(replace(answer, images=()), made_by) is None


def test_every_group_has_coordinates_and_its_picture(
    answered: Callable[[str], StudyAnswer], results: ModuleType
) -> None:
    answer = answered("CT_small.dcm")
    result = measurement_report.build(answer, results.provenance(answer.header))
    assert result is not None
    container = result.ContentSequence[-1]
    found = [item for item in container.ContentSequence if item.ValueType == "CONTAINER"]
    pictures = {picture.reference.sop_instance_uid for picture in answer.images[0].pictures}
    shown = set()
    for group in found:
        kinds = [item.ValueType for item in group.ContentSequence]
        assert kinds.count("SCOORD") == 1
        shown |= {
            item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
            for item in group.ContentSequence
            if item.ValueType == "IMAGE"
        }
    assert shown == pictures


def test_the_algorithm_is_named_once_with_its_weights(
    answered: Callable[[str], StudyAnswer], results: ModuleType
) -> None:
    answer = answered("CT_small.dcm")
    result = measurement_report.build(answer, results.provenance(answer.header))
    assert result is not None
    encoded = result.to_json()
    assert encoded.count('"Algorithm Name"') == 1
    assert "model_sha256=" + "ab" * 32 in encoded
    assert "threshold_fraction=0.5" in encoded
    assert "not for clinical use" in encoded


def test_evidence_names_image_pictures_and_summary(answered: Callable[[str], StudyAnswer], results: ModuleType) -> None:
    answer = answered("CT_small.dcm")
    made_by = results.provenance(answer.header)
    summary = summary_report.reference(answer, made_by)
    result = measurement_report.build(answer, made_by, summary=summary)
    assert result is not None
    named = {
        instance.ReferencedSOPInstanceUID
        for study in result.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    pictures = {picture.reference.sop_instance_uid for picture in answer.images[0].pictures}
    assert named == {answer.header.SOPInstanceUID, summary.sop_instance_uid} | pictures
    reference = measurement_report.reference(answer, made_by)
    assert reference is not None
    assert reference.sop_instance_uid == result.SOPInstanceUID


def test_the_fallback_is_another_instance_of_a_class_that_more_archives_take(
    answered: Callable[[str], StudyAnswer], results: ModuleType
) -> None:
    answer = answered("CT_small.dcm")
    made_by = results.provenance(answer.header)
    first, second = (measurement_report.build(answer, made_by, fallback=each) for each in (False, True))
    assert first is not None
    assert second is not None
    assert (first.SOPClassUID[-5:], second.SOPClassUID[-5:]) == ("88.34", "88.33")
    assert first.SOPInstanceUID != second.SOPInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.ContentSequence == second.ContentSequence


def test_two_images_of_a_study_have_their_own_groups(
    answered: Callable[[str], StudyAnswer], results: ModuleType, tmp_path: Path
) -> None:
    answer = answered("CT_small.dcm")
    second = deepcopy(answer.header)
    second.SOPInstanceUID = "2.25.77"
    both = replace(answer, images=(answer.images[0], replace(answer.images[0], header=second)))
    result = measurement_report.build(both, results.provenance(answer.header))
    assert result is not None
    read = groups(result, tmp_path)
    assert len({group.tracking_uid for group in read}) == len(read) == 8
    assert read[-1].tracking_identifier == "Nodule, Score-CAM, region 2, image 2"
