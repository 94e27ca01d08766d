"""`camnode run`, `status` and `replay`: start the node, look at its rows, order work again."""

import logging
import signal
import threading
import time
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from dicom_node.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Reason, open_database, person
from dicom_node.cli.printing import as_json, local_time, rows_as_json, say, table
from dicom_node.config import load_config
from dicom_node.node import Node
from dicom_node.routing import check_routes
from storage import jobs, outbox, results, studies
from storage.database import Database


def run(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Run the node until SIGTERM or Ctrl-C."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    for noisy in ("pynetdicom", "pydicom", "sqlalchemy", "alembic"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # their messages quote what peers send
    loaded = load_config(config)
    check_routes(loaded.routes)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with Node(loaded) as node:
        receiving = loaded.receiving
        logging.getLogger("camnode").info(
            "%s listens on %s port %d, database %s",
            receiving.ae_title,
            receiving.host,
            node.listener.port,
            node.database.dialect,
        )
        stop.wait()
        logging.getLogger("camnode").info("stopping")


def status(
    config: ConfigPath = DEFAULT_CONFIG,
    study: Annotated[str | None, typer.Option("--study", help="One study in full.")] = None,
    last: Annotated[int, typer.Option("--last", min=1, help="So many studies, newest first.")] = 20,
    json_: AsJson = False,
) -> None:
    """Show studies, jobs and deliveries, with the reason wherever something is not well."""
    _, database = open_database(config)
    with database.reading() as connection:
        if study is not None:
            found = _one_study(connection, study)
            as_json(found) if json_ else _print_study(found)
        else:
            overview = _overview(connection, last)
            as_json(overview) if json_ else _print_overview(overview)


def _overview(connection: Connection, last: int) -> dict[str, Any]:
    return {
        "jobs": jobs.counts(connection),
        "deliveries": outbox.counts(connection),
        "studies": [_with_jobs(connection, one) for one in studies.newest(connection, last)],
    }


def _with_jobs(connection: Connection, study: studies.Study) -> dict[str, Any]:
    return {
        **study.__dict__,
        "jobs": [_job_in_short(connection, one) for one in jobs.of_study(connection, study.study_uid)],
    }


def _job_in_short(connection: Connection, job: jobs.Job) -> dict[str, Any]:
    deliveries = outbox.of_job(connection, job.job_id)
    states = [one.state for one in deliveries]
    return {
        "job_id": job.job_id,
        "route": job.route,
        "state": job.state,
        "attempts": job.attempts,
        "reason": job.reason,
        "created": job.created,
        "finished": job.finished,
        "deliveries": {state: states.count(state) for state in dict.fromkeys(states)},
        "delivery_errors": sorted({f"{one.peer}: {one.last_error}" for one in deliveries if one.last_error}),
    }


def _one_study(connection: Connection, study_uid: str) -> dict[str, Any]:
    row = studies.study_by_uid(connection, study_uid)
    found = jobs.of_study(connection, study_uid)
    return {
        "study": dict(row.__dict__),
        "instances": rows_as_json(studies.instances_of(connection, study_uid)),
        "jobs": [
            {
                **_job_in_short(connection, one),
                "summary": one.summary,
                "results": rows_as_json(results.of_job(connection, one.job_id)),
            }
            for one in found
        ],
    }


def _print_overview(overview: dict[str, Any]) -> None:
    lines = [
        (
            local_time(one["last_received"]),
            one["study_uid"],
            one["state"],
            job["route"],
            job["state"],
            _delivered(job),
            _why(job),
        )
        for one in overview["studies"]
        for job in one["jobs"]
        or [{"route": "", "state": "", "deliveries": {}, "reason": one["reason"], "delivery_errors": []}]
    ]
    table("Studies, newest first", ("last instance", "study", "state", "route", "job", "results", "reason"), lines)
    say("jobs: " + (", ".join(f"{count} {state}" for state, count in sorted(overview["jobs"].items())) or "none"))
    for peer, states in overview["deliveries"].items():
        say(f"to {peer}: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))


def _delivered(job: dict[str, Any]) -> str:
    return ", ".join(f"{count} {state}" for state, count in job["deliveries"].items())


def _why(job: dict[str, Any]) -> str:
    return "; ".join(part for part in (job["reason"], *job["delivery_errors"]) if part)


def _print_study(found: dict[str, Any]) -> None:
    row = found["study"]
    why = row["reason"] or row["rule"] or ""
    say(f"study {row['study_uid']}: {row['state']}, generation {row['generation']}; {why}")
    instances = [
        (one["sop_instance_uid"], one["sop_class_uid"], one["size"], one["role"]) for one in found["instances"]
    ]
    table("Instances", ("SOP instance", "SOP class", "bytes", "role"), instances)
    for job in found["jobs"]:
        say(f"job {job['job_id']} ({job['route']}): {job['state']}, {job['attempts']} failed attempts; {_why(job)}")
        findings = (job["summary"] or {}).get("findings", [])
        lines = [(one["finding"], f"{one['probability']:.3f}", one["threshold"], one["present"]) for one in findings]
        table("Findings", ("finding", "certainty", "threshold", "present"), lines)
        made = [(one["kind"], one["description"], one["sop_instance_uid"], one["size"]) for one in job["results"]]
        table("Results", ("kind", "description", "SOP instance", "bytes"), made)


def replay(
    reason: Reason,
    config: ConfigPath = DEFAULT_CONFIG,
    job: Annotated[str | None, typer.Option("--job", help="Run this job again.")] = None,
    study: Annotated[
        str | None, typer.Option("--study", help="Run the last job of each route of this study again.")
    ] = None,
    parked: Annotated[bool, typer.Option("--parked", help="Send parked deliveries again (of --job, or all).")] = False,
    peer: Annotated[str | None, typer.Option("--peer", help="With --parked: only to this peer.")] = None,
) -> None:
    """Order work again: a job, a study's jobs, or deliveries that a peer had rejected. A running node takes it up."""
    if not parked and (job is None) == (study is None):
        raise typer.BadParameter("name one of --job, --study or --parked")
    _, database = open_database(config)
    if parked:
        with database.transaction() as connection:
            count = outbox.retry(connection, job_id=job, peer=peer, actor=person(), reason=reason, now=time.time())
        say(f"{count} deliveries are queued again")
        return
    for new_id in _replay_jobs(database, job, study, reason):
        say(f"queued as job {new_id}")


def _replay_jobs(database: Database, job: str | None, study: str | None, reason: str) -> list[str]:
    with database.transaction() as connection:
        if study is not None:
            studies.study_by_uid(connection, study)
            wanted = list({one.route: one.job_id for one in jobs.of_study(connection, study)}.values())
        else:
            wanted = [str(job)]
        actor = person()
        return [jobs.queue_again(connection, one, actor=actor, reason=reason, now=time.time()) for one in wanted]
