"""Values to rows and back, in this one place; computes no pixel and speaks to no peer."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dicom_node.config import Config, Route, WorkConfig
from dicom_node.errors import ChildFailed
from dicom_node.receiving.instance import ReceivedInstance
from dicom_node.routing import Match, RoutedInstance, Routing, match
from dicom_node.sending.outcome import ObjectOutcome, ObjectOutcomeKind, Outgoing
from storage import audit, jobs, outbox, results, studies
from storage.database import Database
from storage.schema import OPEN_JOBS, DeliveryState, JobState
from storage.spool import Spool

_UID = re.compile(r"[0-9][0-9.]{0,63}")
OWN_MODEL_NAME = "camnode"


def arrival(received: ReceivedInstance, *, now: float) -> studies.Arrival:
    """A received instance as storage keeps it. Ours are told by Manufacturer's Model Name, so also after a restore."""
    digest = hashlib.sha256(received.transfer_syntax_uid.encode() + b"\0")
    digest.update(received.encoded)
    return studies.Arrival(
        sop_instance_uid=received.sop_instance_uid,
        sop_class_uid=received.sop_class_uid,
        study_uid=received.study_instance_uid,
        series_uid=received.series_instance_uid,
        transfer_syntax_uid=received.transfer_syntax_uid,
        sha256=digest.hexdigest(),
        calling_ae=received.calling_ae,
        called_ae=received.called_ae,
        address=received.address,
        attributes={**received.attributes, "SOPClassUID": received.sop_class_uid},
        own_result=received.attributes.get("ManufacturerModelName") == OWN_MODEL_NAME,
        received=now,
    )


def route_study(database: Database, config: Config, study_uid: str, *, since: float, now: float) -> tuple[str, ...]:
    """Close a quiet study and queue its jobs, in one transaction; returns the new jobs' IDs."""
    with database.transaction() as connection:
        rule = f"quiet for {config.studies.quiet_seconds:g} s"
        study = studies.close(connection, study_uid, rule=rule, now=now, since=since)
        if study is None:
            return ()
        replace = config.studies.conflicts == "replace"
        stored = studies.instances_of(connection, study_uid, replace_conflicts=replace)
        routing = match(config.routes, [_routed(one) for one in stored])
        queued = [
            job_id
            for found in routing.matches
            if (job_id := jobs.queue(connection, _order(study, found, stored, config), now=now)) is not None
        ]
        studies.settle(connection, study_uid, routed=bool(routing.matches), reason=_why(routing, len(config.routes)))
    return tuple(queued)


def _routed(one: studies.Instance) -> RoutedInstance:
    return RoutedInstance(
        instance_id=one.instance_id,
        series_uid=one.series_uid,
        attributes=one.attributes,
        calling_ae=one.calling_ae,
        called_ae=one.called_ae,
    )


def _why(routing: Routing, routes: int) -> str:
    words = [f"{found.route.name}: {found.why}" for found in routing.matches]
    return "; ".join([*(words or [f"none of the {routes} routes takes this study"]), *routing.problems])


def _order(study: studies.Study, found: Match, stored: Sequence[studies.Instance], config: Config) -> jobs.JobOrder:
    wanted = set(found.instance_ids)
    return jobs.JobOrder(
        study_uid=study.study_uid,
        generation=study.generation,
        route=found.route.name,
        priority=jobs.PRIORITIES["stat" if found.stat else "routine"],
        inputs=[one for one in stored if one.instance_id in wanted],
        settings=route_settings(found.route, config),
        why=found.why,
    )


def route_settings(route: Route, config: Config) -> dict[str, Any]:
    """What a job needs of its route, as it was when the study was routed."""
    return {
        "model": route.model,
        "card": str(config.models[route.model]),
        "methods": list(route.methods),
        "destinations": list(route.destinations),
        "output": asdict(route.output),
    }


def warm_request(cards: Sequence[str], work: WorkConfig) -> dict[str, Any]:
    """The child's request to load models ahead, as jobs will use them."""
    return {"task": "warm", "cards": list(cards), "device": work.device, "forward": _forward(work)}


def _forward(work: WorkConfig) -> dict[str, str]:
    return {"engine": work.engine, "precision": work.precision}


def request_for(database: Database, spool: Spool, job: jobs.Job, config: Config, staging: Path) -> dict[str, Any]:
    """The child's request for a job: paths and settings, no pixel."""
    with database.reading() as connection:
        inputs = studies.instances_by_id(connection, job.inputs)
    settings = job.settings
    computed = {key: settings[key] for key in ("methods", "output")}
    forward = _forward(config.work)
    if forward != _forward(WorkConfig()):  # other numbers are other results
        computed["forward"] = forward
    digest = hashlib.sha256(audit.canonical(computed).encode())
    return {
        "task": "answer",
        "job_id": job.job_id,
        "study_uid": job.study_uid,
        "route": job.route,
        "created": datetime.fromtimestamp(job.created, UTC).isoformat(),
        "files": [_file(one, spool) for one in inputs],
        "identity": _identity(inputs[0]) if inputs else {},
        "model": settings["model"],
        "card": settings["card"],
        "methods": settings["methods"],
        "output": settings["output"],
        "settings_digest": digest.hexdigest(),
        "source_digest": job.input_digest,
        "staging": str(staging),
        "device": config.work.device,
        "forward": forward,
        "node": {"station_name": config.node.station_name, "device_serial_number": config.node.device_serial_number},
    }


def _file(one: studies.Instance, spool: Spool) -> dict[str, str]:
    return {
        "path": str(spool.absolute(one.path)),
        "sop_instance_uid": one.sop_instance_uid,
        "sop_class_uid": one.sop_class_uid,
    }


def _identity(one: studies.Instance) -> dict[str, Any]:
    """Whose study it is, as it was received: for an answer when no file can be read any more."""
    uids = {"StudyInstanceUID": one.study_uid, "SeriesInstanceUID": one.series_uid}
    uids |= {"SOPInstanceUID": one.sop_instance_uid, "SOPClassUID": one.sop_class_uid}
    return {**one.attributes, **uids}


def checked_answer(answer: Mapping[str, Any], staging: Path) -> dict[str, Any]:
    """A child's answer, believed only as far as it can be checked: a hostile file may have taken the child over.

    Raises
    ------
    ChildFailed
        Not the shape of an answer, no final state, a UID that is none, or a file outside the job's own folder.
    """
    try:
        for one in answer["results"]:
            built = results.BuiltResult(**{**one, "file": Path(one["file"])})
            inside = built.file.resolve().parent == staging.resolve() and built.file.is_file()
            uids = (built.sop_instance_uid, built.sop_class_uid, built.transfer_syntax_uid)
            if not inside or not all(_UID.fullmatch(uid) for uid in uids):
                raise ValueError("file or UID")
        if JobState(answer["state"]) in OPEN_JOBS or not isinstance(answer["summary"]["timings"], dict):
            raise ValueError("state")
    except (KeyError, TypeError, ValueError) as error:
        raise ChildFailed(
            "the process that reads and infers gave an answer that can't be right", "Malformed"
        ) from error
    return dict(answer)


def commit(
    database: Database, outbox_spool: Spool, job: jobs.Job, answer: Mapping[str, Any], *, now: float
) -> tuple[str, ...]:
    """Make a child's answer the job's result: files first, then rows, deliveries and audit in one transaction.

    Nothing leaves the node before this returns; run twice, it changes nothing.
    """
    with database.reading() as connection:
        if not jobs.by_id(connection, job.job_id).is_open:
            return ()
    built = [results.BuiltResult(**{**one, "file": Path(one["file"])}) for one in answer["results"]]
    kept = results.keep(outbox_spool, built, job_id=job.job_id, study_uid=job.study_uid, now=now)
    with database.transaction() as connection:
        state = JobState(answer["state"])
        if not jobs.finish(connection, job.job_id, state, reason=answer["reason"], summary=answer["summary"], now=now):
            return ()
        results.commit(connection, kept)
        uids = [one.sop_instance_uid for one in kept if one.fallback_for is None]
        peers = job.settings["destinations"]
        outbox.schedule(connection, job.job_id, uids, peers, priority=job.priority, now=now)
    return tuple(one.sop_instance_uid for one in kept)


def outgoing(found: Sequence[results.Result], outbox_spool: Spool) -> tuple[Outgoing, ...]:
    """Results as the sender takes them: in order, each with its fallback."""
    fallbacks = {one.fallback_for: one for one in found if one.fallback_for}
    return tuple(
        _outgoing(one, fallbacks.get(one.sop_instance_uid), outbox_spool) for one in found if not one.fallback_for
    )


def _outgoing(one: results.Result, fallback: results.Result | None, outbox_spool: Spool) -> Outgoing:
    return Outgoing(
        path=outbox_spool.absolute(one.path),
        sop_class_uid=one.sop_class_uid,
        sop_instance_uid=one.sop_instance_uid,
        transfer_syntax_uid=one.transfer_syntax_uid,
        fallback=_outgoing(fallback, None, outbox_spool) if fallback else None,
    )


_STATES: Mapping[ObjectOutcomeKind, DeliveryState] = {
    ObjectOutcomeKind.TAKEN: DeliveryState.SENT,
    ObjectOutcomeKind.PERMANENT: DeliveryState.FAILED,
    ObjectOutcomeKind.TRANSIENT: DeliveryState.PENDING,
}


#: "Cannot understand" (PS3.4 Table B.2-1), which many archives also answer when they stumble: believed from this try on
_CANNOT_UNDERSTAND = range(0xC000, 0xD000)
_TRIES_BEFORE_BELIEVED = 5


def _delivery_state(one: ObjectOutcome, tries: int) -> DeliveryState:
    if one.status in _CANNOT_UNDERSTAND and tries < _TRIES_BEFORE_BELIEVED:
        return DeliveryState.PENDING
    return _STATES[one.kind]


def attempts_of(outcomes: Sequence[ObjectOutcome], *, tries: int) -> tuple[outbox.Attempt, ...]:
    """What the sender reports of its try number `tries`, as the outbox records it."""
    return tuple(
        outbox.Attempt(
            result_uid=one.sop_instance_uid,
            state=_delivery_state(one, tries),
            status=one.status,
            sent_as=one.sent_sop_instance_uid or None,
            error=None if one.kind is ObjectOutcomeKind.TAKEN else one.words,
        )
        for one in outcomes
    )


def config_digest(config: Config) -> str:
    """SHA-256 of the configuration as it took effect, for the audit trail."""
    return hashlib.sha256(json.dumps(asdict(config), sort_keys=True, default=str).encode()).hexdigest()
