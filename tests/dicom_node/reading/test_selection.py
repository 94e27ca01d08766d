"""What a model may see, and the reason for everything that it may not (acceptance cases 10 and 16)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence

from dicom_node.errors import ReadingError
from dicom_node.objects import part10
from dicom_node.reading import read_header, read_image
from dicom_node.reading.selection import reason_for, select, why_left_out

RealImage = Callable[[str], Path]


def header(sop_class: str = uid.CTImageStorage, **attributes: object) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = sop_class, "2.25.1", "2.25.2"
    ds.ImageType, ds.Rows, ds.Columns = ["ORIGINAL", "PRIMARY", "AXIAL"], 4, 4
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


KINDS = [
    ({}, None),
    ({"ImageType": ["DERIVED", "PRIMARY"]}, None),
    ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "secondary-capture"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ({"ImageType": "ORIGINAL"}, None),
    ({"sop_class": uid.SecondaryCaptureImageStorage}, "secondary-capture"),
    ({"sop_class": uid.DigitalXRayImageStorageForProcessing}, "for-processing"),
    ({"PresentationIntentType": "FOR PROCESSING"}, "for-processing"),
    ({"sop_class": uid.SegmentationStorage}, "unsupported"),
    ({"QualityControlImage": "YES"}, "quality-control"),
    ({"StudyDescription": "Daily QA"}, "phantom"),
    ({"SeriesDescription": "CALIBRATION scan"}, "phantom"),
    ({"PatientName": "Phantom^Head"}, "phantom"),
    ({"PatientID": "CTP-PHANTOM-03"}, "phantom"),
    ({"PatientName": "Qadir^Aqua"}, None),
    ({"StudyDescription": "Equation of Qatar"}, None),
    ({"ManufacturerModelName": "camnode"}, "own-result"),
    ({"Rows": 0}, "unsupported"),
]


@pytest.mark.parametrize(("attributes", "kind"), KINDS)
def test_each_reason(attributes: dict[str, str], kind: str | None) -> None:
    reason = why_left_out(header(**attributes))
    assert (reason.kind if reason else None) == kind


@pytest.mark.parametrize(
    "sop_class",
    [
        uid.KeyObjectSelectionDocumentStorage,
        uid.GrayscaleSoftcopyPresentationStateStorage,
        uid.XRayRadiationDoseSRStorage,
        uid.EncapsulatedPDFStorage,
        uid.RawDataStorage,
        "1.3.46.670589.11.0.0.12.2",
    ],
)
def test_what_holds_no_image_is_named(sop_class: str) -> None:
    ds = header(sop_class)
    del ds.Rows
    reason = why_left_out(ds)
    assert reason is not None
    assert reason.kind == "not-an-image"
    assert uid.UID(sop_class).name in reason.words


def test_a_transfer_syntax_without_decoder_is_left_out() -> None:
    ds = header(uid.UltrasoundMultiFrameImageStorage)
    ds.file_meta.TransferSyntaxUID = uid.MPEG4HP41
    reason = why_left_out(ds)
    assert reason is not None
    assert (reason.kind, reason.concept) == ("undecodable", "not supported")


def test_another_nodes_result_is_known_by_its_contributing_equipment() -> None:
    made_by = Dataset()
    made_by.ManufacturerModelName = "camnode "
    reason = why_left_out(header(ContributingEquipmentSequence=Sequence([made_by])))
    assert reason is not None
    assert reason.kind == "own-result"


def test_our_own_results_never_come_back_as_images(real_image: RealImage, results: ModuleType, tmp_path: Path) -> None:
    for kind, result in results.every_kind(real_image("CT_small.dcm")).items():
        path = tmp_path / f"{kind}.dcm"
        part10.write(result, path)
        reason = why_left_out(read_header(path))
        assert reason is not None
        assert reason.kind == "own-result"


def test_a_study_is_divided_completely_and_in_order() -> None:
    headers = [header(SOPInstanceUID=f"2.25.{10 + number}", InstanceNumber=number) for number in (3, 1, 2)]
    report = header(uid.EnhancedSRStorage, SOPInstanceUID="2.25.99")
    del report.Rows
    selection = select([*headers, report])
    assert [one.InstanceNumber for one in selection.images] == [1, 2, 3]
    assert [entry.sop_instance_uid for entry in selection.left_out] == ["2.25.99"]


@pytest.mark.parametrize(
    ("name", "kind", "concept"),
    [
        ("MR_truncated.dcm", "undecodable", "incorrectly formatted"),
        ("test-SR.dcm", "not-an-image", "not supported"),
        ("liver_1frame.dcm", "unsupported", "not supported"),
        ("rtplan_truncated.dcm", "unreadable", "incorrectly formatted"),
    ],
)
def test_a_failed_reading_becomes_a_reason(name: str, kind: str, concept: str, real_image: RealImage) -> None:
    with pytest.raises(ReadingError) as caught:
        read_image(real_image(name))
    reason = reason_for(caught.value)
    assert (reason.kind, reason.concept) == (kind, concept)
    assert str(real_image(name)) not in reason.words


def test_real_files(real_image: RealImage) -> None:
    assert why_left_out(read_header(real_image("RG1_J2KR.dcm"))) is None
    assert why_left_out(read_header(real_image("eCT_Supplemental.dcm"))) is None
    assert why_left_out(read_header(real_image("waveform_ecg.dcm"))) is not None
