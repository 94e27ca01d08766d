"""What the listener hands on and what it is told back: plain values; knows no network and no disk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

#: a routing attribute as plain JSON: text, number, or a list of them for a value multiplicity above 1
AttributeValue = str | int | float | Sequence[str | int | float]


@dataclass(frozen=True, kw_only=True)
class ReceivedInstance:
    """One composite instance, exactly as a peer sent it.

    Attributes
    ----------
    attributes : mapping of DICOM keyword to plain JSON value
        What routing and audit need, from the first part of the data set.
    encoded : bytes
        The data set verbatim, without group 2.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str
    series_instance_uid: str
    attributes: Mapping[str, AttributeValue]
    calling_ae: str
    called_ae: str
    address: str
    encoded: bytes = field(repr=False)


class StoreOutcome(Enum):
    """What became of a received instance. Only the first two may be answered with success."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    OUT_OF_RESOURCES = "out of resources"
    FAILED = "failed"


class AssociationEventKind(Enum):
    """What happened to an association, or to an instance that was never handed on."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELEASED = "released"
    ABORTED = "aborted"
    INSTANCE_REFUSED = "instance refused"


@dataclass(frozen=True, kw_only=True)
class AssociationEvent:
    """One fact about an association, for the audit trail and the counters.

    Attributes
    ----------
    reason : str
        Plain words, free of anything about a patient; empty when there is nothing to explain.
    status : int or None
        The C-STORE status that was answered (INSTANCE_REFUSED only), PS3.4 Table B.2-1.
    study_uids : tuple of str
        The studies of which instances were taken (RELEASED and ABORTED only), in the order of their first instance.
    instances : int
        How many instances were taken (RELEASED and ABORTED only).
    """

    kind: AssociationEventKind
    calling_ae: str
    called_ae: str
    address: str
    reason: str = ""
    status: int | None = None
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_uids: tuple[str, ...] = ()
    instances: int = 0
