"""`camnode audit`: list, verify and export the audit trail. Reading the trail is itself audited."""

import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer

from dicom_node.audit_messages import AuditSource, audit_message
from dicom_node.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, open_database, person
from dicom_node.cli.printing import as_json, say, table
from storage import audit
from storage.audit import AuditEvent
from storage.database import Database
from storage.errors import AuditChainBroken

commands = typer.Typer(help="List, verify and export the audit trail.", no_args_is_help=True)

Study = Annotated[str | None, typer.Option("--study", help="Only this Study Instance UID.")]
Event = Annotated[
    str | None, typer.Option("--event", help="Only events whose name starts so, e.g. `job` or `delivery.sent`.")
]
Since = Annotated[str | None, typer.Option("--since", help="From this time on: ISO 8601, UTC.")]
Until = Annotated[str | None, typer.Option("--until", help="Before this time: ISO 8601, UTC.")]


class Format(StrEnum):
    """`jsonl`: one event a line with its hashes; `dicom`: PS3.15 A.5 audit messages, one XML document a line."""

    JSONL = "jsonl"
    DICOM = "dicom"


@commands.command("list")
def list_events(  # noqa: PLR0913, PLR0917 - one parameter an option
    config: ConfigPath = DEFAULT_CONFIG,
    study: Study = None,
    event: Event = None,
    since: Since = None,
    until: Until = None,
    last: Annotated[int, typer.Option("--last", min=1, help="So many of the newest.")] = 50,
    json_: AsJson = False,
) -> None:
    """Print events, oldest first."""
    _, database = open_database(config)
    found = tuple(audit.events(database, study_uid=study, event=event, since=since, until=until, last=last))
    _record(database, "audit.read", study, {"events": len(found)})
    if json_:
        as_json([dict(one.__dict__) for one in found])
        return
    lines = [(one.seq, one.time[:19], one.event, one.outcome, one.actor, one.study_uid, _short(one)) for one in found]
    table("Audit trail (UTC)", ("#", "time", "event", "outcome", "actor", "study", "details"), lines)


@commands.command("verify")
def verify(
    config: ConfigPath = DEFAULT_CONFIG,
    head: Annotated[
        str | None, typer.Option("--head", help="A hash kept elsewhere that must still be in the chain.")
    ] = None,
    json_: AsJson = False,
) -> None:
    """Recompute the hash chain; exit code 1 when it is broken."""
    _, database = open_database(config)
    try:
        verification = audit.verify(database, expected_head=head)
    except AuditChainBroken as error:
        if json_:
            as_json({"intact": False, "seq": error.seq, "reason": error.reason})
        else:
            say(f"BROKEN: {error}")
        raise typer.Exit(1) from None
    if json_:
        as_json({"intact": True, "events": verification.events, "head": verification.head})
    else:
        say(f"intact: {verification.events} events, head {verification.head}")
        say("Keep the head somewhere else: `camnode audit verify --head …` then also shows a trail that was cut short.")


@commands.command("export")
def export(  # noqa: PLR0913, PLR0917 - one parameter an option
    config: ConfigPath = DEFAULT_CONFIG,
    out: Annotated[Path | None, typer.Option("--out", help="A file; standard output when not given.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="jsonl or dicom (PS3.15 A.5 XML).")] = Format.JSONL,
    study: Study = None,
    event: Event = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write events to a file, as they are or as DICOM audit messages."""
    loaded, database = open_database(config)
    source = AuditSource(name=loaded.node.name, ae_title=loaded.receiving.ae_title)
    found = audit.events(database, study_uid=study, event=event, since=since, until=until)
    lines = (_line(one, format_, source) for one in found)
    if out is None:
        count = _write(lines, sys.stdout)
    else:
        with open(out, "w", encoding="utf-8") as file:
            count = _write(lines, file)
        say(f"{count} events written to {out}")
    _record(database, "audit.exported", study, {"events": count, "format": format_.value})


def _line(one: AuditEvent, format_: Format, source: AuditSource) -> str:
    if format_ is Format.JSONL:
        return json.dumps(one.__dict__, sort_keys=True)
    return audit_message(one.__dict__, source).decode().replace("\n", "")


def _write(lines: Iterable[str], stream: TextIO) -> int:
    count = 0
    for line in lines:
        count += 1
        stream.write(line + "\n")
    return count


def _record(database: Database, event: str, study: str | None, details: dict[str, object]) -> None:
    with database.transaction() as connection:
        audit.append(connection, event, actor=person(), study_uid=study, details=details)


def _short(one: AuditEvent) -> str:
    keys = ("reason", "route", "peer", "kind", "calling_ae", "address", "rule", "attempt")
    return ", ".join(f"{key}={one.details[key]}" for key in keys if one.details.get(key))
