"""What becomes of objects on their way to a peer, and which answers are final; opens no association."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class ObjectOutcomeKind(Enum):
    """Whether an object arrived, and if not, whether trying again can help."""

    TAKEN = "taken"
    TRANSIENT = "transient"
    PERMANENT = "permanent"


_TAKEN, _TRANSIENT, _PERMANENT = ObjectOutcomeKind.TAKEN, ObjectOutcomeKind.TRANSIENT, ObjectOutcomeKind.PERMANENT
#: lowest and highest status, what it means for the object, plain words (PS3.4 Table B.2-1, PS3.7 Annex C)
_STATUSES = (
    (0x0000, 0x0000, _TAKEN, "taken"),
    (0x0111, 0x0111, _TAKEN, "the peer has it already"),
    (0xB000, 0xB000, _TAKEN, "taken, the peer changed some elements"),
    (0xB006, 0xB006, _TAKEN, "taken, the peer dropped some elements"),
    (0xB007, 0xB007, _TAKEN, "taken, the peer finds that it does not match its class"),
    (0x0117, 0x0117, _PERMANENT, "the peer finds the instance invalid"),
    (0x0122, 0x0122, _PERMANENT, "the peer does not support the SOP class"),
    (0x0124, 0x0124, _PERMANENT, "this node is not authorised at the peer"),
    (0x0210, 0x0210, _PERMANENT, "the peer finds the request duplicated"),
    (0x0211, 0x0211, _PERMANENT, "the peer does not know the operation"),
    (0x0212, 0x0212, _PERMANENT, "the peer finds the request mistyped"),
    (0xA900, 0xA9FF, _PERMANENT, "the peer finds that the object does not match its SOP class"),
    (0xC000, 0xCFFF, _PERMANENT, "the peer cannot understand the object"),
    (0xA700, 0xA7FF, _TRANSIENT, "the peer is out of resources"),
)


class AssociationKind(Enum):
    """How the association itself went."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A finished file and, in `fallback`, what may go in its place when the peer refuses its SOP class."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    fallback: "Outgoing | None" = None


@dataclass(frozen=True, kw_only=True)
class ObjectOutcome:
    """What became of one object.

    Attributes
    ----------
    sop_instance_uid : str
        Of the object that was asked for.
    sent_sop_instance_uid, sent_sop_class_uid, sent_transfer_syntax_uid : str
        Of what was really put on the wire; empty when nothing was.
    status : int or None
        The peer's C-STORE status; None without an answer.
    words : str
        Plain words for people and for the audit trail.
    """

    kind: ObjectOutcomeKind
    sop_instance_uid: str
    words: str
    status: int | None = None
    sent_sop_instance_uid: str = ""
    sent_sop_class_uid: str = ""
    sent_transfer_syntax_uid: str = ""

    @property
    def used_fallback(self) -> bool:
        """Whether the fallback object went out in place of the one asked for."""
        return self.sent_sop_instance_uid not in {"", self.sop_instance_uid}


@dataclass(frozen=True, kw_only=True)
class AssociationOutcome:
    """How the association went, in one word and in plain words; `permanent` when another try can't change it."""

    kind: AssociationKind
    words: str
    permanent: bool = False


@dataclass(frozen=True, kw_only=True)
class SendReport:
    """Everything about one `send`, one outcome for each object in the order given."""

    association: AssociationOutcome
    objects: tuple[ObjectOutcome, ...]

    @property
    def all_taken(self) -> bool:
        """Whether the peer took every object."""
        return all(outcome.kind is ObjectOutcomeKind.TAKEN for outcome in self.objects)


@dataclass(frozen=True, kw_only=True)
class EchoReport:
    """The answer to a C-ECHO in plain words, and how long it took.

    Attributes
    ----------
    seconds : float
        From the first TCP packet to the end of the association.
    """

    reachable: bool
    words: str
    seconds: float


def classify_status(status: int | None) -> tuple[ObjectOutcomeKind, str]:
    """Say whether a C-STORE status is final (PS3.4 Table B.2-1, PS3.7 Annex C).

    A missing status is an unknown outcome: the object may or may not have arrived, so it is sent again under the same
    UID. So is a status that the standard doesn't know: trying again does no harm, giving up might.
    """
    if status is None:
        return ObjectOutcomeKind.TRANSIENT, "no answer from the peer, it is not known whether the object arrived"
    for lowest, highest, kind, words in _STATUSES:
        if lowest <= status <= highest:
            return kind, words if kind is ObjectOutcomeKind.TAKEN else f"{words} (0x{status:04X})"
    return ObjectOutcomeKind.TRANSIENT, f"the peer failed to process the object (0x{status:04X})"


_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context not supported",
    (1, 3): "our AE title is not recognised",
    (1, 7): "the peer's AE title is not recognised",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}


def classify_rejection(result: int | None, source: int | None, diagnostic: int | None) -> AssociationOutcome:
    """Say whether an A-ASSOCIATE-RJ is final (PS3.8 Table 9-21).

    The codes are believed in this order: congestion is never final and an unknown title always is, whatever `result`
    says, because some peers send a transient result with a lasting reason and the other way round; otherwise `result` 1
    is permanent.
    """
    codes = (source or 0, diagnostic or 0)
    words = _REJECTIONS.get(codes, "no reason given")
    if codes[0] == 3:
        permanent = False
    elif codes in {(1, 2), (1, 3), (1, 7), (2, 2)}:
        permanent = True
    else:
        permanent = result == 1
    return AssociationOutcome(
        kind=AssociationKind.REJECTED, words=f"association rejected: {words}", permanent=permanent
    )


def same_for_all(objects: Sequence[Outgoing], association: AssociationOutcome) -> SendReport:
    """Give the report of an association on which nothing could be sent."""
    kind = ObjectOutcomeKind.PERMANENT if association.permanent else ObjectOutcomeKind.TRANSIENT
    return SendReport(
        association=association,
        objects=tuple(
            ObjectOutcome(kind=kind, sop_instance_uid=each.sop_instance_uid, words=association.words)
            for each in objects
        ),
    )
