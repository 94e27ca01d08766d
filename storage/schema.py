"""The tables and their states. Knows no dialect and runs no statement.

Study     receiving → complete → routed | ignored      a late instance: → receiving, generation + 1
Job       queued → running → done | refused | failed   running → queued when an attempt failed and others are left;
                                                       an interrupted attempt stays running and is taken up again
Delivery  pending → sent → confirmed                   pending → failed (parked) → pending or abandoned, both by hand
"""

from enum import StrEnum

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1


class StudyState(StrEnum):
    RECEIVING = "receiving"
    COMPLETE = "complete"
    ROUTED = "routed"
    IGNORED = "ignored"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"


class DeliveryState(StrEnum):
    PENDING = "pending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    FAILED = "failed"
    ABANDONED = "abandoned"


class InstanceRole(StrEnum):
    """SOURCE: read by jobs; CONFLICT: the UID of another instance, other content; OWN_RESULT: ours, come back."""

    SOURCE = "source"
    CONFLICT = "conflict"
    OWN_RESULT = "own-result"


OPEN_JOBS = (JobState.QUEUED, JobState.RUNNING)

#: Times are UTC seconds since the epoch (float); states are checked by the database itself.
metadata = MetaData()


def _state(name: str, states: type[StrEnum]) -> Column[str]:
    allowed = ", ".join(f"'{state.value}'" for state in states)
    return Column(name, String(16), CheckConstraint(f"{name} IN ({allowed})"), nullable=False)


schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

study = Table(
    "study",
    metadata,
    Column("study_uid", String(64), primary_key=True),
    _state("state", StudyState),
    Column("generation", Integer, nullable=False, default=1),
    Column("first_received", Float, nullable=False),
    Column("last_received", Float, nullable=False),
    Column("completed", Float),
    Column("rule", String(64)),
    Column("reason", Text),
    Column("patient_id", String(64)),
    Column("accession_number", String(64)),
    Index("study_by_state", "state", "last_received"),
    Index("study_by_patient", "patient_id"),
    Index("study_by_accession", "accession_number"),
)

instance = Table(
    "instance",
    metadata,
    Column("instance_id", Integer, primary_key=True, autoincrement=True),
    Column("sop_instance_uid", String(64), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("study_uid", String(64), ForeignKey("study.study_uid"), nullable=False),
    Column("series_uid", String(64), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    _state("role", InstanceRole),
    Column("path", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("received", Float, nullable=False),
    Column("copies", Integer, nullable=False, default=1),
    Column("calling_ae", String(16), nullable=False),
    Column("called_ae", String(16), nullable=False),
    Column("address", String(64), nullable=False),
    Column("attributes", JSON, nullable=False),
    UniqueConstraint("sop_instance_uid", "sha256"),
    Index("instance_by_study", "study_uid", "series_uid"),
)

job = Table(
    "job",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("study_uid", String(64), ForeignKey("study.study_uid"), nullable=False),
    Column("route", String(64), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("run", Integer, nullable=False, default=0),
    Column("priority", Integer, nullable=False),
    _state("state", JobState),
    Column("attempts", Integer, nullable=False, default=0),
    Column("next_attempt", Float, nullable=False),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("reason", Text),
    Column("input_digest", String(64), nullable=False),
    Column("inputs", JSON, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("summary", JSON),
    Column("predecessor", String(64)),
    UniqueConstraint("study_uid", "route", "generation", "run"),
    Index("job_by_state", "state"),
)

result = Table(
    "result",
    metadata,
    Column("sop_instance_uid", String(64), primary_key=True),
    Column("job_id", String(64), ForeignKey("job.job_id"), nullable=False),
    Column("study_uid", String(64), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("sop_class_uid", String(64), nullable=False),
    Column("transfer_syntax_uid", String(64), nullable=False),
    Column("position", Integer, nullable=False),
    Column("fallback_for", String(64)),
    Column("description", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created", Float, nullable=False),
    Index("result_by_job", "job_id"),
)

delivery = Table(
    "delivery",
    metadata,
    Column("delivery_id", Integer, primary_key=True, autoincrement=True),
    Column("result_uid", String(64), ForeignKey("result.sop_instance_uid"), nullable=False),
    Column("job_id", String(64), ForeignKey("job.job_id"), nullable=False),
    Column("peer", String(64), nullable=False),
    _state("state", DeliveryState),
    Column("priority", Integer, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("created", Float, nullable=False),
    Column("next_attempt", Float, nullable=False),
    Column("sent", Float),
    Column("sent_as", String(64)),
    Column("status", Integer),
    Column("last_error", Text),
    Column("by_hand", Boolean, nullable=False, default=False),
    UniqueConstraint("result_uid", "peer"),
    Index("delivery_by_state", "state", "next_attempt"),
    Index("delivery_by_job", "job_id", "peer"),
)

audit_event = Table(
    "audit_event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("time", String(32), nullable=False),
    Column("event", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("study_uid", String(64)),
    Column("details", Text, nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("audit_by_study", "study_uid"),
    Index("audit_by_event", "event"),
)
