"""The port that peers associate with: C-ECHO and C-STORE; decides nothing, knows no database, model or pixel."""

from __future__ import annotations

import logging
import socketserver
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from pydicom.config import IGNORE
from pydicom.config import settings as pydicom_settings
from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE, SOPClassCommonExtendedNegotiation
from pynetdicom.presentation import build_context
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.receiving.contexts import VERIFICATION, acceptable, storage_by_name
from dicom_node.receiving.instance import AssociationEvent, AssociationEventKind, ReceivedInstance, StoreOutcome
from dicom_node.receiving.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION
from dicom_node.receiving.policy import Rejection, congested, decide
from dicom_node.receiving.sockets import hang_up, make_prompt
from dicom_node.receiving.store import StoreAnswer, answer_store, printable, status_dataset

if TYPE_CHECKING:
    from dicom_node.config import Peer, ReceivingConfig

LOGGER = logging.getLogger(__name__)

#: connections that may be open without having asked for an association; the oldest is dropped for a newer one
SILENT_CONNECTIONS = 64
#: pynetdicom's own limit counts silent connections too, so ours replaces it
_NO_LIMIT = 1_000_000


@dataclass
class _Tally:
    """What one open association has brought so far."""

    instances: int = 0
    #: in order of the first instance; a dict for its order
    studies: dict[str, None] = field(default_factory=dict)


class _Server(ThreadedAssociationServer):
    """pynetdicom's server, closed without its AE's list of servers."""

    daemon_threads = True
    request_queue_size = 128

    def shutdown(self) -> None:
        """Stop accepting and close the port; open associations go on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()


class Listener:
    """A DICOM storage and verification provider on one port.

    Parameters
    ----------
    config : ReceivingConfig
        Port 0 takes a free one; see `port`.
    peers : sequence of Peer
        The known application entities that `policy.decide` looks at.
    store : callable
        Takes a ReceivedInstance and returns once it is durable, or says why not. Called from one thread per
        association.
    report : callable
        Takes every AssociationEvent, from the same threads. Should it raise, the association goes on and pynetdicom
        logs the error.
    """

    def __init__(
        self,
        config: ReceivingConfig,
        peers: Sequence[Peer],
        store: Callable[[ReceivedInstance], StoreOutcome],
        report: Callable[[AssociationEvent], None],
    ) -> None:
        self._config = config
        self._peers = tuple(peers)
        self._store = store
        self._report = report
        self._lock = threading.Lock()
        self._connections: dict[Association, float] = {}
        self._open: dict[Association, _Tally] = {}
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on.

        Raises
        ------
        RuntimeError
            The listener isn't running.
        """
        if self._server is None:
            raise RuntimeError("the listener is not running")
        return int(self._server.server_address[1])

    @property
    def open_associations(self) -> int:
        """How many associations are established now."""
        with self._lock:
            return len(self._open)

    def start(self) -> None:
        """Open the port and serve in threads of its own.

        Raises
        ------
        OSError
            The port is taken or the address isn't ours.
        RuntimeError
            The listener is running already.
        """
        if self._server is not None:
            raise RuntimeError("the listener is running already")
        configure_libraries()
        ae = AE(ae_title=self._config.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION
        ae.maximum_pdu_size = self._config.maximum_pdu
        ae.maximum_associations = _NO_LIMIT
        ae.acse_timeout = self._config.acse_timeout
        ae.dimse_timeout = self._config.dimse_timeout
        ae.network_timeout = self._config.network_timeout
        server = ae.make_server(
            (self._config.host, self._config.port),
            contexts=[build_context(VERIFICATION)],
            evt_handlers=self._handlers(),
            server_class=_Server,
        )
        self._server = cast(_Server, server)
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="camnode-listener", daemon=True)
        self._thread.start()

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Close the port, let open associations end for `grace_seconds`, then abort them. Safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            silent = [assoc for assoc in self._connections if assoc not in self._open]
        for assoc in silent:
            hang_up(assoc.dul.socket)
        deadline = time.monotonic() + grace_seconds
        while self.open_associations and time.monotonic() < deadline:
            time.sleep(0.02)
        with self._lock:
            left = [assoc for assoc in self._connections if assoc.is_alive()]
        if left:
            with ThreadPoolExecutor(max_workers=16, thread_name_prefix="camnode-abort") as pool:
                list(pool.map(_abort, left))

    def _handlers(self) -> list[Any]:
        """Bind pynetdicom's events to methods."""
        return [
            (evt.EVT_CONN_OPEN, self._connected),
            (evt.EVT_CONN_CLOSE, self._disconnected),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_SOP_COMMON, self._common_extended),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_C_STORE, self._store_requested),
            (evt.EVT_RELEASED, self._ended, [AssociationEventKind.RELEASED]),
            (evt.EVT_ABORTED, self._ended, [AssociationEventKind.ABORTED]),
        ]

    def _connected(self, event: Event) -> None:
        """A TCP connection came in: bound its reads, and keep the number of silent ones bounded."""
        make_prompt(event, self._config.network_timeout, self._config.maximum_pdu)
        now = time.monotonic()
        with self._lock:
            self._connections = {a: at for a, at in self._connections.items() if a.is_alive() or now - at < 5}
            silent = [assoc for assoc in self._connections if assoc.requestor.primitive is None]
            self._connections[event.assoc] = now
        for assoc in silent[: max(0, len(silent) - SILENT_CONNECTIONS + 1)]:
            hang_up(assoc.dul.socket)

    def _disconnected(self, event: Event) -> None:
        """A connection closed: a thread that still waits for its association request is woken, to end now."""
        with self._lock:
            self._connections.pop(event.assoc, None)
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)

    def _requested(self, event: Event) -> None:
        """An association is asked for: reject it, or set what may be negotiated."""
        assoc = event.assoc
        request = cast(A_ASSOCIATE, assoc.requestor.primitive)
        calling, called = request.calling_ae_title or "", request.called_ae_title or ""
        rejection = decide(calling, called, assoc.requestor.address or "", self._peers, self._config)
        if rejection is None:
            rejection = self._enter(assoc)
        if rejection is None:
            assoc.acceptor.supported_contexts = acceptable(assoc.requestor.requested_contexts)
            return
        self._reject(assoc, rejection)

    def _enter(self, assoc: Association) -> Rejection | None:
        """Count an association in, unless the node is full."""
        with self._lock:
            for gone in [other for other in self._open if not other.is_alive()]:
                del self._open[gone]
            rejection = congested(len(self._open), self._config)
            if rejection is None:
                self._open[assoc] = _Tally()
        return rejection

    def _reject(self, assoc: Association, rejection: Rejection) -> None:
        """Send the A-ASSOCIATE-RJ, report it, and end the association's threads once the peer has hung up."""
        assoc.acse.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        try:
            self._report(self._event(assoc, AssociationEventKind.REJECTED, reason=rejection.words))
        finally:
            assoc.kill()

    def _common_extended(self, event: Event) -> dict[Any, SOPClassCommonExtendedNegotiation]:
        """Let instances of private and unknown classes reach the storage handler."""
        return storage_by_name(event.assoc.requestor.requested_contexts)

    def _established(self, event: Event) -> None:
        """The association was accepted."""
        self._report(self._event(event.assoc, AssociationEventKind.ACCEPTED))

    def _store_requested(self, event: Event) -> Dataset:
        """Answer a C-STORE request."""
        answer = answer_store(event, self._store)
        if answer.taken and answer.instance is not None:
            with self._lock:
                tally = self._open.get(event.assoc)
                if tally is not None:
                    tally.instances += 1
                    tally.studies.setdefault(answer.instance.study_instance_uid)
        if answer.refused:
            self._report_refusal(event, answer)
        return status_dataset(answer)

    def _report_refusal(self, event: Event, answer: StoreAnswer) -> None:
        """Report an instance that was never handed on. Its identifiers are repeated only where they are harmless."""
        request = cast(C_STORE, event.request)
        self._report(
            self._event(
                event.assoc,
                AssociationEventKind.INSTANCE_REFUSED,
                reason=answer.comment,
                status=answer.status,
                sop_class_uid=_digits(request.AffectedSOPClassUID),
                sop_instance_uid=_digits(request.AffectedSOPInstanceUID),
            )
        )

    def _ended(self, event: Event, kind: AssociationEventKind) -> None:
        """An association was released or aborted; only the first of several such events counts."""
        with self._lock:
            tally = self._open.pop(event.assoc, None)
        if tally is not None:
            self._report(self._event(event.assoc, kind, study_uids=tuple(tally.studies), instances=tally.instances))

    def _event(self, assoc: Association, kind: AssociationEventKind, **facts: Any) -> AssociationEvent:
        """Fill in who and from where."""
        request = assoc.requestor.primitive
        calling = printable(getattr(request, "calling_ae_title", ""))
        called = printable(getattr(request, "called_ae_title", ""))
        address = assoc.requestor.address or ""
        return AssociationEvent(kind=kind, calling_ae=calling, called_ae=called, address=address, **facts)


def configure_libraries() -> None:
    """Set what pynetdicom and pydicom keep for the whole process: nothing of a patient in logs, and UIDs judged by us.

    pynetdicom's own check of a UID would abort the association; ours answers the one request and lets the others go on.
    pydicom's warnings about values repeat the values.
    """
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.VALIDATORS["UI"] = _any_uid
    logging.getLogger("pynetdicom.utils").setLevel(logging.CRITICAL)  # repeats the UIDs and titles it finds wrong
    pydicom_settings.reading_validation_mode = IGNORE


def _any_uid(value: Any) -> tuple[bool, str]:
    """Take any UID of a bearable length; `header.check_uid` judges it."""
    return (True, "") if isinstance(value, str) and 0 < len(value) <= 1024 else (False, "must be 1 to 1024 characters")


def _digits(uid: Any) -> str:
    """Give a UID for the audit trail: digits and dots, at most 64 characters, or nothing."""
    text = str(uid or "")
    return text if len(text) <= 64 and set(text) <= set("0123456789.") else ""


def _abort(assoc: Association) -> None:
    """Abort an association, or end one that was never established."""
    if assoc.is_established:
        assoc.abort()
    else:
        hang_up(assoc.dul.socket)
        assoc.join(timeout=2.0)
