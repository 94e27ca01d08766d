"""Patient and study leave as they came; everything of ours is in its place."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from struct import pack
from types import ModuleType

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.objects import part10
from dicom_node.objects.header import PATIENT, STUDY, Identity, body_part, common_header, plain
from dicom_node.reading import read_header

RealImage = Callable[[str], Path]

NAMES = [
    ("ISO_IR 100", "Müller^Jürgen".encode("latin-1")),
    ("ISO_IR 126", "Διονυσιος".encode("iso8859_7")),
    ("ISO_IR 144", "Люкceмбypг".encode("iso8859_5")),
    ("ISO_IR 166", "นามสกุล".encode("tis-620")),
    ("ISO_IR 192", "王^小东=王^小東".encode()),
    ("GB18030", "王^小东".encode("gb18030")),
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"),
    (
        "ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ),
    (
        "\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ),
    ("ISO_IR 192", "Müller^Jürgen".encode("latin-1")),  # wrongly declared
    ("ISO_IR 100", b"\xff\xfe\x80\x81^\x1b$B"),  # nothing at all
    ("", "Müller".encode("latin-1")),  # not declared
]


def named(tmp_path: Path, real_image: RealImage, charset: str, name: bytes) -> Path:
    """CT_small with other name, description and character set, byte for byte as given."""
    ds = dcmread(real_image("CT_small.dcm"))
    for keyword in ("PatientName", "SpecificCharacterSet", "StudyDescription"):
        if keyword in ds:
            delattr(ds, keyword)
    ds.PatientName, ds.StudyDescription = "X" * 64, "Y" * 64
    ds.SpecificCharacterSet = "Z" * 16
    buffer = BytesIO()
    ds.save_as(buffer)
    whole = buffer.getvalue()
    for placeholder, tag, vr, value in (
        (b"X" * 64, (0x0010, 0x0010), b"PN", name),
        (b"Y" * 64, (0x0008, 0x1030), b"LO", name),
        (b"Z" * 16, (0x0008, 0x0005), b"CS", charset.encode()),
    ):
        padded = value + b" " * (len(value) % 2)
        old = pack("<HH2sH", *tag, vr, len(placeholder)) + placeholder
        assert whole.count(old) == 1
        whole = whole.replace(old, pack("<HH2sH", *tag, vr, len(padded)) + padded)
    path = tmp_path / "named.dcm"
    path.write_bytes(whole)
    return path


def element_bytes(encoded: bytes, tag: tuple[int, int], vr: bytes) -> bytes:
    """The first element's value, found without a DICOM library."""
    start = encoded.index(pack("<HH2s", *tag, vr)) + 6
    length = int.from_bytes(encoded[start : start + 2], "little")
    return encoded[start + 2 : start + 2 + length]


@pytest.mark.parametrize(("charset", "name"), NAMES)
def test_names_return_byte_for_byte(
    charset: str, name: bytes, tmp_path: Path, real_image: RealImage, results: ModuleType
) -> None:
    path = named(tmp_path, real_image, charset, name)
    source = path.read_bytes()
    for kind, result in results.every_kind(path).items():
        encoded = part10.encoded(result)
        for tag, vr in (((0x0010, 0x0010), b"PN"), ((0x0008, 0x1030), b"LO"), ((0x0008, 0x0005), b"CS")):
            assert element_bytes(encoded, tag, vr) == element_bytes(source, tag, vr), kind


@pytest.mark.parametrize("name", ["RG1_UNCR.dcm", "CT_small.dcm", "693_UNCR.dcm", "eCT_Supplemental.dcm"])
def test_patient_and_study_are_the_sources(name: str, real_image: RealImage, results: ModuleType) -> None:
    header = read_header(real_image(name))
    result = dcmread(BytesIO(part10.encoded(common_header(header, identity(), results.provenance(header)))))
    for keyword in (*PATIENT, *STUDY):
        given = header.get(keyword)
        if given not in (None, "") and not (keyword in ("PatientWeight", "PatientSize") and given <= 0):
            assert result[keyword].value == given, keyword


def identity() -> Identity:
    return Identity(
        kind="summary-report",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.88.33",
        sop_instance_uid="2.25.9",
        instance_number=4,
        modality="SR",
        series_description="AI report: " + "x" * 90,
    )


def source(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID = "2.25.5"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def test_a_bare_source_still_gives_all_required_attributes(results: ModuleType) -> None:
    result = common_header(source(), identity(), results.provenance(source()))
    for keyword in ("PatientName", "PatientID", "StudyDate", "AccessionNumber", "ReferringPhysicianName"):
        assert keyword in result
        assert not result.get(keyword)
    assert (result.SeriesNumber, result.InstanceNumber, result.Modality) == (9006, 4, "SR")
    assert len(result.SeriesDescription) == 64
    assert result.SeriesInstanceUID != result.SOPInstanceUID


def test_the_node_and_the_sources_device_contributed(results: ModuleType) -> None:
    header = source(Manufacturer="Maker", ManufacturerModelName="Model 1")
    node, device = common_header(header, identity(), results.provenance(header)).ContributingEquipmentSequence
    assert node.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert node.ManufacturerModelName == "camnode"
    assert "chest-demo 1.0.0" in node.ContributionDescription
    assert "ab" * 32 in node.ContributionDescription
    assert device.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"
    assert (device.Manufacturer, device.ManufacturerModelName) == ("Maker", "Model 1")
    other_model = results.provenance(header, model_version="1.0.1")
    other = common_header(header, identity(), other_model).ContributingEquipmentSequence[0]
    assert other.DeviceUID != node.DeviceUID


def test_times_are_stated_in_the_sources_time_zone(results: ModuleType) -> None:
    made_by = results.provenance(source())
    plain_time = common_header(source(), identity(), made_by)
    assert (plain_time.ContentDate, plain_time.ContentTime) == ("20261123", "040506")
    assert "TimezoneOffsetFromUTC" not in plain_time
    west = common_header(source(TimezoneOffsetFromUTC="-0530"), identity(), made_by)
    assert (west.ContentDate, west.ContentTime, west.TimezoneOffsetFromUTC) == ("20261122", "223506", "-0530")
    assert "TimezoneOffsetFromUTC" not in common_header(source(TimezoneOffsetFromUTC="later"), identity(), made_by)


def test_deidentification_is_copied_whole(results: ModuleType) -> None:
    made_by = results.provenance(source())
    removed = source(PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    assert common_header(removed, identity(), made_by).DeidentificationMethod == "by hand"
    assert common_header(source(PatientIdentityRemoved="YES"), identity(), made_by).DeidentificationMethod
    assert "DeidentificationMethod" not in common_header(source(), identity(), made_by)


def test_a_weight_of_zero_is_no_weight(results: ModuleType) -> None:
    made_by = results.provenance(source())
    assert "PatientWeight" not in common_header(source(PatientWeight=0), identity(), made_by)
    assert common_header(source(PatientWeight="70.5"), identity(), made_by).PatientWeight == 70.5


def test_the_source_is_not_changed(results: ModuleType, real_image: RealImage) -> None:
    header = read_header(real_image("CT_small.dcm"))
    before = header.to_json()
    result = common_header(header, identity(), results.provenance(header))
    result.PatientID = "other"
    assert header.to_json() == before


@pytest.mark.parametrize(
    ("given", "declared", "expected"),
    [
        ("CHEST", (), "CHEST"),
        ("thorax/lung", (), "THORAX LUNG"),
        ("", ("CHEST",), "CHEST"),
        (None, (), None),
        ("Extremity of great length", (), "EXTREMITY OF GRE"),
    ],
)
def test_body_part_is_a_valid_code_string(given: str | None, declared: tuple[str, ...], expected: str | None) -> None:
    assert body_part(source(BodyPartExamined=given), declared) == expected


def test_our_text_is_the_same_in_every_character_set() -> None:
    assert plain("10 ± 2 mm², ≥ 50 % – “größer”~\\", 64) == '10 +- 2 mm2, >= 50 % - "groesser"-/'
    assert plain("日本", 64) == "??"
