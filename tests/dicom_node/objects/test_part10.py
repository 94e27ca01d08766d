"""The same object gives the same bytes, whenever it is built."""

from __future__ import annotations

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.errors import ObjectError
from dicom_node.objects import part10

RealImage = Callable[[str], Path]


@pytest.mark.parametrize("name", ["CT_small.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_two_builds_at_different_times_are_equal_byte_for_byte(
    name: str, real_image: RealImage, results: ModuleType
) -> None:
    first = {kind: part10.encoded(result) for kind, result in results.every_kind(real_image(name)).items()}
    time.sleep(1.1)
    second = {kind: part10.encoded(result) for kind, result in results.every_kind(real_image(name)).items()}
    assert first == second
    assert len(set(first.values())) == 7


def test_a_file_is_explicit_little_endian_with_its_own_meta(real_image: RealImage, results: ModuleType) -> None:
    result = results.every_kind(real_image("CT_small.dcm"))["overlay"]
    read = dcmread(BytesIO(part10.encoded(result)))
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert read.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert read.file_meta.ImplementationVersionName == "CAMNODE"


def test_writing_again_replaces_the_file_and_leaves_nothing_else(
    tmp_path: Path, real_image: RealImage, results: ModuleType
) -> None:
    result = results.every_kind(real_image("CT_small.dcm"))["summary"]
    path = tmp_path / "a.dcm"
    part10.write(result, path)
    before = path.read_bytes()
    part10.write(result, path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["a.dcm"]


def test_what_cant_be_encoded_is_an_object_error() -> None:
    broken = Dataset()
    broken.SOPClassUID, broken.SOPInstanceUID = "1.2", "1.3"
    broken.Rows = 10_000_000
    with pytest.raises(ObjectError):
        part10.encoded(broken)
