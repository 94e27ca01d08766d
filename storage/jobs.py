"""Jobs: one study under one route. Knows states, priorities and attempts, not what a job computes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from storage import audit
from storage.database import lock_rows
from storage.errors import UnknownJob
from storage.schema import OPEN_JOBS, JobState, job
from storage.studies import Instance

#: Lower runs first. Every job has one: the engine would run a job without priority before all others.
PRIORITIES: Mapping[str, int] = {"stat": 1, "routine": 100}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job's row. `settings` is the route as it was when the study was routed; `inputs` are instance ids."""

    job_id: str
    study_uid: str
    route: str
    generation: int
    run: int
    priority: int
    state: str
    attempts: int
    next_attempt: float
    created: float
    started: float | None
    finished: float | None
    reason: str | None
    input_digest: str
    inputs: Sequence[int]
    settings: Mapping[str, Any]
    summary: Mapping[str, Any] | None
    predecessor: str | None

    @property
    def is_open(self) -> bool:
        return self.state in OPEN_JOBS


@dataclass(frozen=True, kw_only=True)
class JobOrder:
    """What routing asks for."""

    study_uid: str
    generation: int
    route: str
    priority: int
    inputs: Sequence[Instance]
    settings: Mapping[str, Any]
    why: str


def digest_of(inputs: Sequence[Instance]) -> str:
    """SHA-256 over the set of inputs: their SOP Instance UIDs and stored contents (by path), whatever their order."""
    lines = sorted(f"{one.sop_instance_uid} {one.path}" for one in inputs)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def queue(connection: Connection, order: JobOrder, *, now: float) -> str | None:
    """Create a job in state *queued*; None when the route's last job read exactly these inputs (nothing changed)."""
    last = _last(connection, order.study_uid, order.route)
    digest = digest_of(order.inputs)
    if last is not None and last.input_digest == digest:
        return None
    return _create(connection, order, digest, run=0, predecessor=last.job_id if last else None, now=now)


def queue_again(connection: Connection, job_id: str, *, actor: str, reason: str, now: float) -> str:
    """Replay: a new job with the inputs and settings of `job_id`, on a person's order. Raises `UnknownJob`."""
    old = by_id(connection, job_id)
    same = (job.c.study_uid == old.study_uid) & (job.c.route == old.route) & (job.c.generation == old.generation)
    run = connection.execute(select(func.max(job.c.run)).where(same)).scalar_one() + 1
    new_id = identifier(old.study_uid, old.route, old.generation, run)
    values = {"job_id": new_id, "run": run, "state": JobState.QUEUED, "created": now, "next_attempt": now}
    values["predecessor"] = old.job_id
    kept = ("study_uid", "route", "generation", "priority", "input_digest", "inputs", "settings")
    connection.execute(insert(job).values(**values, **{key: getattr(old, key) for key in kept}))
    details = {"job": new_id, "replay_of": old.job_id, "route": old.route, "reason": reason}
    audit.append(connection, "job.replayed", actor=actor, study_uid=old.study_uid, details=details)
    return new_id


def identifier(study_uid: str, route: str, generation: int, run: int) -> str:
    """The job's (and its workflow's) ID: the same order can't be queued twice."""
    return hashlib.sha256("\0".join((study_uid, route, str(generation), str(run))).encode()).hexdigest()[:32]


def _create(
    connection: Connection, order: JobOrder, digest: str, *, run: int, predecessor: str | None, now: float
) -> str:
    job_id = identifier(order.study_uid, order.route, order.generation, run)
    connection.execute(
        insert(job).values(
            job_id=job_id,
            study_uid=order.study_uid,
            route=order.route,
            generation=order.generation,
            run=run,
            priority=order.priority,
            state=JobState.QUEUED,
            created=now,
            next_attempt=now,
            input_digest=digest,
            inputs=[one.instance_id for one in order.inputs],
            settings=dict(order.settings),
            predecessor=predecessor,
        )
    )
    details = {"job": job_id, "route": order.route, "reason": order.why, "inputs": len(order.inputs)}
    audit.append(connection, "job.queued", actor="node", study_uid=order.study_uid, details=details)
    return job_id


def begin(connection: Connection, job_id: str, *, now: float) -> Job:
    """Take a job up: *queued* or (after an interruption) *running* → *running*. A finished job is returned as it is."""
    current = _locked(connection, job_id)
    if not current.is_open:
        return current
    connection.execute(
        update(job).where(job.c.job_id == job_id).values(state=JobState.RUNNING, started=current.started or now)
    )
    details = {"job": job_id, "route": current.route, "attempt": current.attempts + 1}
    audit.append(connection, "job.started", actor="node", study_uid=current.study_uid, details=details)
    return by_id(connection, job_id)


def charge(connection: Connection, job_id: str, *, reason: str, next_attempt: float) -> int:
    """Charge one failed attempt to this job, and to no other, and queue it again; returns how many it has used."""
    current = _locked(connection, job_id)
    attempts = current.attempts + 1
    values = {"attempts": attempts, "reason": reason, "state": JobState.QUEUED, "next_attempt": next_attempt}
    connection.execute(update(job).where(job.c.job_id == job_id).values(**values))
    details = {"job": job_id, "route": current.route, "attempt": attempts, "reason": reason}
    audit.append(
        connection, "job.attempt_failed", actor="node", study_uid=current.study_uid, outcome="serious", details=details
    )
    return attempts


def put_off(connection: Connection, job_id: str, *, reason: str, until: float) -> None:
    """Let a job wait without charging it: what kept it from running is not of its making."""
    current = _locked(connection, job_id)
    values = {"state": JobState.QUEUED, "next_attempt": until, "reason": reason}
    connection.execute(update(job).where(job.c.job_id == job_id, job.c.state.in_(OPEN_JOBS)).values(**values))
    details = {"job": job_id, "route": current.route, "reason": reason}
    audit.append(connection, "job.put_off", actor="node", study_uid=current.study_uid, outcome="minor", details=details)


def finish(
    connection: Connection,
    job_id: str,
    state: JobState,
    *,
    reason: str | None,
    summary: Mapping[str, Any],
    now: float,
) -> bool:
    """End a job; False when it had ended already (the same step run twice changes nothing)."""
    current = _locked(connection, job_id)
    if not current.is_open:
        return False
    values = {"state": state, "finished": now, "reason": reason, "summary": dict(summary)}
    connection.execute(update(job).where(job.c.job_id == job_id).values(**values))
    details = {"job": job_id, "route": current.route, "attempts": current.attempts, "reason": reason or ""}
    details |= {key: summary[key] for key in ("model", "model_sha256", "device") if key in summary}
    audit.append(
        connection,
        f"job.{state.value}",
        actor="node",
        study_uid=current.study_uid,
        outcome="serious" if state is JobState.FAILED else "success",
        details=details,
    )
    return True


def by_id(connection: Connection, job_id: str) -> Job:
    """Raises `UnknownJob`."""
    row = connection.execute(select(job).where(job.c.job_id == job_id)).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
    return _job(row)


def _locked(connection: Connection, job_id: str) -> Job:
    row = connection.execute(lock_rows(select(job).where(job.c.job_id == job_id))).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
    return _job(row)


def _last(connection: Connection, study_uid: str, route: str) -> Job | None:
    query = select(job).where(job.c.study_uid == study_uid, job.c.route == route)
    row = connection.execute(query.order_by(job.c.created.desc(), job.c.run.desc()).limit(1)).one_or_none()
    return _job(row) if row is not None else None


def due(connection: Connection, *, now: float) -> tuple[Job, ...]:
    """Open jobs whose time has come, in the order in which they should run."""
    query = select(job).where(job.c.state.in_(OPEN_JOBS), job.c.next_attempt <= now)
    query = query.order_by(job.c.priority, job.c.created)
    return tuple(_job(row) for row in connection.execute(query))


def of_study(connection: Connection, study_uid: str) -> tuple[Job, ...]:
    """All jobs of a study, oldest first."""
    query = select(job).where(job.c.study_uid == study_uid).order_by(job.c.created, job.c.run)
    return tuple(_job(row) for row in connection.execute(query))


def counts(connection: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    rows = connection.execute(select(job.c.state, func.count()).group_by(job.c.state))
    return {state: count for state, count in rows}


def _job(row: Row[Any]) -> Job:
    return Job(**row._mapping)
