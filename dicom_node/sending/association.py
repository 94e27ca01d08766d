"""One outgoing association, opened promptly and closed properly; knows nothing of the objects it will carry."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.sending.outcome import AssociationKind, AssociationOutcome, EchoReport, classify_rejection

if TYPE_CHECKING:
    from dicom_node.config import Peer, SendingConfig

VERIFICATION = "1.2.840.10008.1.1"
#: PS3.8 section 9.3.2.2: context IDs are the odd numbers up to 255
MAXIMUM_CONTEXTS = 128


@dataclass(frozen=True, kw_only=True)
class OpenAssociation:
    """What `associate` gives: the association when it was accepted, and in any case how it went."""

    outcome: AssociationOutcome
    association: Association | None = None


@contextmanager
def associate(
    peer: Peer, contexts: Sequence[PresentationContext], config: SendingConfig, calling_ae: str
) -> Iterator[OpenAssociation]:
    """Open an association with a peer, and release it (or abort it, if the block raised) at the end of the block.

    Parameters
    ----------
    contexts : sequence of PresentationContext
        What is proposed, at most `MAXIMUM_CONTEXTS`.
    calling_ae : str
        Our AE title.
    """
    if peer.host is None or peer.port is None:
        yield OpenAssociation(outcome=_unreachable("the peer has no address", permanent=True))
        return
    configure_libraries()
    connected = threading.Event()
    handlers: list[Any] = [
        (evt.EVT_CONN_OPEN, _without_delay, [connected]),
        (evt.EVT_DATA_SENT, _acknowledge_at_once),
    ]
    ae = _entity(config, calling_ae)
    try:
        assoc = ae.associate(
            peer.host,
            peer.port,
            contexts=list(contexts),
            ae_title=peer.ae_title,
            max_pdu=config.maximum_pdu,
            evt_handlers=handlers,
        )
    except OSError:  # a host name that can't be resolved
        yield OpenAssociation(outcome=_unreachable("the peer's host name cannot be resolved"))
        return
    outcome = _outcome(assoc, connected.is_set())
    try:
        yield OpenAssociation(outcome=outcome, association=assoc if outcome.kind is AssociationKind.ACCEPTED else None)
        if assoc.is_established:
            assoc.release()
    finally:
        if assoc.is_established:
            assoc.abort()


def verify(peer: Peer, config: SendingConfig, calling_ae: str) -> EchoReport:
    """Ask a peer for a C-ECHO (PS3.4 Annex A) and tell the answer in plain words."""
    started = time.monotonic()
    words, reachable = "", False
    with associate(peer, [build_context(VERIFICATION)], config, calling_ae) as opened:
        if opened.association is None:
            words = opened.outcome.words
        else:
            status = opened.association.send_c_echo()
            if "Status" not in status:
                words = "association accepted, but no answer to the C-ECHO"
            elif status.Status == 0x0000:
                words, reachable = "answers", True
            else:
                words = f"answers the C-ECHO with 0x{status.Status:04X}"
    return EchoReport(reachable=reachable, words=words, seconds=time.monotonic() - started)


def configure_libraries() -> None:
    """Set what pynetdicom keeps for the whole process: no identifiers in logs, files sent without decoding."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_SEND_CHUNKED_DATASET = True


def _entity(config: SendingConfig, calling_ae: str) -> AE:
    """Make our own application entity, with the configured time-outs."""
    ae = AE(ae_title=calling_ae)
    ae.acse_timeout = config.acse_timeout
    ae.dimse_timeout = config.dimse_timeout
    ae.network_timeout = config.network_timeout
    ae.connection_timeout = config.connection_timeout
    return ae


def _outcome(assoc: Association, connected: bool) -> AssociationOutcome:
    """Say how the request for an association went."""
    if assoc.is_established:
        return AssociationOutcome(kind=AssociationKind.ACCEPTED, words="association accepted")
    answer = assoc.acceptor.primitive
    if assoc.is_rejected:
        codes = (answer.result, answer.result_source, answer.diagnostic) if answer is not None else (None, None, None)
        return classify_rejection(*codes)
    if not connected:
        return _unreachable("no TCP connection: refused, unreachable or timed out")
    if answer is not None and answer.result == 0 and not assoc.accepted_contexts:
        words = "the peer accepts the association, but none of the SOP classes and transfer syntaxes"
        return AssociationOutcome(kind=AssociationKind.REJECTED, words=words, permanent=True)
    return _unreachable("connected, but no answer to the association request")


def _unreachable(words: str, *, permanent: bool = False) -> AssociationOutcome:
    """Give the outcome of an association that never came to be."""
    return AssociationOutcome(kind=AssociationKind.UNREACHABLE, words=words, permanent=permanent)


def _without_delay(event: Event, connected: threading.Event) -> None:
    """Handle EVT_CONN_OPEN: without TCP_NODELAY each message waits 40 ms for an acknowledgement of its first half."""
    connected.set()
    connection = _connection(event)
    if connection is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _acknowledge_at_once(event: Event) -> None:
    """Handle EVT_DATA_SENT: a peer that leaves Nagle's algorithm on waits for our acknowledgement; send it at once."""
    connection, option = _connection(event), getattr(socket, "TCP_QUICKACK", None)
    if connection is None or option is None:
        return
    try:
        connection.setsockopt(socket.IPPROTO_TCP, option, 1)
    except OSError:
        return  # closed by the peer meanwhile


def _connection(event: Event) -> socket.socket | None:
    """Give the TCP socket of an event's association, if it still has one."""
    wrapped = event.assoc.dul.socket
    return None if wrapped is None else wrapped.socket
