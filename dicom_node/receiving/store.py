"""Answers a C-STORE request: checks it, hands the instance on, gives back a status; knows no disk and no database."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.errors import IdentifierMismatch, InvalidUID, MissingUID, ReceivingError, UnreadableDataSet
from dicom_node.receiving.header import Header, check_uid, read_header
from dicom_node.receiving.instance import ReceivedInstance, StoreOutcome

LOGGER = logging.getLogger(__name__)

SUCCESS = 0x0000
#: PS3.7 C.5.6: the SOP Instance UID violates the rules for UIDs
INVALID_INSTANCE = 0x0117
#: PS3.4 Table B.2-1
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0xC001

#: status and Error Comment of what became of an instance that was handed on
ANSWERS = {
    StoreOutcome.STORED: (SUCCESS, ""),
    StoreOutcome.DUPLICATE: (SUCCESS, ""),
    StoreOutcome.OUT_OF_RESOURCES: (OUT_OF_RESOURCES, "no room to store at the moment"),
    StoreOutcome.FAILED: (PROCESSING_FAILURE, "the instance could not be stored"),
}


@dataclass(frozen=True, kw_only=True)
class StoreAnswer:
    """What is answered, and the instance it is about when it could be understood."""

    status: int
    comment: str
    instance: ReceivedInstance | None = None
    #: the request itself was refused, the instance was never handed on
    refused: bool = False

    @property
    def taken(self) -> bool:
        """Whether the peer was told that its instance is safe."""
        return self.status == SUCCESS


def answer_store(event: Event, store: Callable[[ReceivedInstance], StoreOutcome]) -> StoreAnswer:
    """Check and hand on the instance of an EVT_C_STORE event. Never raises: the peer is owed a status.

    Identifiers that aren't UIDs are refused with 0x0117 (the instance's own) or 0xA900, missing ones and those that
    differ between request and data set with 0xA900, bytes that can't be parsed with 0xC000.
    """
    try:
        instance = receive(event)
        status, comment = ANSWERS[store(instance)]
        return StoreAnswer(status=status, comment=comment, instance=instance)
    except ReceivingError as error:
        return StoreAnswer(status=_status_of(error), comment=str(error), refused=True)
    except Exception as error:  # noqa: BLE001 - whatever failed, the peer must get a status and not take it for stored
        # only the class is logged: the words of a foreign exception may hold values of the data set
        LOGGER.error("C-STORE failed: %s", type(error).__name__)
        return StoreAnswer(status=PROCESSING_FAILURE, comment="the instance could not be stored")


def receive(event: Event) -> ReceivedInstance:
    """Build the ReceivedInstance of an EVT_C_STORE event.

    Raises
    ------
    ReceivingError
        One of its kinds, for what `answer_store` says.
    """
    request = cast(C_STORE, event.request)
    sop_class = check_uid(str(request.AffectedSOPClassUID), "SOPClassUID")
    sop_instance = check_uid(str(request.AffectedSOPInstanceUID), "SOPInstanceUID")
    encoded = event.encoded_dataset(include_meta=False)
    transfer_syntax = str(event.context.transfer_syntax)
    header = read_header(encoded, transfer_syntax)
    _check_same(header, sop_class, sop_instance)
    association = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
    return ReceivedInstance(
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=transfer_syntax,
        study_instance_uid=header.study_instance_uid,
        series_instance_uid=header.series_instance_uid,
        attributes=header.attributes,
        calling_ae=printable(association.calling_ae_title),
        called_ae=printable(association.called_ae_title),
        address=event.assoc.requestor.address or "",
        encoded=encoded,
    )


def status_dataset(answer: StoreAnswer) -> Dataset:
    """Give the answer as pynetdicom sends it: Status and, on failure, Error Comment (LO: at most 64 characters)."""
    status = Dataset()
    status.Status = answer.status
    if answer.comment:
        status.ErrorComment = answer.comment[:64]
    return status


def printable(title: str | None) -> str:
    """Give an AE title without padding; what isn't a printable ASCII character becomes a question mark."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in (title or "").strip())


def _check_same(header: Header, sop_class: str, sop_instance: str) -> None:
    """Hold the data set to what the request said it is."""
    if header.sop_class_uid != sop_class:
        raise IdentifierMismatch("SOPClassUID")
    if header.sop_instance_uid != sop_instance:
        raise IdentifierMismatch("SOPInstanceUID")


def _status_of(error: ReceivingError) -> int:
    """Give the status for a refusal."""
    if isinstance(error, InvalidUID) and error.keyword == "SOPInstanceUID":
        return INVALID_INSTANCE
    if isinstance(error, UnreadableDataSet):
        return CANNOT_UNDERSTAND
    if isinstance(error, InvalidUID | MissingUID | IdentifierMismatch):
        return DOES_NOT_MATCH
    return PROCESSING_FAILURE
