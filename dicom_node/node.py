"""The composition root: makes the parts, starts and stops them in order; holds no logic of theirs."""

import fcntl
import logging
import os
import random
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from dicom_node import __version__, workflows
from dicom_node.config import Config
from dicom_node.engine.child import ChildPool
from dicom_node.engine.durable import Durable, Queues
from dicom_node.engine.limits import Limits
from dicom_node.errors import ChildError, NodeAlreadyRunning
from dicom_node.pipeline import rows
from dicom_node.receiving.instance import AssociationEvent, AssociationEventKind, ReceivedInstance, StoreOutcome
from dicom_node.receiving.listener import Listener
from dicom_node.receiving.part10 import part10_prefix
from dicom_node.schedule import LOOK_EVERY, Schedule
from storage import audit, studies
from storage.database import Database, hold_exclusively
from storage.errors import DatabaseUnavailable, OutOfSpace
from storage.spool import Spool
from storage.studies import Registration

log = logging.getLogger("camnode")

#: how long a stopping node waits for what is being sent
STOP_SECONDS = 5

_AUDITED: Mapping[AssociationEventKind, tuple[str, audit.Outcome]] = {
    AssociationEventKind.ACCEPTED: ("association.accepted", "success"),
    AssociationEventKind.REJECTED: ("association.rejected", "serious"),
    AssociationEventKind.ABORTED: ("association.aborted", "minor"),
    AssociationEventKind.INSTANCE_REFUSED: ("instance.refused", "serious"),
}


class Node:
    """A running node: ``with Node(config) as node`` opens the port last and closes it first.

    Raises
    ------
    NodeAlreadyRunning
        Another process works in the same folder.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self._exit = ExitStack()
        folder = config.node.folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._exit.enter_context(FolderLock(folder))
        self.database = Database(config.database_url)
        claim = hold_exclusively(self.database)
        if claim is None:
            self._exit.close()
            raise NodeAlreadyRunning("this database")
        self._exit.callback(claim.invalidate)  # not into the pool: the claim ends with the connection
        self.spool = Spool(folder / "spool")
        self.outbox = Spool(folder / "outbox")
        self.children = ChildPool(config.work.workers, child_limits(config), folder / "crashes")
        self.durable = Durable(config.database_url, Queues(jobs=config.work.workers))
        self.bench = workflows.Bench(
            config=config,
            database=self.database,
            spool=self.spool,
            outbox=self.outbox,
            staging=folder / "staging",
            children=self.children,
            durable=self.durable,
            random=random.Random().random,  # noqa: S311 - jitter, not a secret
            wake=self._wake,
        )
        self.listener = Listener(config.receiving, config.peers, self.store, self.report)
        self.schedule = Schedule(
            close_quiet_studies=self.close_quiet_studies,
            sweep=lambda: workflows.sweep(self.bench),
            forget_finished_workflows=lambda: self.durable.forget_finished(int((time.time() - 3600) * 1000)),
        )

    def __enter__(self) -> "Node":
        self.spool.sweep_unfinished()
        self.outbox.sweep_unfinished()
        with self.database.transaction() as connection:
            details = {"version": __version__, "configuration_sha256": rows.config_digest(self.config)}
            audit.append(connection, "node.started", actor="node", details=details)
            audit.append(connection, "configuration.loaded", actor="node", details=details)
        self._exit.callback(self._close_database)
        workflows.set_up(self.bench)
        self.durable.launch()
        self._exit.callback(self.durable.stop, wait_seconds=STOP_SECONDS)
        self._exit.callback(self.children.stop)
        self.schedule.start()
        self._exit.callback(self.schedule.stop)
        threading.Thread(target=self._warm_children, name="warm-children", daemon=True).start()
        self.listener.start()
        self._exit.callback(self.listener.stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def _close_database(self) -> None:
        with suppress(DatabaseUnavailable), self.database.transaction() as connection:
            audit.append(connection, "node.stopped", actor="node", details={"version": __version__})
        self.database.close()

    def _warm_children(self) -> None:
        """Load the models of all routes before the first study needs them."""
        cards = sorted({str(self.config.models[route.model]) for route in self.config.routes if route.enabled})
        try:
            for answer in self.children.warm(rows.warm_request(cards, self.config.work)):
                self._audit_models(answer["models"])
        except ChildError as error:
            log.warning("the models could not be loaded ahead: %s", error)

    def _wake(self) -> None:
        """Something may be due: look at the rows now."""
        self.schedule.sweep_now()

    def _audit_models(self, models: list[dict[str, str]]) -> None:
        with self.database.transaction() as connection:
            for model in models:
                failed = bool(model.get("reason"))
                event = "model.unusable" if failed else "model.loaded"
                audit.append(connection, event, actor="node", outcome="serious" if failed else "success", details=model)
                if failed:
                    log.error("model %s can't be used: %s", model["card"], model["reason"])

    def store(self, received: ReceivedInstance) -> StoreOutcome:
        """Keep an instance; returns only when it is durable, or why it isn't."""
        arrived = rows.arrival(received, now=time.time())
        try:
            outcome = studies.register(self.database, self.spool, arrived, part10_prefix(received), received.encoded)
        except OutOfSpace as error:
            log.error("instance not stored: %s", error)
            return StoreOutcome.OUT_OF_RESOURCES
        except DatabaseUnavailable as error:
            log.error("instance not stored: database unavailable (%s)", type(error.__cause__).__name__)
            return StoreOutcome.OUT_OF_RESOURCES
        return StoreOutcome.DUPLICATE if outcome is Registration.DUPLICATE else StoreOutcome.STORED

    def report(self, event: AssociationEvent) -> None:
        """Audit what happened to an association."""
        if event.kind not in _AUDITED:
            return
        name, outcome = _AUDITED[event.kind]
        details = {
            "calling_ae": event.calling_ae,
            "called_ae": event.called_ae,
            "address": event.address,
            "reason": event.reason,
            "sop_class_uid": event.sop_class_uid,
            "sop_instance_uid": event.sop_instance_uid,
        }
        if event.status is not None:
            details["status"] = f"0x{event.status:04X}"
        with suppress(DatabaseUnavailable), self.database.transaction() as connection:
            actor = event.calling_ae or event.address
            audit.append(connection, name, actor=actor, outcome=outcome, details=details)

    def close_quiet_studies(self) -> None:
        """Close and route every study that has been quiet for long enough, and start its jobs.

        A study that will have been before the next look is waited for.
        """
        since = self._close_quiet_studies()
        last = studies.soon_quiet(self.database, since=since, until=since + LOOK_EVERY)
        if last is not None:
            time.sleep(min(LOOK_EVERY, max(0.0, last + self.config.studies.quiet_seconds - time.time())))
            self._close_quiet_studies()

    def _close_quiet_studies(self) -> float:
        """Close what is quiet; returns since when it had to be."""
        now = time.time()
        since = now - self.config.studies.quiet_seconds
        queued: list[str] = []
        for study_uid in studies.quiet(self.database, since=since):
            queued += rows.route_study(self.database, self.config, study_uid, since=since, now=now)
        if queued:
            workflows.sweep(self.bench)
        return since


def child_limits(config: Config) -> Limits:
    """The bounds of the processes that decode and infer."""
    return Limits(
        memory_bytes=int(config.work.memory_gib * (1 << 30)),
        cpu_seconds=config.work.cpu_seconds,
        wall_seconds=config.work.wall_seconds,
        threads=config.work.threads,
    )


class FolderLock:
    """Hold a node's folder for this process alone, until the process ends however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "node.lock"
        self._file: IO[str] | None = None

    def __enter__(self) -> None:
        self._file = open(self._path, "a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise NodeAlreadyRunning(str(self._path.parent)) from None
        self._file.truncate(0)
        self._file.write(f"{os.getpid()}\n")
        self._file.flush()

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
