"""Files to send, and pynetdicom providers that behave badly, all on 127.0.0.1."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import BaseServer
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ComprehensiveSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import Verification
from pynetdicom.transport import ThreadedAssociationServer

from dicom_node.config import Peer, SendingConfig
from dicom_node.sending.outcome import Outgoing


@pytest.fixture
def config() -> SendingConfig:
    """Short time-outs."""
    return SendingConfig(acse_timeout=3, dimse_timeout=1.5, network_timeout=5, connection_timeout=2)


class Provider:
    """A running pynetdicom storage provider; `received` holds (SOP Instance UID, transfer syntax, bytes)."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, bytes]] = []
        self.server = None

    @property
    def peer(self) -> Peer:
        return Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=self.server.server_address[1])


@pytest.fixture
def provider() -> Iterator[Callable[..., Provider]]:
    """Starts providers. `answers` come in turn, the last for ever: a status, "drop", "abort" or seconds to wait."""
    servers: list[Any] = []

    def _start(
        classes: Any = None, syntaxes: Any = None, answers: Any = (0x0000,), echo: Any = 0x0000, **settings: Any
    ) -> Provider:
        box, queue = Provider(), list(answers)

        def _store(event: Any) -> Any:
            syntax = str(event.context.transfer_syntax)
            box.received.append(
                (str(event.request.AffectedSOPInstanceUID), syntax, event.encoded_dataset(include_meta=False))
            )
            answer = queue.pop(0) if len(queue) > 1 else queue[0]
            if answer == "drop":
                event.assoc.dul.socket.socket.close()
                return 0x0000
            if answer == "abort":
                event.assoc.abort()
                return 0x0000
            if isinstance(answer, float):
                time.sleep(answer)
                return 0x0000
            return answer

        ae = AE(ae_title="PACS")
        for key, value in settings.items():
            setattr(ae, key, value)
        classes = [SecondaryCaptureImageStorage, ComprehensiveSRStorage] if classes is None else classes
        contexts = [build_context(uid, syntaxes or [ExplicitVRLittleEndian]) for uid in classes]
        contexts.append(build_context(Verification))
        handlers = [(evt.EVT_C_STORE, _store), (evt.EVT_C_ECHO, lambda event: echo)]
        box.server = ae.make_server(
            ("127.0.0.1", 0), contexts=contexts, evt_handlers=handlers, server_class=ThreadedAssociationServer
        )
        threading.Thread(target=box.server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(box.server)
        return box

    yield _start
    for server in servers:
        BaseServer.shutdown(server)
        server.server_close()
        for assoc in server.active_associations:
            assoc.abort()


@pytest.fixture
def outgoing(tmp_path: Path) -> Callable[..., Outgoing]:
    """Writes a small file and describes it."""

    def _outgoing(
        uid: str = "1.2.3.1",
        sop_class: UID = SecondaryCaptureImageStorage,
        syntax: UID = ExplicitVRLittleEndian,
        fallback: Outgoing | None = None,
        size: int = 4,
    ) -> Outgoing:
        ds = Dataset()
        ds.SOPClassUID, ds.SOPInstanceUID = sop_class, uid
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID = "1.2.3", "1.2.4", "P-1"
        ds.Rows, ds.Columns, ds.BitsAllocated = size // 4, 4, 8
        ds.PixelData = bytes(range(4)) * (size // 4)
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = syntax.is_compressed
        if syntax.is_compressed:
            ds.PixelData = encapsulate([ds.PixelData])
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        path = Path(tmp_path) / f"{uid}.dcm"
        ds.save_as(path, enforce_file_format=True)
        return Outgoing(
            path=path,
            sop_class_uid=str(sop_class),
            sop_instance_uid=uid,
            transfer_syntax_uid=str(syntax),
            fallback=fallback,
        )

    return _outgoing


@pytest.fixture
def data_set_bytes() -> Callable[[Path], bytes]:
    """What follows preamble and group 2 in a file."""

    def _bytes(path: Path) -> bytes:
        whole = path.read_bytes()
        return whole[144 + int.from_bytes(whole[140:144], "little") :]

    return _bytes
