"""Deliveries: results on their way to peers. Knows states and times, not how a peer is spoken to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from storage import audit
from storage.schema import DeliveryState, delivery
from storage.studies import study_by_uid


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A delivery's row: one result to one peer."""

    delivery_id: int
    result_uid: str
    job_id: str
    peer: str
    state: str
    priority: int
    attempts: int
    created: float
    next_attempt: float
    sent: float | None
    sent_as: str | None
    status: int | None
    last_error: str | None
    by_hand: bool


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The pending results of one job for one peer: they travel in one association, in order."""

    job_id: str
    peer: str
    priority: int
    attempts: int
    next_attempt: float

    @property
    def workflow_id(self) -> str:
        """Deterministic, so that two sweeps can't start the same attempt twice; `record` counts attempts up."""
        return f"{self.job_id}/{self.peer}/{self.attempts + 1}"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """What one attempt came to for one result: taken, rejected for good, or to be tried again."""

    result_uid: str
    state: DeliveryState
    status: int | None
    sent_as: str | None
    error: str | None


def schedule(
    connection: Connection, job_id: str, uids: Sequence[str], peers: Sequence[str], *, priority: int, now: float
) -> None:
    """Queue results for peers. One that was sent before (a replay) is queued again: same UID, same bytes."""
    for peer in peers:
        for uid in uids:
            again = {"job_id": job_id, "state": DeliveryState.PENDING, "next_attempt": now, "attempts": 0}
            same = (delivery.c.result_uid == uid) & (delivery.c.peer == peer)
            if connection.execute(update(delivery).where(same).values(**again)).rowcount == 0:
                row = {**again, "result_uid": uid, "peer": peer, "priority": priority, "created": now}
                connection.execute(insert(delivery).values(**row))


def due(connection: Connection, *, now: float) -> tuple[Batch, ...]:
    """Batches whose time has come, most urgent first."""
    return _batches(connection, delivery.c.next_attempt <= now)


def waiting(connection: Connection) -> tuple[Batch, ...]:
    """All batches with something still pending."""
    return _batches(connection, True)


def _batches(connection: Connection, condition: Any) -> tuple[Batch, ...]:
    query = (
        select(
            delivery.c.job_id,
            delivery.c.peer,
            func.min(delivery.c.priority).label("priority"),
            func.max(delivery.c.attempts).label("attempts"),
            func.max(delivery.c.next_attempt).label("next_attempt"),
        )
        .where(delivery.c.state == DeliveryState.PENDING, condition)
        .group_by(delivery.c.job_id, delivery.c.peer)
        .order_by(func.min(delivery.c.priority), func.min(delivery.c.created))
    )
    return tuple(Batch(**row._mapping) for row in connection.execute(query))


def pending(connection: Connection, job_id: str, peer: str) -> tuple[Delivery, ...]:
    """What is still to be sent to a peer for a job."""
    query = select(delivery).where(
        delivery.c.job_id == job_id, delivery.c.peer == peer, delivery.c.state == DeliveryState.PENDING
    )
    return tuple(_delivery(row) for row in connection.execute(query.order_by(delivery.c.delivery_id)))


def record(
    connection: Connection,
    first: Delivery,
    attempts: Sequence[Attempt],
    *,
    study_uid: str,
    next_attempt: float,
    now: float,
) -> None:
    """Write down what one association came to for the results of the job and peer of `first`."""
    job_id, peer = first.job_id, first.peer
    for attempt in attempts:
        values: dict[str, Any] = {
            "state": attempt.state,
            "attempts": delivery.c.attempts + 1,
            "status": attempt.status,
            "sent_as": attempt.sent_as,
            "last_error": attempt.error,
        }
        if attempt.state is DeliveryState.SENT:
            values["sent"] = now
        else:
            values["next_attempt"] = next_attempt
        which = (delivery.c.result_uid == attempt.result_uid) & (delivery.c.peer == peer)
        connection.execute(update(delivery).where(which, delivery.c.state == DeliveryState.PENDING).values(**values))
    _audit_attempts(connection, job_id, peer, attempts, study_uid)


def postpone(connection: Connection, peer: str, *, until: float) -> None:
    """A peer can't be reached: what waits for it waits, so that its door is tried once, not once for each study."""
    which = (delivery.c.peer == peer) & (delivery.c.state == DeliveryState.PENDING) & (delivery.c.next_attempt < until)
    connection.execute(update(delivery).where(which).values(next_attempt=until))


def hasten(connection: Connection, peer: str, *, now: float) -> None:
    """A peer is back: what it could not be asked about is due now; what it answered keeps its own time."""
    which = (delivery.c.peer == peer) & (delivery.c.state == DeliveryState.PENDING) & delivery.c.status.is_(None)
    connection.execute(update(delivery).where(which).values(next_attempt=now))


_EVENTS: Mapping[DeliveryState, tuple[str, audit.Outcome]] = {
    DeliveryState.SENT: ("delivery.sent", "success"),
    DeliveryState.PENDING: ("delivery.failed", "minor"),
    DeliveryState.FAILED: ("delivery.parked", "serious"),
}


def _audit_attempts(
    connection: Connection, job_id: str, peer: str, attempts: Sequence[Attempt], study_uid: str
) -> None:
    """One event per outcome: a mixed success is two messages (PS3.15 A.5.3.7 asks that of transfers)."""
    patient_id = study_by_uid(connection, study_uid).patient_id
    for state, (event, outcome) in _EVENTS.items():
        mine = [attempt for attempt in attempts if attempt.state is state]
        if mine:
            details = {
                "job": job_id,
                "peer": peer,
                "patient_id": patient_id or "",
                "sop_instance_uids": [attempt.sent_as or attempt.result_uid for attempt in mine],
                "reason": "; ".join(sorted({attempt.error for attempt in mine if attempt.error})),
            }
            audit.append(connection, event, actor="node", study_uid=study_uid, outcome=outcome, details=details)


def retry(connection: Connection, *, job_id: str | None, peer: str | None, actor: str, reason: str, now: float) -> int:
    """Put parked deliveries back into the queue, on a person's order; returns how many."""
    which = delivery.c.state == DeliveryState.FAILED
    if job_id is not None:
        which &= delivery.c.job_id == job_id
    if peer is not None:
        which &= delivery.c.peer == peer
    values = {"state": DeliveryState.PENDING, "next_attempt": now, "by_hand": True}
    count = connection.execute(update(delivery).where(which).values(**values)).rowcount
    if count:
        details = {"job": job_id or "all", "peer": peer or "all", "count": count, "reason": reason}
        audit.append(connection, "delivery.retried", actor=actor, details=details)
    return count


def of_job(connection: Connection, job_id: str) -> tuple[Delivery, ...]:
    """All deliveries of a job."""
    query = select(delivery).where(delivery.c.job_id == job_id).order_by(delivery.c.peer, delivery.c.delivery_id)
    return tuple(_delivery(row) for row in connection.execute(query))


def counts(connection: Connection) -> dict[str, dict[str, int]]:
    """How many deliveries each peer has in each state."""
    table: dict[str, dict[str, int]] = {}
    query = select(delivery.c.peer, delivery.c.state, func.count()).group_by(delivery.c.peer, delivery.c.state)
    for peer, state, count in connection.execute(query):
        table.setdefault(peer, {})[state] = count
    return table


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
