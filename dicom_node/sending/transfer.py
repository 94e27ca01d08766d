"""Sends files to one peer over one association and says what became of each; keeps no queue, tries nothing twice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.sending.association import MAXIMUM_CONTEXTS, associate
from dicom_node.sending.outcome import (
    ObjectOutcome,
    ObjectOutcomeKind,
    Outgoing,
    SendReport,
    classify_status,
    same_for_all,
)

if TYPE_CHECKING:
    from dicom_node.config import Peer, SendingConfig

_UNCOMPRESSED = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
#: message IDs are 16 bits wide (PS3.7 9.1.1.1.1)
_MESSAGE_IDS = 0xFFFF


def send(peer: Peer, objects: Sequence[Outgoing], config: SendingConfig, calling_ae: str) -> SendReport:
    """Send objects to a peer, in their order, over one association.

    The bytes of a file go out unchanged whenever the peer takes the file's transfer syntax. When it takes only the
    other uncompressed one, the data set is re-encoded on the way, never on disk. When it refuses the SOP class, the
    fallback goes in its place.

    Returns
    -------
    SendReport
        One outcome an object. An object without an answer is transient: the peer may hold it, and gets it again under
        the same UID.
    """
    if not objects:
        raise ValueError("nothing to send")
    with associate(peer, propose(objects), config, calling_ae) as opened:
        if opened.association is None:
            return same_for_all(objects, opened.outcome)
        outcomes = tuple(
            _send_one(opened.association, each, number % _MESSAGE_IDS + 1) for number, each in enumerate(objects)
        )
    return SendReport(association=opened.outcome, objects=outcomes)


def propose(objects: Iterable[Outgoing]) -> list[PresentationContext]:
    """Give the contexts for these objects and their fallbacks: each SOP class with each transfer syntax in a context of
    its own.

    That way the peer says for each whether it takes it. Own transfer syntaxes come first, should there be too many.
    """
    pairs: dict[tuple[str, str], None] = {}
    chain = [link for each in objects for link in _with_fallbacks(each)]
    for link in chain:
        pairs.setdefault((link.sop_class_uid, link.transfer_syntax_uid))
    for link in chain:
        if link.transfer_syntax_uid in _UNCOMPRESSED:
            for uid in _UNCOMPRESSED:
                pairs.setdefault((link.sop_class_uid, uid))
    return [build_context(sop_class, syntax) for sop_class, syntax in list(pairs)[:MAXIMUM_CONTEXTS]]


def _with_fallbacks(outgoing: Outgoing) -> Iterator[Outgoing]:
    """Yield an object, its fallback, the fallback's fallback, and so on."""
    link: Outgoing | None = outgoing
    while link is not None:
        yield link
        link = link.fallback


def _accepted_syntax(assoc: Association, link: Outgoing) -> str | None:
    """Give the transfer syntax in which the peer takes this file: its own, the other uncompressed one, or None."""
    contexts = [context for context in assoc.accepted_contexts if context.abstract_syntax == link.sop_class_uid]
    accepted = {str(context.transfer_syntax[0]) for context in contexts}
    if link.transfer_syntax_uid in accepted:
        return link.transfer_syntax_uid
    if link.transfer_syntax_uid in _UNCOMPRESSED:
        return next((str(uid) for uid in _UNCOMPRESSED if uid in accepted), None)
    return None


def _send_one(assoc: Association, outgoing: Outgoing, message_id: int) -> ObjectOutcome:
    """Send the first of the object and its fallbacks that the peer accepts."""
    if not assoc.is_established:
        words = "not sent: the association ended before"
        return _not_sent(ObjectOutcomeKind.TRANSIENT, outgoing, words)
    outcome = None
    for link in _with_fallbacks(outgoing):
        syntax = _accepted_syntax(assoc, link)
        if syntax is None:
            continue
        outcome = _store(assoc, outgoing, link, syntax, message_id)
        if outcome.status != 0x0122:  # SOP class not supported: accepted in negotiation, refused after all
            return outcome
    if outcome is not None:
        return outcome
    return _not_sent(
        ObjectOutcomeKind.PERMANENT, outgoing, "the peer does not take this SOP class in a form that we have"
    )


def _store(assoc: Association, outgoing: Outgoing, link: Outgoing, syntax: str, message_id: int) -> ObjectOutcome:
    """Send one file and wait for the answer."""
    try:
        if syntax == link.transfer_syntax_uid:
            answer = assoc.send_c_store(link.path, msg_id=message_id, priority=0)
        else:
            answer = assoc.send_c_store(dcmread(link.path), msg_id=message_id, priority=0)
    except (OSError, InvalidDicomError, AttributeError, ValueError) as error:
        words = f"the file cannot be sent from here ({type(error).__name__})"
        return _not_sent(ObjectOutcomeKind.PERMANENT, outgoing, words)
    except RuntimeError:  # pynetdicom's word for an association that ended meanwhile
        return _not_sent(ObjectOutcomeKind.TRANSIENT, outgoing, "not sent: the association ended before")
    status = _status(answer)
    if status is None and assoc.is_established:
        assoc.abort()  # an answer that comes late must not be taken for the next object's
    kind, words = classify_status(status)
    if link is not outgoing:
        words += "; the fallback went in place of the object, whose SOP class the peer refuses"
    return ObjectOutcome(
        kind=kind,
        sop_instance_uid=outgoing.sop_instance_uid,
        words=words,
        status=status,
        sent_sop_instance_uid=link.sop_instance_uid,
        sent_sop_class_uid=link.sop_class_uid,
        sent_transfer_syntax_uid=syntax,
    )


def _not_sent(kind: ObjectOutcomeKind, outgoing: Outgoing, words: str) -> ObjectOutcome:
    """Give the outcome of an object of which nothing went out."""
    return ObjectOutcome(kind=kind, sop_instance_uid=outgoing.sop_instance_uid, words=words)


def _status(answer: Dataset) -> int | None:
    """Give the status of an answer; pynetdicom gives an empty one when the peer was silent, aborted or hung up."""
    return int(answer.Status) if "Status" in answer else None
