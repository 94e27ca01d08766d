"""From one C-STORE request to one answer, without a network."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.errors import DicomNodeError, IdentifierMismatch, ReceivingError
from dicom_node.receiving.instance import StoreOutcome
from dicom_node.receiving.store import answer_store, printable, receive, status_dataset


@pytest.fixture
def event(instance: Any, encoded: Any) -> Any:
    """Makes what pynetdicom gives a C-STORE handler."""

    def _event(data_set: Any = None, **request: Any) -> Any:
        ds = instance()
        raw = encoded(ds) if data_set is None else data_set
        fields = {"AffectedSOPClassUID": ds.SOPClassUID, "AffectedSOPInstanceUID": ds.SOPInstanceUID, **request}
        primitive = SimpleNamespace(calling_ae_title="CT\x1b[31m ", called_ae_title="CAMNODE  ")
        return SimpleNamespace(
            request=SimpleNamespace(**fields),
            context=SimpleNamespace(transfer_syntax=ExplicitVRLittleEndian),
            encoded_dataset=lambda include_meta: raw,
            assoc=SimpleNamespace(requestor=SimpleNamespace(primitive=primitive, address="10.0.0.5")),
        )

    return _event


def test_an_instance_is_built_verbatim(event: Any, instance: Callable[..., Any], encoded: Callable[..., Any]) -> None:
    received = receive(event())
    assert received.encoded == encoded(instance())
    assert (received.calling_ae, received.called_ae, received.address) == ("CT?[31m", "CAMNODE", "10.0.0.5")
    assert "encoded" not in repr(received)


def test_the_data_set_must_be_what_the_request_says(event: Any) -> None:
    with pytest.raises(IdentifierMismatch) as raised:
        receive(event(AffectedSOPInstanceUID="1.2.3.99"))
    assert raised.value.keyword == "SOPInstanceUID"


@pytest.mark.parametrize("failure", [RuntimeError, OSError, KeyError, MemoryError, DicomNodeError, AssertionError])
def test_whatever_the_store_raises_is_answered(event: Any, failure: Any) -> None:
    def _store(received: Any) -> None:
        raise failure("CANARY")

    answer = answer_store(event(), _store)
    assert (answer.status, answer.taken, answer.refused) == (0xC001, False, False)
    assert "CANARY" not in answer.comment


def test_a_store_that_answers_nonsense_is_a_failure(event: Any) -> None:
    assert answer_store(event(), lambda received: None).status == 0xC001


def test_success_has_no_comment_and_others_a_short_one(event: Any) -> None:
    taken = status_dataset(answer_store(event(), lambda received: StoreOutcome.STORED))
    assert taken.Status == 0
    assert "ErrorComment" not in taken
    refused = answer_store(event(data_set=b""), lambda received: StoreOutcome.STORED)
    assert (refused.status, refused.refused, refused.instance) == (0xC000, True, None)
    assert 0 < len(status_dataset(refused).ErrorComment) <= 64


@pytest.mark.parametrize("kind", ReceivingError.__subclasses__())
def test_every_refusal_has_a_status_of_its_own(event: Any, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def _raise(received: Any) -> None:
        raise kind("StudyInstanceUID")

    monkeypatch.setattr("dicom_node.receiving.store.receive", _raise)
    answer = answer_store(event(), lambda received: StoreOutcome.STORED)
    assert answer.status in {0xA900, 0xC000}
    assert answer.refused


def test_titles_are_made_printable() -> None:
    assert printable(" A\nB\x00é ") == "A?B??"
    assert printable(None) == ""
