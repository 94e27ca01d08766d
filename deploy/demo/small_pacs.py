"""A small archive for the demonstration and the benchmarks: a storage SCP that writes what it gets into a folder."""

import hashlib
import threading
from pathlib import Path
from types import TracebackType

from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event

_config.LOG_HANDLER_LEVEL = "none"


class SmallPacs:
    """``with SmallPacs(folder) as pacs``: listens on a free loopback port; `received` grows as objects come in."""

    ae_title = "SMALLPACS"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.received: list[Path] = []
        self._lock = threading.Lock()

    def __enter__(self) -> "SmallPacs":
        ae = AE(ae_title=self.ae_title)
        ae.supported_contexts = AllStoragePresentationContexts
        ae.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self._server.server_address[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()

    def _store(self, event: Event) -> int:
        data_set = event.dataset
        digest = hashlib.sha256(str(data_set.StudyInstanceUID).encode()).hexdigest()
        folder = self.folder / f"study-{digest[:6]}"
        folder.mkdir(exist_ok=True)
        name = f"{data_set.SeriesNumber}-{int(data_set.InstanceNumber):02}-{data_set.Modality}.dcm"
        path = folder / name
        path.write_bytes(event.encoded_dataset())
        with self._lock:
            self.received.append(path)
        return 0x0000
