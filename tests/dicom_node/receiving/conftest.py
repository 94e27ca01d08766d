"""Small data sets, a running listener and a requestor, all on 127.0.0.1."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from dicom_node.config import ReceivingConfig
from dicom_node.receiving.instance import AssociationEvent, ReceivedInstance, StoreOutcome
from dicom_node.receiving.listener import Listener


@dataclass
class Listening:
    """A running listener and everything it handed on."""

    listener: Listener
    received: list[ReceivedInstance] = field(default_factory=list)
    events: list[AssociationEvent] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.listener.port

    def kinds(self) -> list[str]:
        return [event.kind.value for event in self.events]


def _instance(**attributes: object) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    ds.StudyDate = "20260101"
    ds.Modality = "CT"
    ds.PatientName = "Kein^Name"
    ds.PatientID = "P-1"
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.2"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.3"
    ds.InstanceNumber = "7"
    ds.Rows, ds.Columns = 2, 2
    ds.BitsAllocated = 8
    ds.PixelRepresentation = 0
    ds.PixelData = b"\1\2\3\4"
    ds["PixelData"].VR = "OB"
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


@pytest.fixture
def instance() -> Callable[..., Dataset]:
    """Makes a small valid instance; keyword arguments change it, None removes."""
    return _instance


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Encodes a data set without group 2."""

    def _encoded(ds: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
        result = encode(ds, syntax.is_implicit_VR, syntax.is_little_endian, syntax.is_deflated)
        assert result is not None
        return result

    return _encoded


@pytest.fixture
def listening() -> Iterator[Callable[..., Listening]]:
    """Starts listeners and stops them at the end. `store` may be given to answer otherwise than STORED."""
    running: list[Listening] = []

    def _start(
        store: Callable[[ReceivedInstance], StoreOutcome] | None = None, peers: Sequence[object] = (), **config: object
    ) -> Listening:
        settings = ReceivingConfig(**{"port": 0, "host": "127.0.0.1", **config})

        def _store(received: ReceivedInstance) -> StoreOutcome:
            box.received.append(received)
            return StoreOutcome.STORED if store is None else store(received)

        box = Listening(listener=None)  # type: ignore[arg-type]
        box.listener = Listener(settings, peers, _store, box.events.append)
        box.listener.start()
        running.append(box)
        return box

    yield _start
    for box in running:
        box.listener.stop(grace_seconds=0)


@pytest.fixture
def associated() -> Callable[..., object]:
    """Opens an association as a context manager; released (or aborted) at the end of the block."""

    @contextmanager
    def _associated(
        port: int, contexts: Sequence[tuple[str, object]] = (), calling: str = "MODALITY", called: str = "ANY-SCP"
    ) -> Iterator[Association]:
        ae = AE(ae_title=calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 15
        proposed = [build_context(*context) for context in contexts or [(CTImageStorage, ExplicitVRLittleEndian)]]
        assoc = ae.associate("127.0.0.1", port, contexts=proposed, ae_title=called)
        try:
            yield assoc
            if assoc.is_established:
                assoc.release()
        finally:
            if assoc.is_established:
                assoc.abort()

    return _associated


@pytest.fixture
def send_raw() -> Callable[..., int | None]:
    """Sends any bytes as a C-STORE with any identifiers in the command; gives the status."""

    def _send(assoc: Association, data_set: bytes, sop_class: str, sop_instance: str) -> Dataset:
        request = C_STORE()
        request.MessageID = 1
        request.Priority = 2
        request.AffectedSOPClassUID = sop_class
        request.AffectedSOPInstanceUID = sop_instance
        request.DataSet = BytesIO(data_set)
        context = next(each for each in assoc.accepted_contexts if each.abstract_syntax == sop_class)
        assoc._reactor_checkpoint.clear()
        while not assoc._is_paused:
            pass
        assoc.dimse.send_msg(request, context.context_id)
        _, response = assoc.dimse.get_msg(block=True)
        assoc._reactor_checkpoint.set()
        answer = Dataset()
        if response is not None:
            answer.Status = response.Status
            if response.ErrorComment:
                answer.ErrorComment = response.ErrorComment
        return answer

    return _send
