"""A site in a folder for the demonstration and the benchmarks: configuration, a running node, and its rows."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection

from storage import jobs, outbox, studies
from storage.database import Database
from storage.schema import DeliveryState

MODEL = Path(__file__).parents[1] / "models" / "chest-demo" / "model.toml"


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(kw_only=True)
class Site:
    """``with Site(folder=…, pacs_port=…) as site``: a node in a process of its own on embedded defaults."""

    folder: Path
    pacs_port: int
    pacs_ae_title: str = "SMALLPACS"
    quiet_seconds: float = 2.0
    methods: tuple[str, ...] = ("cam", "grad-cam", "grad-cam++", "score-cam")
    port: int = field(default_factory=free_port)

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "camnode.toml"

    def __enter__(self) -> "Site":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self._configuration(), encoding="utf-8")
        self.started = time.time()
        with open(self.folder / "node.log", "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dicom_node", "run", "--config", str(self.config)], stderr=log, stdout=log
            )
        self._wait_until_listening()
        self.database = Database(f"sqlite:///{self.folder / 'data' / 'camnode.db'}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.database.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _configuration(self) -> str:
        methods = ", ".join(f'"{method}"' for method in self.methods)
        return (
            f'[node]\nfolder = "data"\n\n[receiving]\nport = {self.port}\n\n'
            f"[studies]\nquiet_seconds = {self.quiet_seconds}\n\n"
            f'[peers.pacs]\nae_title = "{self.pacs_ae_title}"\nhost = "127.0.0.1"\nport = {self.pacs_port}\n\n'
            f'[models]\nchest-demo = "{os.path.relpath(MODEL, self.folder)}"\n\n'
            f'[[routes]]\nname = "everything"\nwhen = "true"\nmodel = "chest-demo"\nmethods = [{methods}]\n'
            f'destinations = ["pacs"]\n'
        )

    def _wait_until_listening(self, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the node did not start; see {self.folder / 'node.log'}")

    def state_of(self, study_uid: str) -> tuple[studies.Study | None, jobs.Job | None, list[outbox.Delivery]]:
        """The study's row, its last job and that job's deliveries, as far as they exist."""
        with self.database.reading() as connection:
            return _state(connection, study_uid)

    def is_delivered(self, study_uid: str) -> bool:
        """Whether the study's last job has ended and every result was taken by its peer."""
        _, job, deliveries = self.state_of(study_uid)
        return bool(job and not job.is_open and deliveries) and all(
            one.state == DeliveryState.SENT for one in deliveries
        )

    def wait_for_model(self, seconds: float = 120) -> dict[str, Any]:
        """Wait until the child has loaded the model; returns the audit event's details."""
        from storage import audit  # noqa: PLC0415

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for event in audit.events(self.database, event="model."):
                return dict(event.details)
            time.sleep(0.1)
        raise RuntimeError("the model was not loaded in time")


def _state(
    connection: Connection, study_uid: str
) -> tuple[studies.Study | None, jobs.Job | None, list[outbox.Delivery]]:
    if study_uid not in {one.study_uid for one in studies.newest(connection, 1000)}:
        return None, None, []
    found = jobs.of_study(connection, study_uid)
    job = found[-1] if found else None
    return (
        studies.study_by_uid(connection, study_uid),
        job,
        list(outbox.of_job(connection, job.job_id)) if job else [],
    )
