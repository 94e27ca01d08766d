"""Identifiers and routing attributes from encoded bytes."""

import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)
from pynetdicom.dsutils import encode

from dicom_node.errors import (
    InvalidUID,
    MissingSeriesUID,
    MissingStudyUID,
    MissingUID,
    ReceivingError,
    UnreadableDataSet,
)
from dicom_node.receiving.header import FIRST_LOOK, check_uid, read_header

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_reads_identifiers_and_plain_values(instance: Any, encoded: Callable[..., Any], syntax: Any) -> None:
    ds = instance(StudyDescription="Röntgen Thorax", NumberOfFrames="3", PatientAge="063Y", PatientBirthDate="19600102")
    header = read_header(encoded(ds, syntax), syntax)
    assert header.sop_class_uid == CTImageStorage
    assert header.sop_instance_uid == ds.SOPInstanceUID
    assert header.study_instance_uid == ds.StudyInstanceUID
    assert header.series_instance_uid == ds.SeriesInstanceUID
    attributes = header.attributes
    assert attributes["ImageType"] == ["ORIGINAL", "PRIMARY"]
    assert attributes["StudyDescription"] == "Röntgen Thorax"
    assert attributes["Rows"] == 2
    assert attributes["InstanceNumber"] == 7
    assert attributes["NumberOfFrames"] == 3
    assert attributes["PatientAge"] == "063Y"
    assert attributes["StudyDate"] == "20260101"
    assert json.loads(json.dumps(attributes)) == attributes
    assert "PixelData" not in attributes


def test_an_encapsulated_syntax_is_explicit_little_endian(instance: Any, encoded: Callable[..., Any]) -> None:
    assert read_header(encoded(instance()), JPEGLSLossless).study_instance_uid == instance().StudyInstanceUID


@pytest.mark.parametrize(
    ("charset", "text"),
    [
        ("ISO_IR 100", "Übersicht"),
        ("ISO_IR 144", "Грудь"),
        ("ISO_IR 192", "胸部"),
        ("GB18030", "胸部正位"),
        (["", "ISO 2022 IR 87"], "胸部"),
        (["", "ISO 2022 IR 149"], "흉부"),
    ],
)
def test_character_sets(instance: Any, encoded: Callable[..., Any], charset: Any, text: Any) -> None:
    ds = instance(SpecificCharacterSet=charset, StudyDescription=text)
    assert read_header(encoded(ds), ExplicitVRLittleEndian).attributes["StudyDescription"] == text


def test_whose_study_it_is_is_kept_as_decoded_text(instance: Any, encoded: Callable[..., Any]) -> None:
    ds = instance(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎", StudyID="7")
    kept = read_header(encoded(ds), ExplicitVRLittleEndian).attributes
    assert (kept["PatientName"], kept["StudyID"]) == ("Yamada^Tarou=山田^太郎", "7")
    assert json.loads(json.dumps(kept)) == kept


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("charset", [b"ISO_IR 999 ", b"nonsense"])
def test_an_unknown_character_set_costs_nothing_but_its_text(
    instance: Any, encoded: Callable[..., Any], charset: Any
) -> None:
    data_set = encoded(instance(SpecificCharacterSet=None, Modality="CT"))
    head = b"\x08\x00\x05\x00CS" + struct.pack("<H", len(charset)) + charset
    header = read_header(head + data_set, ExplicitVRLittleEndian)
    assert header.study_instance_uid == instance().StudyInstanceUID
    assert header.attributes["Modality"] == "CT"


@pytest.mark.filterwarnings("ignore")
def test_a_broken_value_is_left_out(instance: Any, encoded: Callable[..., Any]) -> None:
    data_set = encoded(instance()).replace(b"\x20\x00\x13\x00IS\x02\x007 ", b"\x20\x00\x13\x00IS\x02\x00x ")
    header = read_header(data_set, ExplicitVRLittleEndian)
    assert "InstanceNumber" not in header.attributes
    assert header.attributes["Rows"] == 2


def test_empty_values_are_left_out(instance: Any, encoded: Callable[..., Any]) -> None:
    assert (
        "AccessionNumber" not in read_header(encoded(instance(AccessionNumber="")), ExplicitVRLittleEndian).attributes
    )


@pytest.mark.parametrize(
    ("keyword", "error"),
    [
        ("StudyInstanceUID", MissingStudyUID),
        ("SeriesInstanceUID", MissingSeriesUID),
        ("SOPInstanceUID", MissingUID),
        ("SOPClassUID", MissingUID),
    ],
)
@pytest.mark.parametrize("how", [None, ""])
def test_missing_identifiers_are_named(
    instance: Any, encoded: Callable[..., Any], keyword: Any, error: Any, how: Any
) -> None:
    with pytest.raises(error) as raised:
        read_header(encoded(instance(**{keyword: how})), ExplicitVRLittleEndian)
    assert raised.value.keyword == keyword


@pytest.mark.parametrize(
    "uid", ["../../etc/x", "/etc/abs", "1..2", "1.2.", ".1", "1.2.x", "1" * 65, "1.2/3", "1.2\\3", "١.٢"]
)
def test_a_uid_that_is_none_is_refused(uid: Any) -> None:
    with pytest.raises(InvalidUID) as raised:
        check_uid(uid, "StudyInstanceUID")
    assert uid not in str(raised.value)


@pytest.mark.parametrize("uid", ["1.2.3", "1.2.840.0001.05", "2.25." + "9" * 59])
def test_leading_zeros_and_64_characters_are_taken(uid: Any) -> None:
    assert check_uid(uid, "StudyInstanceUID") == uid


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_path_like_identifiers_in_the_data_set(instance: Any, encoded: Callable[..., Any], keyword: Any) -> None:
    data_set = encoded(instance()).replace(getattr(instance(), keyword).encode(), b"../../../../../../../tmp/pwn")
    with pytest.raises(InvalidUID):
        read_header(data_set, ExplicitVRLittleEndian)


@pytest.mark.filterwarnings("ignore")
def test_several_study_uids_are_none(instance: Any, encoded: Callable[..., Any]) -> None:
    with pytest.raises(InvalidUID):
        read_header(encoded(instance(StudyInstanceUID=["1.2.3", "1.2.4"])), ExplicitVRLittleEndian)


def _with_references(instance: Any, count: Any) -> Any:
    references = []
    for number in range(count):
        reference = Dataset()
        reference.ReferencedSOPClassUID = CTImageStorage
        reference.ReferencedSOPInstanceUID = f"1.2.826.0.1.3680043.8.498.1{number:029d}"
        references.append(reference)
    return instance(ReferencedImageSequence=Sequence(references))


def test_a_study_named_behind_thousands_of_references_is_found(instance: Any, encoded: Callable[..., Any]) -> None:
    data_set = encoded(_with_references(instance, 4000))
    assert data_set.index(b"\x20\x00\x0d\x00UI") > FIRST_LOOK
    assert read_header(data_set, ExplicitVRLittleEndian).study_instance_uid == instance().StudyInstanceUID


def test_a_deflated_study_behind_thousands_of_references_is_found(instance: Any, encoded: Callable[..., Any]) -> None:
    data_set = encoded(_with_references(instance, 4000), DeflatedExplicitVRLittleEndian)
    header = read_header(data_set, DeflatedExplicitVRLittleEndian)
    assert header.study_instance_uid == instance().StudyInstanceUID


def test_a_value_cut_off_by_the_limit_is_left_out(instance: Any, encoded: Callable[..., Any]) -> None:
    ds = instance(InstitutionName="I" * 40)
    data_set = encoded(ds)
    cut = data_set[: data_set.index(b"I" * 40) + 20]
    with pytest.raises(MissingStudyUID):
        read_header(cut, ExplicitVRLittleEndian)
    uid = str(ds.StudyInstanceUID).encode()
    with pytest.raises(MissingStudyUID):  # half a UID must not pass for a UID
        read_header(data_set[: data_set.index(uid) + 10], ExplicitVRLittleEndian)


def test_a_deflate_bomb_stays_small(instance: Any, encoded: Callable[..., Any]) -> None:
    plain = encoded(instance(PixelData=None)) + b"\xe0\x7f\x10\x00OB\x00\x00" + struct.pack("<L", 1 << 30)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = squeeze.compress(plain) + b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(256)) + squeeze.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    header = read_header(bomb, DeflatedExplicitVRLittleEndian)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.study_instance_uid == instance().StudyInstanceUID
    assert peak < 4 << 20


def test_a_deflate_bomb_without_a_study_is_bounded() -> None:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(256)) + squeeze.flush()
    started = time.monotonic()
    with pytest.raises(ReceivingError):
        read_header(bomb, DeflatedExplicitVRLittleEndian)
    assert time.monotonic() - started < 10


def test_deep_nesting_is_refused_with_a_word() -> None:
    sequence = b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    with pytest.raises(UnreadableDataSet, match="nested too deeply"):
        read_header(sequence * 5000, ExplicitVRLittleEndian)


@pytest.mark.parametrize("data_set", [b"", b"\0" * 1000, b"MSH|^~\\&|HL7|" * 20, b"\xff" * 64])
@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.filterwarnings("ignore")
def test_bytes_that_are_no_data_set(data_set: Any, syntax: Any) -> None:
    with pytest.raises(ReceivingError):
        read_header(data_set, syntax)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6),
    st.sampled_from(SYNTAXES),
)
def test_mutated_bytes_give_a_header_or_a_typed_refusal(mutations: Any, syntax: Any) -> None:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, "1.2.3"
    ds.Modality, ds.StudyDescription, ds.Rows = "CT", "x", 5
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.4", "1.2.5"
    data_set = bytearray(encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated))
    for where, piece in mutations:
        at = where % len(data_set)
        data_set[at : at + len(piece)] = piece
    try:
        header = read_header(bytes(data_set), syntax)
    except ReceivingError:
        return
    assert check_uid(header.study_instance_uid, "StudyInstanceUID")
    json.dumps(dict(header.attributes))
