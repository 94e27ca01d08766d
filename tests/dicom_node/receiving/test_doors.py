"""Who gets in, how many at once, and what strangers on the port can do: nothing to others."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pydicom.uid import (
    ImplicitVRLittleEndian,
)
from pynetdicom.sop_class import Verification

from dicom_node.config import Peer
from dicom_node.receiving.instance import StoreOutcome
from dicom_node.receiving.listener import SILENT_CONNECTIONS

ECHO = [(Verification, ImplicitVRLittleEndian)]


def _until(condition: Any, seconds: Any = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def _reject_codes(assoc: Any) -> Any:
    answer = assoc.acceptor.primitive
    return (answer.result, answer.result_source, answer.diagnostic)


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
