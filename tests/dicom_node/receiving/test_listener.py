"""The listener over real associations on 127.0.0.1."""

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.sop_class import Verification

from dicom_node.receiving import listener as listener_module
from dicom_node.receiving.instance import StoreOutcome

ECHO = [(Verification, ImplicitVRLittleEndian)]
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
UNKNOWN_CLASS = "1.2.840.10008.5.1.4.1.1.999999"


def _until(condition: Any, seconds: Any = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("called", ["CAMNODE", "ANYTHING", "X"])
def test_echo_answers_on_every_title(listening: Any, associated: Callable[..., Any], called: Any) -> None:
    node = listening()
    with associated(node.port, ECHO, called=called) as assoc:
        assert assoc.send_c_echo().Status == 0x0000
    _until(lambda: "released" in node.kinds())
    assert node.kinds() == ["accepted", "released"]
    assert (node.events[0].calling_ae, node.events[0].called_ae) == ("MODALITY", called)
    assert node.events[0].address == "127.0.0.1"


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        JPEG2000Lossless,
        "1.2.840.10008.1.2.4.55",
    ],
)
def test_bytes_arrive_verbatim(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, syntax: Any
) -> None:
    node, ds = listening(), instance(StudyDescription="Grüße")
    plain = {ExplicitVRBigEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian}
    data_set = encoded(ds, syntax if syntax in plain else ExplicitVRLittleEndian)
    with associated(node.port, [(CTImageStorage, syntax)]) as assoc:
        assert send_raw(assoc, data_set, ds.SOPClassUID, ds.SOPInstanceUID).Status == 0x0000
    (received,) = node.received
    assert received.encoded == data_set
    assert received.transfer_syntax_uid == syntax
    assert received.study_instance_uid == ds.StudyInstanceUID
    assert received.attributes["StudyDescription"] == "Grüße"
    assert (received.calling_ae, received.called_ae, received.address) == ("MODALITY", "ANY-SCP", "127.0.0.1")


@pytest.mark.parametrize("sop_class", [PRIVATE_CLASS, UNKNOWN_CLASS, "1.2.840.10008.5.1.4.1.1.6"])
def test_private_unknown_and_retired_classes_are_stored(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, sop_class: Any
) -> None:
    node, ds = listening(), instance(SOPClassUID=sop_class)
    with associated(node.port, [(sop_class, ExplicitVRLittleEndian)]) as assoc:
        assert send_raw(assoc, encoded(ds), sop_class, ds.SOPInstanceUID).Status == 0x0000
    assert node.received[0].sop_class_uid == sop_class


def test_other_services_are_not_accepted(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening()
    classes = ["1.2.840.10008.1.20.1", "1.2.840.10008.5.1.4.1.2.2.1"]
    with associated(node.port, [*ECHO, *((uid, ImplicitVRLittleEndian) for uid in classes)]) as assoc:
        assert [context.abstract_syntax for context in assoc.accepted_contexts] == [Verification]
        assert {context.result for context in assoc.rejected_contexts} == {0x03}


def test_the_release_tells_which_studies_came(
    listening: Any, associated: Callable[..., Any], instance: Callable[..., Any]
) -> None:
    node = listening()
    with associated(node.port) as assoc:
        for number, study in enumerate(["1.2.1", "1.2.2", "1.2.1"]):
            ds = instance(SOPInstanceUID=f"1.2.3.{number}", StudyInstanceUID=study)
            ds.file_meta = _meta(ds)
            assert assoc.send_c_store(ds).Status == 0x0000
    _until(lambda: "released" in node.kinds())
    assert node.events[-1].study_uids == ("1.2.1", "1.2.2")
    assert node.events[-1].instances == 3


def _meta(ds: Any) -> Any:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return meta


@pytest.mark.parametrize(
    "expected",
    [
        (StoreOutcome.STORED, 0x0000),
        (StoreOutcome.DUPLICATE, 0x0000),
        (StoreOutcome.OUT_OF_RESOURCES, 0xA700),
        (StoreOutcome.FAILED, 0xC001),
    ],
)
def test_what_the_store_says_is_answered(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, expected: Any
) -> None:
    outcome, status = expected
    node, ds = listening(store=lambda received: outcome), instance()
    with associated(node.port) as assoc:
        assert send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID).Status == status
    _until(lambda: "released" in node.kinds())
    assert node.events[-1].instances == (1 if status == 0 else 0)


def test_a_store_that_raises_gives_a_status_and_says_nothing_about_the_patient(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def _store(received: Any) -> None:
        raise RuntimeError(f"cannot write {received.attributes['PatientID']}")

    node, ds = listening(store=_store), instance(PatientID="CANARY-4711")
    with caplog.at_level(logging.DEBUG), associated(node.port) as assoc:
        answer = send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID)
        assert answer.Status == 0xC001
        assert "CANARY" not in answer.ErrorComment
        assert assoc.is_established
    assert "RuntimeError" in caplog.text
    assert "CANARY" not in caplog.text


@pytest.mark.parametrize("uid", ["../../../../tmp/pwn", "/etc/abs", "1." + "2" * 70, "1..2", "1.2.x"])
def test_an_instance_uid_that_is_none_is_refused(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, uid: Any
) -> None:
    node, ds = listening(), instance()
    with associated(node.port) as assoc:
        assert send_raw(assoc, encoded(ds), ds.SOPClassUID, uid).Status == 0x0117
        assert send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID).Status == 0x0000, "the next one is taken"
    assert [received.sop_instance_uid for received in node.received] == [ds.SOPInstanceUID]
    refusal = next(event for event in node.events if event.kind.value == "instance refused")
    assert refusal.status == 0x0117
    assert "/" not in refusal.sop_instance_uid


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changes",
    [
        {"StudyInstanceUID": None},
        {"StudyInstanceUID": ""},
        {"StudyInstanceUID": "../../../../tmp/pwn"},
        {"SeriesInstanceUID": None},
        {"SeriesInstanceUID": "1.2/../3"},
        {"SOPInstanceUID": "1.2.3.4.5"},
        {"SOPInstanceUID": None},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"},
    ],
)
def test_identifiers_of_the_data_set_are_checked(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, changes: Any
) -> None:
    node = listening()
    with associated(node.port) as assoc:
        data_set = encoded(instance(**changes))
        answer = send_raw(assoc, data_set, CTImageStorage, instance().SOPInstanceUID)
        assert answer.Status == 0xA900
        assert 0 < len(answer.ErrorComment) <= 64
    assert node.received == []
    refusal = next(event for event in node.events if event.kind.value == "instance refused")
    assert (refusal.status, refusal.reason) == (0xA900, answer.ErrorComment)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "data_set", [b"\0" * 200, b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 2000]
)
def test_bytes_that_cannot_be_parsed(
    listening: Any, associated: Any, instance: Any, send_raw: Any, data_set: Any
) -> None:
    node = listening()
    with associated(node.port) as assoc:
        assert send_raw(assoc, data_set, CTImageStorage, "1.2.3").Status == 0xC000
        assert assoc.is_established
    assert node.received == []


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="TCP_QUICKACK is Linux only")
def test_a_sender_with_nagles_algorithm_is_not_slowed_down(
    listening: Any, instance: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message of such a sender is two writes, and the second waits for the acknowledgement of the first."""

    node, ds = listening(), instance()
    prompt = _seconds_for_ten(node.port, ds)
    monkeypatch.setattr("dicom_node.receiving.sockets.acknowledge_at_once", lambda connection: None)
    late = _seconds_for_ten(node.port, ds)
    assert prompt < late / 2


def _seconds_for_ten(port: Any, ds: Any) -> Any:

    def _split(event: Any) -> None:  # header and body in two writes, as DCMTK does
        wrapped = event.assoc.dul.socket
        whole = wrapped.send

        def _send(bytestream: Any) -> None:
            wrapped.socket.sendall(bytestream[:12])
            whole(bytestream[12:])

        wrapped.send = _send

    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    assoc = AE().associate("127.0.0.1", port, contexts=contexts, evt_handlers=[(evt.EVT_CONN_OPEN, _split)])
    ds.file_meta = _meta(ds)
    started = time.monotonic()
    for _ in range(10):
        assert assoc.send_c_store(ds).Status == 0
    seconds = time.monotonic() - started
    assoc.release()
    return seconds


def test_the_library_settings_keep_identifiers_out_of_logs() -> None:
    listener_module.configure_libraries()
    assert _config.LOG_HANDLER_LEVEL == "none"
    assert _config.LOG_REQUEST_IDENTIFIERS is False
    assert _config.UNRESTRICTED_STORAGE_SERVICE is False


def test_a_whole_reception_logs_nothing_about_the_patient(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node = listening()
    with caplog.at_level(logging.DEBUG), associated(node.port) as assoc:
        ds = instance(PatientID="CANARY-4711", PatientName="Canary^Bird", PatientBirthDate="not a CANARY date")
        assert send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID).Status == 0
        assert send_raw(assoc, encoded(ds), ds.SOPClassUID, "../CANARY").Status == 0x0117
    assert "canary" not in caplog.text.lower()
    assert all("canary" not in repr(event).lower() for event in node.events)
    assert node.received[0].attributes["PatientName"] == "Canary^Bird"  # kept for answers, never logged
