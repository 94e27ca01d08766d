"""Results: the objects that jobs made. Knows bytes, UIDs and digests; once committed, a result's bytes never change."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, select

from storage import audit
from storage.schema import result
from storage.spool import Spool

#: files that are hashed and flushed to the disk at once
AT_ONCE = 4


@dataclass(frozen=True, kw_only=True)
class BuiltResult:
    """A result as the pipeline built it: a file still outside the outbox's spool."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: str
    position: int
    description: str
    fallback_for: str | None
    file: Path


@dataclass(frozen=True, kw_only=True)
class Result:
    """A committed result; `path` is relative to the outbox's spool, `position` its place in the order of sending."""

    sop_instance_uid: str
    job_id: str
    study_uid: str
    kind: str
    sop_class_uid: str
    transfer_syntax_uid: str
    position: int
    fallback_for: str | None
    description: str
    path: str
    size: int
    sha256: str
    created: float


def keep(outbox: Spool, built: Sequence[BuiltResult], *, job_id: str, study_uid: str, now: float) -> tuple[Result, ...]:
    """Take built files over into the outbox, durably. Rows come later: a file without a row is never sent."""

    def adopted(one: BuiltResult) -> Result:
        return _keep_one(outbox, one, job_id=job_id, study_uid=study_uid, now=now)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="keep") as threads:
        return tuple(threads.map(adopted, built))


def _keep_one(outbox: Spool, one: BuiltResult, *, job_id: str, study_uid: str, now: float) -> Result:
    # the job's id is part of the name: a second job that makes the same UID must not touch the bytes of the first
    file = outbox.adopt(one.file, group=study_uid, name=f"{one.sop_instance_uid}.{job_id[:8]}.dcm")
    return Result(
        sop_instance_uid=one.sop_instance_uid,
        job_id=job_id,
        study_uid=study_uid,
        kind=one.kind,
        sop_class_uid=one.sop_class_uid,
        transfer_syntax_uid=one.transfer_syntax_uid,
        position=one.position,
        fallback_for=one.fallback_for,
        description=one.description,
        path=file.path,
        size=file.size,
        sha256=file.sha256,
        created=now,
    )


def commit(connection: Connection, results: Sequence[Result]) -> tuple[str, ...]:
    """Add the rows of results that are new; returns the UIDs of all of them.

    A UID that an earlier job committed keeps the bytes it has: it was made from the same inputs, model and settings.
    """
    for one in results:
        known = select(result.c.sop_instance_uid).where(result.c.sop_instance_uid == one.sop_instance_uid)
        if connection.execute(known).first() is None:
            connection.execute(insert(result).values(**one.__dict__))
            details = {
                "sop_instance_uid": one.sop_instance_uid,
                "sop_class_uids": {one.sop_class_uid: 1},
                "kind": one.kind,
                "job": one.job_id,
                "sha256": one.sha256,
            }
            audit.append(connection, "result.built", actor="node", study_uid=one.study_uid, details=details)
    return tuple(one.sop_instance_uid for one in results)


def of_job(connection: Connection, job_id: str) -> tuple[Result, ...]:
    """A job's own results, in the order of sending."""
    query = select(result).where(result.c.job_id == job_id).order_by(result.c.position)
    return tuple(Result(**row._mapping) for row in connection.execute(query))


def by_uids(connection: Connection, uids: Sequence[str]) -> tuple[Result, ...]:
    """The named results and the fallbacks of those, in the order of sending."""
    named = result.c.sop_instance_uid.in_(uids) | result.c.fallback_for.in_(uids)
    query = select(result).where(named).order_by(result.c.position)
    return tuple(Result(**row._mapping) for row in connection.execute(query))
