"""Pictures keep to their source: patient side, geometry, lossy history; never more than is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL.ImageCms import ImageCmsProfile
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import ObjectError
from dicom_node.objects import part10, secondary_capture
from dicom_node.objects.secondary_capture import Capture, build, patient_orientation, picture_of, srgb_profile
from dicom_node.reading import read_header, read_image

RealImage = Callable[[str], Path]


@pytest.fixture
def overlay(real_image: RealImage, results: ModuleType) -> Callable[[str], tuple[Capture, Dataset]]:
    def make(name: str, **changes: object) -> tuple[Capture, Dataset]:
        header, image = read_header(real_image(name)), read_image(real_image(name))
        capture = replace(results.capture(header, image, results.saliency(image)), **changes)
        return capture, build(results.picture(image), capture, results.provenance(header))

    return make


def test_pixels_return_identical(real_image: RealImage, results: ModuleType) -> None:
    header, image = read_header(real_image("RG1_UNCR.dcm")), read_image(real_image("RG1_UNCR.dcm"))
    pixels = results.picture(image)
    result = build(pixels, results.capture(header, image, results.saliency(image)), results.provenance(header))
    assert np.array_equal(dcmread(BytesIO(part10.encoded(result))).pixel_array, pixels)


@pytest.mark.parametrize("shape", [(11, 10, 3), (10, 11, 3), (10, 10), (10, 10, 4), (0, 10, 3)])
def test_odd_or_other_pixels_are_refused(shape: tuple[int, ...], real_image: RealImage, results: ModuleType) -> None:
    header = read_header(real_image("CT_small.dcm"))
    capture = Capture(header=header, card=results.CARD, kind="panel", title="methods compared")
    with pytest.raises(ObjectError):
        build(np.zeros(shape, np.uint8), capture, results.provenance(header))


def test_what_a_viewer_shows(overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    _, result = overlay("RG1_UNCR.dcm")
    assert (result.Modality, result.ConversionType, result.BurnedInAnnotation) == ("OT", "WSD", "NO")
    assert list(result.ImageType) == ["DERIVED", "SECONDARY"]
    assert result.SeriesDescription == "AI activation maps: chest-demo 1.0.0"
    assert result.SeriesNumber == 9001
    for words in ("Grad-CAM Nodule 87.3 %", "Not for primary diagnosis", "not ground truth", "not for clinical use"):
        assert words in result.ImageComments
    assert list(result.PatientOrientation) == ["L", "F"]
    assert result.BodyPartExamined == "CHEST"
    item = result.SourceImageSequence[0]
    assert item.ReferencedSOPInstanceUID.startswith("1.3.6.1.4.1.5962")
    assert item.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert item.SpatialLocationsPreserved == "YES"
    assert "grad-cam" in result.DerivationDescription


def test_zero_spacing_and_projections_give_no_geometry(overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    _, result = overlay("RG1_UNCR.dcm")
    assert "PixelSpacing" not in result
    assert "ImagePositionPatient" not in result


def test_a_ct_picture_lies_where_its_image_lies(overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    capture, result = overlay("CT_small.dcm")
    header = capture.header
    assert [float(each) for each in result.PixelSpacing] == [float(each) for each in header.PixelSpacing]
    assert result.FrameOfReferenceUID == header.FrameOfReferenceUID
    assert list(map(float, result.ImagePositionPatient)) == list(map(float, header.ImagePositionPatient))
    assert list(result.PatientOrientation) == ["L", "P"]


def test_a_canvas_border_moves_the_corner(overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    capture, result = overlay("CT_small.dcm", anatomy=(10, 4, 138, 132))
    spacing = float(capture.header.PixelSpacing[0])
    start = [float(each) for each in capture.header.ImagePositionPatient]
    moved = [float(each) for each in result.ImagePositionPatient]
    assert moved == pytest.approx([start[0] - 10 * spacing, start[1] - 4 * spacing, start[2]])
    assert result.SourceImageSequence[0].SpatialLocationsPreserved == "NO"


@pytest.mark.parametrize("changes", [{"scale": (0.5, 0.5)}, {"anatomy": None}, {"kind": "panel"}])
def test_another_grid_has_no_millimetres(
    changes: dict[str, object], overlay: Callable[..., tuple[Capture, Dataset]]
) -> None:
    _, result = overlay("CT_small.dcm", **changes)
    assert "PixelSpacing" not in result
    assert "ImagePositionPatient" not in result


def test_without_frame_of_reference_there_is_spacing_but_no_position(
    overlay: Callable[..., tuple[Capture, Dataset]],
) -> None:
    _, result = overlay("693_UNCR.dcm")
    assert "PixelSpacing" in result
    assert "ImagePositionPatient" not in result
    assert "FrameOfReferenceUID" not in result


def test_a_frame_of_an_enhanced_image_is_named_and_placed(overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    capture, result = overlay("eCT_Supplemental.dcm", frame=1)
    assert result.SourceImageSequence[0].ReferencedFrameNumber == 2
    plane = capture.header.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0]
    assert [float(each) for each in result.ImagePositionPatient] == [float(each) for each in plane.ImagePositionPatient]


@pytest.mark.parametrize(
    ("name", "lossy"),
    [("RG1_UNCR.dcm", "00"), ("SC_rgb_jpeg_dcmtk.dcm", "01"), ("JPGExtended.dcm", "01"), ("693_J2KI.dcm", "01")],
)
def test_once_lossy_always_lossy(name: str, lossy: str, overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    assert overlay(name)[1].LossyImageCompression == lossy


def test_uids_are_known_beforehand_and_differ_by_what_is_shown(
    overlay: Callable[..., tuple[Capture, Dataset]], results: ModuleType
) -> None:
    capture, result = overlay("CT_small.dcm")
    made_by = results.provenance(capture.header)
    assert picture_of(capture, made_by).reference.sop_instance_uid == result.SOPInstanceUID
    others = [
        capture,
        replace(capture, method="cam"),
        replace(capture, finding=results.NOT_FOUND),
        replace(capture, frame=1),
        replace(capture, kind="panel"),
    ]
    assert len({picture_of(each, made_by).reference.sop_instance_uid for each in others}) == len(others)
    assert len({picture_of(each, made_by).reference.series_instance_uid for each in others}) == 1


def test_a_notice_claims_no_source_image(real_image: RealImage, results: ModuleType) -> None:
    header = read_header(real_image("test-SR.dcm"))
    capture = Capture(header=header, card=results.CARD, kind="notice", title="AI not performed: no image")
    result = build(np.zeros((64, 64, 3), np.uint8), capture, results.provenance(header))
    assert "SourceImageSequence" not in result
    assert "AI not performed: no image" in result.ImageComments
    assert result.SeriesNumber == 9008


@pytest.mark.parametrize(
    ("axes", "letters"),
    [
        ([1, 0, 0, 0, 1, 0], ["L", "P"]),
        ([0, 1, 0, 0, 0, -1], ["P", "F"]),
        ([0.7, 0.7, 0, 0, 0, -1], ["LP", "F"]),
        ([-1, 0, 0, 0, 0, -1], ["R", "F"]),
    ],
)
def test_orientation_from_the_axes(axes: list[float], letters: list[str]) -> None:
    header = Dataset()
    header.ImageOrientationPatient = axes
    assert patient_orientation(header, 0) == letters
    assert patient_orientation(Dataset(), 0) is None


@pytest.mark.parametrize(
    ("part", "sides", "expected"),
    [
        ("CHEST", {}, None),
        ("CHEST", {"Laterality": "L"}, "L"),
        ("HAND", {"Laterality": "R"}, "R"),
        ("HAND", {"ImageLaterality": "L", "Laterality": "R"}, "L"),
        ("HAND", {}, "U"),
        ("HAND", {"Laterality": ""}, "U"),
    ],
)
def test_the_side_is_stated_where_there_are_two(
    part: str,
    sides: dict[str, str],
    expected: str | None,
    overlay: Callable[..., tuple[Capture, Dataset]],
    real_image: RealImage,
) -> None:
    header = read_header(real_image("CT_small.dcm"))
    header.BodyPartExamined = part
    for keyword, side in sides.items():
        setattr(header, keyword, side)
    capture, _ = overlay("CT_small.dcm")
    result = Dataset()
    secondary_capture._general_image(result, replace(capture, header=header))
    assert result.get("ImageLaterality") == expected
    assert "Laterality" not in result


def test_a_frame_is_not_named_where_the_class_has_none(overlay: Callable[..., tuple[Capture, Dataset]]) -> None:
    _, result = overlay("OBXXXX1A_2frame.dcm")
    assert "ReferencedFrameNumber" not in result.SourceImageSequence[0]


def test_the_profile_is_small_srgb_of_a_permitted_class() -> None:
    profile = srgb_profile()
    assert profile[12:16] == b"scnr"
    assert len(profile) < 4096
    assert len(profile) % 2 == 0
    assert "sRGB" in ImageCmsProfile(BytesIO(profile)).profile.profile_description


def test_a_head_may_be_recognised(overlay: Callable[..., tuple[Capture, Dataset]], real_image: RealImage) -> None:
    header = read_header(real_image("CT_small.dcm"))
    header.BodyPartExamined = "Head"
    capture, _ = overlay("CT_small.dcm")
    result = Dataset()
    secondary_capture._general_image(result, replace(capture, header=header))
    assert result.RecognizableVisualFeatures == "YES"
