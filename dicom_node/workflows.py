"""The durable steps: one workflow a job, one an attempt at a delivery. Knows the order of things, not how each is done.

A step may run twice (a kill between its effect and its checkpoint): each asks the rows first and changes them once.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dbos import DBOS

from dicom_node.config import Config
from dicom_node.engine.child import ChildPool
from dicom_node.engine.durable import DELIVERIES, JOBS, Durable
from dicom_node.errors import ChildError, ChildFailed
from dicom_node.pipeline import rows
from dicom_node.sending.backoff import next_delay
from dicom_node.sending.outcome import (
    AssociationKind,
    AssociationOutcome,
    ObjectOutcome,
    ObjectOutcomeKind,
    Outgoing,
    SendReport,
    same_for_all,
)
from dicom_node.sending.transfer import send
from storage import jobs, outbox, results
from storage.database import Database
from storage.errors import StorageError
from storage.schema import JobState
from storage.spool import Spool


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What the steps work with; set once by the node before the engine is launched."""

    config: Config
    database: Database
    spool: Spool
    outbox: Spool
    staging: Path
    children: ChildPool
    durable: Durable
    random: Callable[[], float]
    wake: Callable[[], None]


_bench: list[Bench] = []


def set_up(bench: Bench) -> None:
    """Hand the steps what they work with (DBOS calls functions of a module, so it can't be passed to them)."""
    _bench[:] = [bench]


def sweep(bench: Bench) -> int:
    """Enqueue whatever the rows have open and due; what is under way already stays as it is. Returns how many."""
    if bench.children.stopping:
        return 0
    now = time.time()
    with bench.database.reading() as connection:
        open_jobs = jobs.due(connection, now=now)
        batches = outbox.due(connection, now=now)
    started = 0
    for job in open_jobs:
        started += bench.durable.enqueue(JOBS, run_job, job.job_id, job.priority, (job.job_id,))
    for batch in batches:
        arguments = (batch.job_id, batch.peer)
        started += bench.durable.enqueue(DELIVERIES, deliver, batch.workflow_id, batch.priority, arguments)
    return started


@DBOS.workflow(name="run_job", max_recovery_attempts=1000)
def run_job(job_id: str) -> str:
    """One attempt of a job; when it fails and attempts are left, the rows say when the next is due."""
    try:
        return attempt_job(job_id)
    except Exception as error:  # noqa: BLE001 - the job's outermost step: whatever went wrong has to be in its row
        return _record_trouble(_bench[0], job_id, error)
    finally:
        _bench[0].durable.ended(job_id)
        _bench[0].wake()  # not a sweep from here: what a workflow asks of DBOS becomes a step of that workflow


@DBOS.workflow(name="deliver", max_recovery_attempts=1000)
def deliver(job_id: str, peer: str) -> str:
    """One attempt to send a job's pending results to a peer."""
    try:
        return attempt_delivery(job_id, peer)
    except Exception as error:  # noqa: BLE001 - the delivery's outermost step, likewise
        return _record_undelivered(_bench[0], job_id, peer, error)
    finally:
        _bench[0].durable.ended(DBOS.workflow_id or "")


@DBOS.step(name="attempt_job")
def attempt_job(job_id: str) -> str:
    """Read, infer, explain and build in a child process; commit the results. Returns the job's state."""
    bench = _bench[0]
    with bench.database.transaction() as connection:
        job = jobs.begin(connection, job_id, now=time.time())
    if not job.is_open:
        return job.state
    with _staged(bench, job) as request:
        answer = _compute(bench, job, request)
        if answer is None:
            return JobState.QUEUED
        rows.commit(bench.database, bench.outbox, job, answer, now=time.time())
    return str(answer["state"])


@contextmanager
def _staged(bench: Bench, job: jobs.Job) -> Iterator[dict[str, Any]]:
    """The child's request for a job, with an empty folder for what it makes; the folder goes afterwards."""
    staging = bench.staging / job.job_id
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    try:
        yield rows.request_for(bench.database, bench.spool, job, bench.config, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _record_trouble(bench: Bench, job_id: str, error: Exception) -> str:
    """A full disk or an unreachable database is not the job's fault and costs it nothing; anything else is charged."""
    if bench.children.stopping:
        return JobState.QUEUED
    now = time.time()
    with bench.database.transaction() as connection:
        if isinstance(error, StorageError):
            jobs.put_off(connection, job_id, reason=str(error), until=now + _TROUBLE_SECONDS)
            return JobState.QUEUED
        reason = f"unforeseen {type(error).__name__}"
        due = now + bench.config.work.retry_seconds
        if jobs.charge(connection, job_id, reason=reason, next_attempt=due) < bench.config.work.attempts:
            return JobState.QUEUED
        job = jobs.by_id(connection, job_id)
    return _fail(bench, job, reason)


def _fail(bench: Bench, job: jobs.Job, reason: str) -> str:
    """End a job after an error of our own, with a report to the archive if that can be made."""
    try:
        with _staged(bench, job) as request:
            answer = _failure_report(bench, request, reason, "unforeseen")
            if answer is None:
                return JobState.QUEUED
            rows.commit(bench.database, bench.outbox, job, answer, now=time.time())
    except Exception as second:  # noqa: BLE001 - the last resort: the job must not stay open without a word
        reason = f"{reason}; and no report of it could be made: {type(second).__name__}"
        with bench.database.transaction() as connection:
            jobs.finish(
                connection, job.job_id, JobState.FAILED, reason=reason, summary={"timings": {}}, now=time.time()
            )
    return JobState.FAILED


def _record_undelivered(bench: Bench, job_id: str, peer: str, error: Exception) -> str:
    """Whatever kept us from sending, the results stay pending and the reason is in their rows."""
    words = f"not sent: {type(error).__name__}"
    with bench.database.reading() as connection:
        pending = outbox.pending(connection, job_id, peer)
        study_uid = jobs.by_id(connection, job_id).study_uid
    objects = tuple(
        ObjectOutcome(kind=ObjectOutcomeKind.TRANSIENT, sop_instance_uid=one.result_uid, words=words) for one in pending
    )
    association = AssociationOutcome(kind=AssociationKind.ACCEPTED, words=words)
    if pending:
        _record_delivery(bench, pending[0], study_uid, SendReport(association=association, objects=objects))
    return words


def _compute(bench: Bench, job: jobs.Job, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The child's answer; after the last failed attempt the report of the failure; None when another attempt is due."""
    waited_since = time.time()
    try:
        with bench.children.child() as child:
            waited = time.time() - waited_since
            answer = rows.checked_answer(child.call(request), Path(request["staging"]))
        answer["summary"]["timings"]["wait for a worker"] = waited
        return answer
    except ChildError as error:
        return _after_failure(bench, job, request, error)


def _after_failure(
    bench: Bench, job: jobs.Job, request: Mapping[str, Any], error: ChildError
) -> Mapping[str, Any] | None:
    if bench.children.stopping:
        return None  # the node is being stopped: nobody's fault; the job is taken up again
    final = isinstance(error, ChildFailed) and error.kind in _HOPELESS
    now = time.time()
    with bench.database.transaction() as connection:
        due = now + bench.config.work.retry_seconds * 2**job.attempts
        used = jobs.charge(connection, job.job_id, reason=str(error), next_attempt=due)
    if used < bench.config.work.attempts and not final:
        return None
    kind = error.kind if isinstance(error, ChildFailed) else type(error).__name__
    return _failure_report(bench, request, str(error), kind)


def _failure_report(bench: Bench, request: Mapping[str, Any], reason: str, kind: str) -> Mapping[str, Any] | None:
    """A status report; if even headers bring the child down, from what reception kept. None while we are stopping."""
    failure = {**request, "task": "report failure", "reason": reason, "kind": kind}
    words = reason
    for attempt in (failure, {**failure, "files": []}):
        try:
            with bench.children.child() as child:
                return rows.checked_answer(child.call(attempt), Path(request["staging"]))
        except ChildError as error:
            if bench.children.stopping:
                return None
            words = f"{reason}; and no report of it could be made: {error}"
    return {"state": JobState.FAILED, "reason": words, "results": [], "summary": {"timings": {}}}


#: how long a job waits when the disk is full or the database away
_TROUBLE_SECONDS = 15

#: What another attempt can't mend: the job fails at once, and a person replays it when the cause is gone.
_HOPELESS = frozenset(
    {
        "CardError",
        "DigestMismatch",
        "ModelLoadError",
        "UnknownArchitecture",
        "UnknownMethod",
        "UnknownTargetLayer",
        "NoHeader",
    }
)


@DBOS.step(name="attempt_delivery")
def attempt_delivery(job_id: str, peer_name: str) -> str:
    """Send what is pending, and write down what became of each object."""
    bench = _bench[0]
    with bench.database.reading() as connection:
        pending = outbox.pending(connection, job_id, peer_name)
        found = results.by_uids(connection, [one.result_uid for one in pending])
    if not pending:
        return "nothing to send"
    report = _send(bench, peer_name, rows.outgoing(found, bench.outbox))
    _record_delivery(bench, pending[0], found[0].study_uid, report)
    return report.association.words


def _send(bench: Bench, peer_name: str, objects: Sequence[Outgoing]) -> SendReport:
    peer = bench.config.peer(peer_name)
    if peer is None:
        gone = f"the configuration no longer has a peer {peer_name!r}"
        kind = AssociationKind.UNREACHABLE
        return same_for_all(objects, AssociationOutcome(kind=kind, words=gone, permanent=True))
    return send(peer, objects, bench.config.sending, bench.config.receiving.ae_title)


def _record_delivery(bench: Bench, first: outbox.Delivery, study_uid: str, report: SendReport) -> None:
    settings = bench.config.sending
    first_wait, ceiling = settings.backoff_first_seconds, settings.backoff_ceiling_seconds
    now = time.time()
    due = now + next_delay(first.attempts + 1, first_wait, ceiling, bench.random)
    attempts = rows.attempts_of(report.objects, tries=first.attempts + 1)
    with bench.database.transaction() as connection:
        outbox.record(connection, first, attempts, study_uid=study_uid, next_attempt=due, now=now)
        if report.all_taken:
            outbox.hasten(connection, first.peer, now=now)
        elif report.association.kind is not AssociationKind.ACCEPTED and not report.association.permanent:
            outbox.postpone(connection, first.peer, until=due)
