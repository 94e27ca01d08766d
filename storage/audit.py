"""The append-only, hash-chained audit trail. Knows events and hashes, not what an event means to DICOM.

Each event carries SHA-256 over the hash before it and its own canonical JSON, so any edit, deletion, insertion or
reordering shows in `verify`. Truncation at the end shows against an exported head (`head`).
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select

from storage.database import Database, lock_audit_chain
from storage.errors import AuditChainBroken
from storage.schema import audit_event

Outcome = Literal["success", "minor", "serious", "major"]
GENESIS = "0" * 64


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """An appended fact: who did what, on which study, when, with which outcome."""

    seq: int
    time: str
    event: str
    outcome: str
    actor: str
    study_uid: str | None
    details: Mapping[str, Any]
    previous: str
    hash: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify` found: how many events, and the hash at the chain's end (to be kept somewhere else)."""

    events: int
    head: str


def append(  # noqa: PLR0913 - an audit event has these fields
    connection: Connection,
    event: str,
    *,
    actor: str,
    study_uid: str | None = None,
    outcome: Outcome = "success",
    details: Mapping[str, Any] | None = None,
    now: datetime | None = None,
) -> None:
    """Append one event inside the caller's transaction: the change of state and its trace live or die together."""
    lock_audit_chain(connection)
    last = connection.execute(
        select(audit_event.c.seq, audit_event.c.hash).order_by(audit_event.c.seq.desc()).limit(1)
    ).one_or_none()
    seq, previous = (last.seq + 1, last.hash) if last else (1, GENESIS)
    row = {
        "seq": seq,
        "time": (now or datetime.now(UTC)).isoformat(timespec="microseconds"),
        "event": event,
        "outcome": outcome,
        "actor": actor,
        "study_uid": study_uid,
        "details": canonical(details or {}),
    }
    connection.execute(insert(audit_event).values(**row, previous=previous, hash=_hash(previous, row)))


def canonical(value: Mapping[str, Any]) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _hash(previous: str, row: Mapping[str, Any]) -> str:
    return hashlib.sha256((previous + canonical(row)).encode()).hexdigest()


def verify(database: Database, *, expected_head: str | None = None) -> Verification:
    """Recompute the whole chain.

    Raises
    ------
    AuditChainBroken
        At the first event that doesn't follow from the one before, or when `expected_head` is no longer in the chain.
    """
    previous, count, seen = GENESIS, 0, expected_head in (None, GENESIS)
    with database.reading() as connection:
        rows = connection.execution_options(yield_per=1000).execute(select(audit_event).order_by(audit_event.c.seq))
        for row in rows:
            count += 1
            _verify_row(row, previous, count)
            previous = row.hash
            seen = seen or previous == expected_head
    if not seen:
        raise AuditChainBroken(count + 1, "the trail was cut: it no longer holds the head given")
    return Verification(events=count, head=previous)


def _verify_row(row: Row[Any], previous: str, expected_seq: int) -> None:
    if row.seq != expected_seq:
        raise AuditChainBroken(row.seq, f"expected event {expected_seq}: events were removed or reordered")
    if row.previous != previous:
        raise AuditChainBroken(row.seq, "it doesn't follow from the event before it")
    fields = {key: getattr(row, key) for key in ("seq", "time", "event", "outcome", "actor", "study_uid", "details")}
    if _hash(previous, fields) != row.hash:
        raise AuditChainBroken(row.seq, "its content was altered")


def events(
    database: Database,
    *,
    study_uid: str | None = None,
    event: str | None = None,
    since: str | None = None,
    until: str | None = None,
    last: int | None = None,
) -> Iterator[AuditEvent]:
    """Events in order, narrowed by study, name prefix or period (ISO 8601, UTC); `last` keeps the newest so many."""
    query = select(audit_event)
    if study_uid is not None:
        query = query.where(audit_event.c.study_uid == study_uid)
    if event is not None:
        query = query.where(audit_event.c.event.startswith(event, autoescape=True))
    if since is not None:
        query = query.where(audit_event.c.time >= since)
    if until is not None:
        query = query.where(audit_event.c.time < until)
    if last is not None:
        newest = query.order_by(audit_event.c.seq.desc()).limit(last).subquery()
        query = select(newest)
        order = newest.c.seq
    else:
        order = audit_event.c.seq
    with database.reading() as connection:
        for row in connection.execution_options(yield_per=500).execute(query.order_by(order)):
            yield AuditEvent(**{**row._mapping, "details": json.loads(row.details)})
