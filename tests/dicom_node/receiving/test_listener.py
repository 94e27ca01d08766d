"""The listener over real associations on 127.0.0.1."""

import logging
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

from dicom_node.config import Peer
from dicom_node.receiving import listener as listener_module
from dicom_node.receiving.instance import StoreOutcome
from dicom_node.receiving.listener import SILENT_CONNECTIONS

ECHO = [(Verification, ImplicitVRLittleEndian)]
PRIVATE_CLASS = "1.3.12.2.1107.5.9.1"
UNKNOWN_CLASS = "1.2.840.10008.5.1.4.1.1.999999"


def _until(condition: Any, seconds: Any = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _reject_codes(assoc: Any) -> Any:
    answer = assoc.acceptor.primitive
    return (answer.result, answer.result_source, answer.diagnostic)


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


def test_an_unknown_called_title_is_rejected(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening(called_ae_titles=("CAMNODE",))
    with associated(node.port, ECHO, called="OTHER") as assoc:
        assert assoc.is_rejected
        assert _reject_codes(assoc) == (1, 1, 7)
    with associated(node.port, ECHO, called="CAMNODE") as assoc:
        assert assoc.is_established
    rejected = node.events[0]
    assert (rejected.kind.value, rejected.calling_ae, rejected.called_ae) == ("rejected", "MODALITY", "OTHER")
    assert rejected.reason


def test_an_unknown_calling_title_is_rejected(listening: Any, associated: Callable[..., Any]) -> None:
    peers = [
        Peer(name="ct", ae_title="CT1", role="sender"),
        Peer(name="far", ae_title="FAR", role="sender", host="192.0.2.1"),
    ]
    node = listening(promiscuous=False, peers=peers)
    for calling in ("STRANGER", "FAR"):
        with associated(node.port, ECHO, calling=calling) as assoc:
            assert assoc.is_rejected
            assert _reject_codes(assoc) == (1, 1, 3)
    with associated(node.port, ECHO, calling="CT1") as assoc:
        assert assoc.is_established
    assert node.kinds()[:2] == ["rejected", "rejected"]


def test_a_report_that_raises_does_not_open_the_door(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening(called_ae_titles=("CAMNODE",))

    def _fail(event: Any) -> None:
        raise RuntimeError("audit trail not writable")

    node.listener._report = _fail
    with associated(node.port, ECHO, called="OTHER") as assoc:
        assert _reject_codes(assoc) == (1, 1, 7)
    with associated(node.port, ECHO, called="CAMNODE") as assoc:
        assert assoc.send_c_echo().Status == 0x0000


def test_the_number_of_associations_is_limited(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening(maximum_associations=2)
    with associated(node.port, ECHO) as first, associated(node.port, ECHO) as second:
        assert first.is_established
        assert second.is_established
        _until(lambda: node.listener.open_associations == 2)
        with associated(node.port, ECHO) as third:
            assert third.is_rejected
            assert _reject_codes(third) == (2, 3, 2)
    _until(lambda: node.listener.open_associations == 0)
    with associated(node.port, ECHO) as fourth:
        assert fourth.is_established
    assert node.kinds().count("rejected") == 1


def test_twenty_associations_at_once(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any
) -> None:
    node = listening()
    together = threading.Barrier(20)

    def _one(number: Any) -> Any:
        with associated(node.port) as assoc:
            together.wait(timeout=30)
            statuses = []
            for image in range(5):
                ds = instance(SOPInstanceUID=f"1.2.{number + 1}.{image + 1}")
                statuses.append(send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID).Status)
            return statuses

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(_one, range(20)))
    assert answers == [[0] * 5] * 20
    assert len({received.sop_instance_uid for received in node.received}) == 100
    _until(lambda: node.kinds().count("released") == 20)


def test_a_slow_store_does_not_hold_up_an_echo(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any
) -> None:
    free, entered = threading.Event(), threading.Event()

    def _store(received: Any) -> Any:
        entered.set()
        free.wait(20)
        return StoreOutcome.STORED

    node, ds = listening(store=_store), instance()

    def _send() -> Any:
        with associated(node.port) as assoc:
            return send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID).Status

    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(_send)
        assert entered.wait(10)
        started = time.monotonic()
        with associated(node.port, ECHO) as assoc:
            assert assoc.send_c_echo().Status == 0
        assert time.monotonic() - started < 1.0
        free.set()
        assert sending.result(20) == 0


@pytest.mark.parametrize(
    "noise",
    [
        b"MSH|^~\\&|LAB|WARD|||20260101||ORU^R01|1|P|2.5\r",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",  # an association request of 4 GiB
        b"\x01\x00\x00\x00\x00\x04\x00\x00\x00\x00",  # one that can't be decoded
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",  # data before any association
        b"\x01\x00",  # half a header
        b"",
    ],
)
def test_bytes_that_are_not_dicom_disturb_nobody(listening: Any, associated: Callable[..., Any], noise: Any) -> None:
    node = listening()
    before = threading.active_count()
    strangers = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(10)]
    for stranger in strangers:
        stranger.sendall(noise)
    started = time.monotonic()
    with associated(node.port, ECHO) as assoc:
        assert assoc.send_c_echo().Status == 0
    assert time.monotonic() - started < 1.0
    for stranger in strangers:
        stranger.close()
    _until(lambda: threading.active_count() <= before, 10)


def test_silent_connections_lock_nobody_out(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening(maximum_associations=2)
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(20)]
    started = time.monotonic()
    with associated(node.port, ECHO) as assoc:
        assert assoc.send_c_echo().Status == 0
    assert time.monotonic() - started < 1.0
    for each in silent:
        each.close()


def test_the_oldest_silent_connection_gives_way(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening()
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(SILENT_CONNECTIONS + 5)]
    silent[0].settimeout(10)
    assert silent[0].recv(1) == b"", "the oldest was hung up"
    with associated(node.port, ECHO) as assoc:
        assert assoc.send_c_echo().Status == 0
    silent[-1].settimeout(0.2)
    with pytest.raises(TimeoutError):
        silent[-1].recv(1)
    for each in silent:
        each.close()


def test_connects_that_say_nothing_leave_no_thread(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening()
    before = threading.active_count()
    for _ in range(200):
        socket.create_connection(("127.0.0.1", node.port)).close()
    _until(lambda: threading.active_count() <= before, 15)
    with associated(node.port, ECHO) as assoc:
        assert assoc.is_established


def test_half_a_pdu_is_not_waited_for_for_ever(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening(network_timeout=0.5)
    with socket.create_connection(("127.0.0.1", node.port)) as stranger:
        stranger.sendall(b"\x01\x00\x00\x00\x10\x00half")
        stranger.settimeout(10)
        started = time.monotonic()
        assert stranger.recv(64) in {b"", b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"}
        assert time.monotonic() - started < 5


def test_a_peer_that_vanishes_frees_its_place(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening(maximum_associations=1)
    with associated(node.port, ECHO) as assoc:
        assoc.dul.socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assoc.dul.socket.socket.close()
        _until(lambda: node.listener.open_associations == 0)
        _until(lambda: "aborted" in node.kinds())
        assoc.abort()
    with associated(node.port, ECHO) as assoc:
        assert assoc.is_established


def test_stop_ends_cleanly(listening: Any, associated: Callable[..., Any]) -> None:
    node = listening()
    port = node.port
    with associated(node.port, ECHO) as assoc:
        with socket.create_connection(("127.0.0.1", port)):
            started = time.monotonic()
            node.listener.stop(grace_seconds=0.2)
            assert time.monotonic() - started < 5
        _until(lambda: not assoc.is_established)
    assert "aborted" in node.kinds()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    with pytest.raises(RuntimeError):
        _ = node.port
    node.listener.stop()
    node.listener.start()
    with associated(node.port, ECHO) as assoc:
        assert assoc.send_c_echo().Status == 0


def test_stop_lets_an_association_finish(
    listening: Any, associated: Any, instance: Any, encoded: Any, send_raw: Any
) -> None:
    node, ds = listening(), instance()
    with associated(node.port) as assoc, ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(node.listener.stop, 10.0)
        time.sleep(0.3)
        assert send_raw(assoc, encoded(ds), ds.SOPClassUID, ds.SOPInstanceUID).Status == 0
        assoc.release()
        stopping.result(5)
    assert node.kinds()[-1] == "released"


def test_start_twice_and_a_taken_port(listening: Any) -> None:
    node = listening()
    with pytest.raises(RuntimeError):
        node.listener.start()
    with pytest.raises(OSError):
        listening(port=node.port)


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
