"""DBOS: set-up, queues, and enqueuing by deterministic ID. Knows workflows by name, not what they do.

The rows in `storage/` are the truth; what DBOS keeps only drives them and may be deleted at any time. On SQLite it has
a file of its own beside the rows, so that its polling never holds the lock that an acknowledgement waits for; on
PostgreSQL it lives in the schema `dbos` of the same database.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID
from sqlalchemy import Engine

from storage.database import make_engine

#: What recovery may continue. Raised when the steps of a workflow change; open work of another version starts afresh.
WORKFLOW_VERSION = "1"
JOBS = "jobs"
DELIVERIES = "deliveries"
_POLL_SECONDS = 0.1
_ASK_AGAIN_SECONDS = 30
_ALIVE = ("ENQUEUED", "DELAYED", "PENDING")


class JsonSerializer(Serializer):
    """Workflow arguments and results as JSON: DBOS would pickle them."""

    def serialize(self, data: Any) -> str:
        if isinstance(data, BaseException):
            data = {"error": type(data).__name__}
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "camnode_json"


@dataclass(frozen=True, kw_only=True)
class Queues:
    """How many workflows of each kind may run at once."""

    jobs: int
    deliveries: int = 8


class Durable:
    """The engine of one node process; workflows must be registered (imported) before `launch`."""

    def __init__(self, database_url: str, queues: Queues) -> None:
        self._engine: Engine = make_engine(workflow_database_url(database_url), driver_begins=True)
        self._queues = queues
        self.executor_id = f"camnode-{uuid4().hex[:12]}"
        self._under_way: dict[str, float] = {}
        self._lock = threading.Lock()

    def launch(self) -> None:
        """Start DBOS and its queues. What a dead process left behind is taken up by the sweep, from the rows."""
        for name in ("dbos", "dbos._dbos"):
            logging.getLogger(name).setLevel(logging.WARNING)
        config: DBOSConfig = {
            "name": "camnode",
            "system_database_engine": self._engine,
            "application_version": WORKFLOW_VERSION,
            "executor_id": self.executor_id,
            "serializer": JsonSerializer(),
            "log_level": "WARNING",
            "console_log_level": "ERROR",
            "notification_listener_polling_interval_sec": _POLL_SECONDS,
        }
        if self._engine.dialect.name == "sqlite":
            config["system_database_url"] = str(self._engine.url)
        else:
            config["system_database_url"] = self._engine.url.render_as_string(hide_password=False)
        DBOS(config=config)
        DBOS.launch()
        for queue, at_once in ((JOBS, self._queues.jobs), (DELIVERIES, self._queues.deliveries)):
            DBOS.register_queue(
                queue,
                worker_concurrency=at_once,
                polling_interval_sec=_POLL_SECONDS,
                on_conflict="always_update",
            )

    def enqueue(
        self, queue: str, workflow: Callable[..., Any], workflow_id: str, priority: int, arguments: Sequence[str]
    ) -> bool:
        """Start a workflow unless one of this ID is alive; one left by another process or version is replaced.

        The ID makes a second call harmless. Priority is always set: DBOS runs a workflow without one first. Returns
        whether a workflow was started.
        """
        if not self._claim(workflow_id):
            return False
        try:
            status = DBOS.get_workflow_status(workflow_id)
            if status is not None:
                if self._is_mine(status) and status.status in _ALIVE:
                    self._ask_soon(workflow_id)
                    return False
                DBOS.delete_workflow(workflow_id)
            with SetWorkflowID(workflow_id), SetEnqueueOptions(priority=priority, app_version=WORKFLOW_VERSION):
                DBOS.enqueue_workflow(queue, workflow, *arguments)
        except BaseException:
            self.ended(workflow_id)  # not started: the next sweep tries again
            raise
        return True

    def _claim(self, workflow_id: str) -> bool:
        """Whether DBOS has to be asked: not when we started the workflow a moment ago and it has not ended."""
        now = time.monotonic()
        with self._lock:
            if self._under_way.get(workflow_id, -math.inf) > now - _ASK_AGAIN_SECONDS:
                return False
            self._under_way[workflow_id] = now
            return True

    def _ask_soon(self, workflow_id: str) -> None:
        """It is alive, but we did not start it just now: it may be about to end, or be an earlier process' order."""
        with self._lock:
            self._under_way[workflow_id] = time.monotonic() - _ASK_AGAIN_SECONDS + 1

    def ended(self, workflow_id: str) -> None:
        """A workflow's last act: what the rows still have open may be started again."""
        with self._lock:
            self._under_way.pop(workflow_id, None)

    def _is_mine(self, status: Any) -> bool:
        if status.app_version != WORKFLOW_VERSION:
            return False
        return bool(status.status != "PENDING" or status.executor_id == self.executor_id)

    def forget_finished(self, before_ms: int) -> int:
        """Delete the traces of workflows that ended; the rows keep the history. Returns how many."""
        ended = DBOS.list_workflows(
            status=["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
            end_time=datetime.fromtimestamp(before_ms / 1000, UTC).isoformat(),
            limit=500,
            load_input=False,
            load_output=False,
        )
        for one in ended:
            DBOS.delete_workflow(one.workflow_id)
        return len(ended)

    def stop(self, wait_seconds: int = 0) -> None:
        """Stop taking up work; what runs is taken up again after the next start."""
        DBOS.destroy(workflow_completion_timeout_sec=wait_seconds)
        self._engine.dispose()


def workflow_database_url(database_url: str) -> str:
    """Where DBOS keeps its traces: beside the rows on SQLite, in the same database on PostgreSQL."""
    if database_url.startswith("sqlite:///"):
        return database_url.removesuffix(".db") + "-workflows.db"
    return database_url
