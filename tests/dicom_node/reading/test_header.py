"""Headers of good, odd and hostile files."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from struct import pack

import pytest
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileMetaDataset

from dicom_node.errors import ImageTooLarge, ReadingError, UnreadableFile
from dicom_node.reading import Limits, read_header, read_image

RealImage = Callable[[str], Path]


def part10(tmp_path: Path, body: bytes, syntax: uid.UID = uid.ExplicitVRLittleEndian) -> Path:
    """A file with a valid beginning and `body` as its data set."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = uid.CTImageStorage, "2.25.1"
    path = tmp_path / "made.dcm"
    ds.save_as(path, enforce_file_format=True)
    if syntax != uid.ExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = syntax
        buffer = tmp_path / "deflated.dcm"
        ds.save_as(buffer, enforce_file_format=True)
        length = 132 + 12 + int(dcmread(buffer).file_meta.FileMetaInformationGroupLength)
        path.write_bytes(buffer.read_bytes()[:length])
    with path.open("ab") as file:
        file.write(body)
    return path


def test_a_header_has_everything_but_the_pixels(real_image: RealImage) -> None:
    header = read_header(real_image("RG1_UNCR.dcm"))
    assert header.Rows == 1955
    assert str(header.PatientName) == "CompressedSamples^RG1"
    assert "PixelData" not in header
    assert header.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian


def test_texts_are_kept_as_received(real_image: RealImage) -> None:
    header = read_header(real_image("J2K_pixelrep_mismatch.dcm"))
    assert header.SpecificCharacterSet == ["ISO 2022 IR 13", "ISO 2022 IR 87"]
    assert header.verbatim[0x00100020] == ("LO", header.PatientID.encode() + b" " * (len(header.PatientID) % 2))
    assert 0x00100010 in header.verbatim
    assert 0x00100030 not in header.verbatim


def test_a_copy_keeps_the_texts_bytes(real_image: RealImage) -> None:
    header = read_header(real_image("CT_small.dcm"))
    assert deepcopy(header).verbatim == header.verbatim != {}


def test_a_wrongly_declared_character_set_is_read_and_its_bytes_are_kept(tmp_path: Path) -> None:
    name = "Müller^Jürgen".encode("latin-1") + b" "
    body = pack("<HH2sH", 0x0008, 0x0005, b"CS", 10) + b"ISO_IR 192"
    body += pack("<HH2sH", 0x0010, 0x0010, b"PN", len(name)) + name
    header = read_header(part10(tmp_path, body))
    assert header.verbatim[0x00100010] == ("PN", name)
    assert "ller" in str(header.PatientName)


def test_an_unknown_character_set_is_read(tmp_path: Path) -> None:
    body = pack("<HH2sH", 0x0008, 0x0005, b"CS", 10) + b"KLINGON_1 "
    body += pack("<HH2sH", 0x0010, 0x0010, b"PN", 4) + b"A^B "
    assert str(read_header(part10(tmp_path, body)).PatientName) == "A^B"


def test_a_broken_value_is_left_out_alone(tmp_path: Path) -> None:
    body = pack("<HH2sH", 0x0019, 0x1010, b"FD", 6) + b"123456"
    body += pack("<HH2sH", 0x0020, 0x0013, b"IS", 2) + b"7 "
    body += pack("<HH2sH", 0x0028, 0x0010, b"US", 3) + b"123"
    header = read_header(part10(tmp_path, body))
    assert header.InstanceNumber == 7
    assert "Rows" not in header
    assert (0x0019, 0x1010) not in header


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    opening = pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(UnreadableFile):
        read_header(part10(tmp_path, opening * 3000))
    closing = pack("<HHI", 0xFFFE, 0xE00D, 0) + pack("<HHI", 0xFFFE, 0xE0DD, 0)
    with pytest.raises(UnreadableFile, match="nested too deeply"):
        read_header(part10(tmp_path, opening * 30 + closing * 30))
    assert "ReferencedImageSequence" in read_header(part10(tmp_path, opening * 10 + closing * 10))


def test_an_inflating_bomb_stays_small(tmp_path: Path) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    element = pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, 200 << 20)
    bomb = packer.compress(element) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    path = part10(tmp_path, bomb, uid.DeflatedExplicitVRLittleEndian)
    assert path.stat().st_size < 300_000
    tracemalloc.start()
    with pytest.raises(ImageTooLarge, match="inflated"):
        read_header(path, Limits(inflated_bytes=8 << 20))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_cut_off_deflated_file_is_refused(tmp_path: Path, real_image: RealImage) -> None:
    whole = real_image("image_dfl.dcm").read_bytes()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(whole[:-400])
    with pytest.raises(UnreadableFile):
        read_header(cut)
    assert read_header(real_image("image_dfl.dcm")).Rows == 512


def test_an_element_that_claims_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    path = part10(tmp_path, pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, 0xFFFFFFF0) + b"0123456789")
    tracemalloc.start()
    with pytest.raises(UnreadableFile, match="claims 4294967280 bytes, 10 are there"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_a_file_over_the_limit_is_not_parsed(real_image: RealImage) -> None:
    with pytest.raises(ImageTooLarge, match="file size"):
        read_header(real_image("CT_small.dcm"), Limits(file_bytes=1000))


@pytest.mark.parametrize("content", [b"", b"DICM", b"\0" * 128 + b"DICM", b"%PDF-1.7 " * 100, b"\0" * 132])
def test_what_is_not_dicom_says_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.dcm"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile):
        read_header(path)


def test_a_missing_file_is_a_reading_error(tmp_path: Path) -> None:
    with pytest.raises(ReadingError):
        read_image(tmp_path / "none.dcm")
