"""How bytes are read from an accepted connection: acknowledged at once, bounded in size and time; knows no message."""

import socket
import time
from typing import Final, cast

from pynetdicom.events import Event
from pynetdicom.transport import AssociationSocket

#: largest PDU taken whatever was negotiated: A-ASSOCIATE-RQ has no limit of its own, and some senders exceed ours a
#: little
LARGEST_PDU: Final = 2 * 1024 * 1024
#: the same when the configuration sets no limit
LARGEST_PDU_UNLIMITED: Final = 128 * 1024 * 1024
_CHUNK: Final = 256 * 1024


class PromptSocket(AssociationSocket):
    """An association's socket that acknowledges at once and doesn't wait for ever.

    `recv` is called twice for each PDU, for its 6 bytes of header and for the rest. TCP_QUICKACK has to be set again
    before each read: without it, a sender that leaves Nagle's algorithm on (DCMTK, Orthanc) waits about 40 ms for every
    message.
    """

    #: a whole PDU has to arrive within this time
    seconds_per_pdu: float = 60.0
    largest_pdu: int = LARGEST_PDU

    def recv(self, nr_bytes: int) -> bytearray:
        """Read `nr_bytes`, or fewer when the peer closes.

        Raises
        ------
        OSError
            The PDU is too long or too slow; the association ends.
        """
        if nr_bytes > self.largest_pdu:
            raise OSError("PDU too long")
        if self.socket is None:
            raise OSError("connection closed")
        deadline = time.monotonic() + self.seconds_per_pdu
        received = bytearray()
        acknowledge_at_once(self.socket)
        while len(received) < nr_bytes:
            self.socket.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self.socket.recv(min(nr_bytes - len(received), _CHUNK))
            if not piece:
                break
            received += piece
        return received


def make_prompt(event: Event, seconds_per_pdu: float, maximum_pdu: int) -> None:
    """Handle EVT_CONN_OPEN: make the socket prompt before its first byte is read, and turn Nagle's algorithm off.

    The association's own socket object changes its class: pynetdicom makes it before this event and offers no other
    place.
    """
    wrapped = event.assoc.dul.socket
    if wrapped is None or wrapped.socket is None:
        return
    wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    wrapped.socket.settimeout(seconds_per_pdu)
    wrapped.__class__ = PromptSocket
    prompt = cast(PromptSocket, wrapped)
    prompt.seconds_per_pdu = seconds_per_pdu
    prompt.largest_pdu = max(LARGEST_PDU, 2 * maximum_pdu) if maximum_pdu else LARGEST_PDU_UNLIMITED


def acknowledge_at_once(connection: socket.socket) -> None:
    """Send pending TCP acknowledgements now (Linux; elsewhere nothing happens)."""
    option = getattr(socket, "TCP_QUICKACK", None)
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, 1)


def hang_up(wrapped: AssociationSocket | None) -> None:
    """End a connection from another thread: its reader sees the end of the stream and closes in its own order."""
    if wrapped is not None and wrapped.socket is not None:
        try:
            wrapped.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # already gone
