"""Received instances and the studies they make up. Knows UIDs and JSON attributes, not what the attributes mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from storage import audit
from storage.database import Database, insert_if_absent, lock_rows
from storage.errors import UnknownStudy
from storage.schema import InstanceRole, StudyState, instance, result, study
from storage.spool import Spool, SpoolFile


class Registration(StrEnum):
    """What registering an instance came to."""

    NEW = "new"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    OWN_RESULT = "own-result"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One instance as it arrived. `sha256` is that of transfer syntax and data set, so copies are recognised."""

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str
    sha256: str
    calling_ae: str
    called_ae: str
    address: str
    attributes: Mapping[str, Any]
    own_result: bool = False
    received: float


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A stored instance; `path` is relative to the spool."""

    instance_id: int
    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax_uid: str
    role: str
    path: str
    size: int
    received: float
    calling_ae: str
    called_ae: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study's row."""

    study_uid: str
    state: str
    generation: int
    first_received: float
    last_received: float
    completed: float | None
    rule: str | None
    reason: str | None
    patient_id: str | None
    accession_number: str | None


def register(database: Database, spool: Spool, arrival: Arrival, prefix: bytes, encoded: bytes) -> Registration:
    """Make one instance durable: file first, then its row, its study and the audit event in one transaction.

    Parameters
    ----------
    prefix, encoded : bytes
        Preamble and file meta information, and the data set verbatim.

    Raises
    ------
    OutOfSpace, DatabaseUnavailable
        Nothing was acknowledged; a file without a row is an orphan that the next copy overwrites.
    """
    with database.reading() as connection:
        known = _copy_of(connection, arrival)
    if known is None:
        name = f"{arrival.sop_instance_uid}.{arrival.sha256[:16]}.dcm"
        file = spool.keep((prefix, encoded), group=arrival.study_uid, name=name)
    with database.transaction() as connection:
        ours = _is_ours(connection, arrival)
        row = _locked_study(connection, arrival, opens=not ours)
        known = _copy_of(connection, arrival)
        if known is not None:
            return _count_copy(connection, arrival, known)
        if not ours:
            _touch(connection, arrival, row)
        return _insert(connection, arrival, file, _kind(connection, arrival, ours=ours))


def _copy_of(connection: Connection, arrival: Arrival) -> int | None:
    same = (instance.c.sop_instance_uid == arrival.sop_instance_uid) & (instance.c.sha256 == arrival.sha256)
    return connection.execute(select(instance.c.instance_id).where(same)).scalar_one_or_none()


def _count_copy(connection: Connection, arrival: Arrival, known: int) -> Registration:
    is_it = instance.c.instance_id == known
    connection.execute(update(instance).where(is_it).values(copies=instance.c.copies + 1))
    _record(connection, "instance.duplicate", arrival)
    return Registration.DUPLICATE


def _insert(connection: Connection, arrival: Arrival, file: SpoolFile, registration: Registration) -> Registration:
    role = InstanceRole(registration.value) if registration is not Registration.NEW else InstanceRole.SOURCE
    connection.execute(
        insert(instance).values(
            sop_instance_uid=arrival.sop_instance_uid,
            sha256=arrival.sha256,
            study_uid=arrival.study_uid,
            series_uid=arrival.series_uid,
            sop_class_uid=arrival.sop_class_uid,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            role=role,
            path=file.path,
            size=file.size,
            received=arrival.received,
            calling_ae=arrival.calling_ae,
            called_ae=arrival.called_ae,
            address=arrival.address,
            attributes=dict(arrival.attributes),
        )
    )
    names = {Registration.NEW: "instance.stored", Registration.CONFLICT: "instance.conflict"}
    _record(connection, names.get(registration, "instance.own-result"), arrival)
    return registration


def _is_ours(connection: Connection, arrival: Arrival) -> bool:
    ours = select(result.c.sop_instance_uid).where(result.c.sop_instance_uid == arrival.sop_instance_uid)
    return arrival.own_result or connection.execute(ours).first() is not None


def _kind(connection: Connection, arrival: Arrival, *, ours: bool) -> Registration:
    if ours:
        return Registration.OWN_RESULT
    same_uid = select(instance.c.instance_id).where(instance.c.sop_instance_uid == arrival.sop_instance_uid)
    return Registration.CONFLICT if connection.execute(same_uid).first() else Registration.NEW


def _locked_study(connection: Connection, arrival: Arrival, *, opens: bool) -> Row[Any]:
    """The study's row, made if need be and held: whoever registers an instance of it at the same moment waits here.

    One of our own results opens no study.
    """
    values = {
        "study_uid": arrival.study_uid,
        "state": StudyState.RECEIVING if opens else StudyState.IGNORED,
        "generation": 1,
        "first_received": arrival.received,
        "last_received": arrival.received,
        "patient_id": _text(arrival.attributes.get("PatientID")),
        "accession_number": _text(arrival.attributes.get("AccessionNumber")),
        "reason": None if opens else _ONLY_OURS,
    }
    insert_if_absent(connection, study, values)
    return connection.execute(lock_rows(select(study).where(study.c.study_uid == arrival.study_uid))).one()


_ONLY_OURS = "only results of this node were received"


def _touch(connection: Connection, arrival: Arrival, row: Row[Any]) -> None:
    """A new instance keeps its study open or, when it was closed, reopens it."""
    values: dict[str, Any] = {"last_received": max(arrival.received, row.last_received)}
    if row.state != StudyState.RECEIVING:
        values |= {"state": StudyState.RECEIVING, "generation": row.generation + 1, "completed": None, "reason": None}
        details = {"generation": row.generation + 1}
        audit.append(
            connection, "study.reopened", actor=arrival.calling_ae, study_uid=arrival.study_uid, details=details
        )
    connection.execute(update(study).where(study.c.study_uid == arrival.study_uid).values(**values))


def _record(connection: Connection, event: str, arrival: Arrival) -> None:
    audit.append(
        connection,
        event,
        actor=arrival.calling_ae,
        study_uid=arrival.study_uid,
        outcome="minor" if event == "instance.conflict" else "success",
        details={
            "sop_instance_uid": arrival.sop_instance_uid,
            "sop_class_uids": {arrival.sop_class_uid: 1},
            "transfer_syntax_uid": arrival.transfer_syntax_uid,
            "sha256": arrival.sha256,
            "calling_ae": arrival.calling_ae,
            "called_ae": arrival.called_ae,
            "address": arrival.address,
            "patient_id": _text(arrival.attributes.get("PatientID")) or "",
            "accession_number": _text(arrival.attributes.get("AccessionNumber")) or "",
        },
    )


def _text(value: object) -> str | None:
    return str(value)[:64] if value not in (None, "") else None


def quiet(database: Database, *, since: float) -> tuple[str, ...]:
    """UIDs of the studies still receiving whose last instance came at or before `since`, oldest first."""
    query = (
        select(study.c.study_uid)
        .where(study.c.state == StudyState.RECEIVING, study.c.last_received <= since)
        .order_by(study.c.last_received)
    )
    with database.reading() as connection:
        return tuple(connection.execute(query).scalars())


def soon_quiet(database: Database, *, since: float, until: float) -> float | None:
    """When the last instance came of the study that `quiet` will name next, if that was at or before `until`."""
    query = select(func.min(study.c.last_received)).where(
        study.c.state == StudyState.RECEIVING, study.c.last_received > since, study.c.last_received <= until
    )
    with database.reading() as connection:
        found: float | None = connection.execute(query).scalar_one()
        return found


def close(connection: Connection, study_uid: str, *, rule: str, now: float, since: float) -> Study | None:
    """Mark a quiet study complete; None when an instance arrived in the meantime. The caller routes it and commits."""
    row = connection.execute(lock_rows(select(study).where(study.c.study_uid == study_uid))).one()
    if row.state != StudyState.RECEIVING or row.last_received > since:
        return None
    connection.execute(
        update(study).where(study.c.study_uid == study_uid).values(state=StudyState.COMPLETE, completed=now, rule=rule)
    )
    details = {"rule": rule, "generation": row.generation}
    audit.append(connection, "study.completed", actor="node", study_uid=study_uid, details=details)
    return Study(**{**row._mapping, "state": StudyState.COMPLETE, "completed": now, "rule": rule})


def settle(connection: Connection, study_uid: str, *, routed: bool, reason: str) -> None:
    """Record what routing made of a complete study: routed, or ignored and why."""
    state = StudyState.ROUTED if routed else StudyState.IGNORED
    connection.execute(update(study).where(study.c.study_uid == study_uid).values(state=state, reason=reason))
    audit.append(connection, f"study.{state.value}", actor="node", study_uid=study_uid, details={"reason": reason})


def instances_of(connection: Connection, study_uid: str, *, replace_conflicts: bool = False) -> tuple[Instance, ...]:
    """The instances that jobs read, one per SOP Instance UID, in order of arrival.

    Of several contents under one UID the first is taken (`keep-first`), or with `replace_conflicts` the last.
    """
    query = select(instance).where(instance.c.study_uid == study_uid, instance.c.role != InstanceRole.OWN_RESULT)
    chosen: dict[str, Instance] = {}
    for row in connection.execute(query.order_by(instance.c.instance_id)):
        if replace_conflicts or row.sop_instance_uid not in chosen:
            chosen[row.sop_instance_uid] = _instance(row)
    return tuple(sorted(chosen.values(), key=lambda one: one.instance_id))


def instances_by_id(connection: Connection, identifiers: Sequence[int]) -> tuple[Instance, ...]:
    """The named instances, in order of arrival."""
    query = select(instance).where(instance.c.instance_id.in_(identifiers)).order_by(instance.c.instance_id)
    return tuple(_instance(row) for row in connection.execute(query))


def study_by_uid(connection: Connection, study_uid: str) -> Study:
    """Raises `UnknownStudy`."""
    row = connection.execute(select(study).where(study.c.study_uid == study_uid)).one_or_none()
    if row is None:
        raise UnknownStudy(study_uid)
    return Study(**row._mapping)


def newest(connection: Connection, limit: int) -> tuple[Study, ...]:
    """The studies touched last, newest first."""
    rows = connection.execute(select(study).order_by(study.c.last_received.desc()).limit(limit))
    return tuple(Study(**row._mapping) for row in rows)


def _instance(row: Row[Any]) -> Instance:
    return Instance(**{key: row._mapping[key] for key in Instance.__dataclass_fields__})
