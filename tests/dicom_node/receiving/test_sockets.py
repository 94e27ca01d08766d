"""Reading from an accepted connection: bounded in size and in time."""

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AssociationSocket

from dicom_node.receiving.sockets import LARGEST_PDU, LARGEST_PDU_UNLIMITED, PromptSocket, hang_up, make_prompt


@pytest.fixture
def pair() -> Iterator[Any]:
    """A PromptSocket with one second a PDU, and the socket at the other end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    assoc = Association(AE(), "acceptor")
    wrapped = AssociationSocket(assoc, client_socket=near)
    assoc.set_socket(wrapped)
    make_prompt(SimpleNamespace(assoc=assoc), 1.0, 131_072)
    yield wrapped, far
    near.close()
    far.close()


def test_the_socket_is_made_prompt(pair: Any) -> None:
    wrapped, _ = pair
    assert isinstance(wrapped, PromptSocket)
    assert wrapped.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    assert wrapped.largest_pdu == LARGEST_PDU


@pytest.mark.parametrize(
    ("maximum_pdu", "largest"), [(0, LARGEST_PDU_UNLIMITED), (1000, LARGEST_PDU), (4 << 20, 8 << 20)]
)
def test_the_longest_pdu_follows_the_configuration(pair: Any, maximum_pdu: Any, largest: Any) -> None:
    wrapped, _ = pair
    make_prompt(SimpleNamespace(assoc=wrapped.assoc), 1.0, maximum_pdu)
    assert wrapped.largest_pdu == largest


def test_bytes_come_whole_and_in_order(pair: Any) -> None:
    wrapped, far = pair
    sent = bytes(range(256)) * 4096
    writer = threading.Thread(target=far.sendall, args=(sent,))
    writer.start()
    assert wrapped.recv(6) == sent[:6]
    assert wrapped.recv(len(sent) - 6) == sent[6:]
    writer.join()


def test_a_closed_connection_gives_what_came(pair: Any) -> None:
    wrapped, far = pair
    far.sendall(b"abc")
    far.close()
    assert wrapped.recv(6) == b"abc"


def test_a_pdu_that_claims_too_much_is_not_waited_for(pair: Any) -> None:
    wrapped, _ = pair
    with pytest.raises(OSError, match="too long"):
        wrapped.recv(LARGEST_PDU + 1)


def test_a_byte_now_and_then_does_not_extend_the_time(pair: Any) -> None:
    wrapped, far = pair
    stop = threading.Event()

    def _drip() -> None:
        while not stop.wait(0.2):
            far.sendall(b"x")

    dripping = threading.Thread(target=_drip)
    dripping.start()
    started = time.monotonic()
    with pytest.raises(OSError):
        wrapped.recv(1000)
    seconds = time.monotonic() - started
    stop.set()
    dripping.join()
    assert 0.8 < seconds < 2.5


def test_hanging_up_wakes_the_reader(pair: Any) -> None:
    wrapped, _ = pair
    threading.Timer(0.2, hang_up, [wrapped]).start()
    started = time.monotonic()
    assert wrapped.recv(10) == b""
    assert time.monotonic() - started < 0.9
    wrapped.socket.close()
    hang_up(wrapped)
    hang_up(None)
