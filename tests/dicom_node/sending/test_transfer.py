"""Objects to providers that take, refuse, convert, stall and vanish."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)
from pynetdicom import _config
from pynetdicom.dsutils import decode

from dicom_node.config import Peer, SendingConfig
from dicom_node.sending.outcome import AssociationKind, ObjectOutcomeKind
from dicom_node.sending.transfer import propose, send

TAKEN, PERMANENT, TRANSIENT = ObjectOutcomeKind.TAKEN, ObjectOutcomeKind.PERMANENT, ObjectOutcomeKind.TRANSIENT


def test_objects_arrive_in_order_and_unchanged(
    provider: Any, outgoing: Any, config: SendingConfig, data_set_bytes: Any
) -> None:
    pacs = provider()
    objects = [outgoing("1.2.3.1", size=200_000), outgoing("1.2.3.2", ComprehensiveSRStorage), outgoing("1.2.3.3")]
    report = send(pacs.peer, objects, config, "CAMNODE")
    assert report.all_taken
    assert report.association.kind is AssociationKind.ACCEPTED
    assert [outcome.status for outcome in report.objects] == [0, 0, 0]
    assert [outcome.sop_instance_uid for outcome in report.objects] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert [uid for uid, _, _ in pacs.received] == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    for each, (_, syntax, received) in zip(objects, pacs.received, strict=True):
        assert syntax == ExplicitVRLittleEndian
        assert received == data_set_bytes(each.path)


def test_a_compressed_file_goes_out_as_it_is(
    provider: Any, outgoing: Any, config: SendingConfig, data_set_bytes: Any
) -> None:
    pacs = provider(syntaxes=[ExplicitVRLittleEndian, JPEGBaseline8Bit])
    picture = outgoing(syntax=JPEGBaseline8Bit)
    report = send(pacs.peer, [picture], config, "CAMNODE")
    assert report.objects[0].sent_transfer_syntax_uid == JPEGBaseline8Bit
    assert pacs.received == [("1.2.3.1", JPEGBaseline8Bit, data_set_bytes(picture.path))]


def test_only_implicit_vr_is_served_by_re_encoding(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider(syntaxes=[ImplicitVRLittleEndian])
    picture = outgoing()
    before = picture.path.read_bytes()
    report = send(pacs.peer, [picture], config, "CAMNODE")
    assert report.all_taken
    assert report.objects[0].sent_transfer_syntax_uid == ImplicitVRLittleEndian
    received = decode(BytesIO(pacs.received[0][2]), True, True)
    original = dcmread(picture.path)
    assert {element.tag: element.value for element in received} == {element.tag: element.value for element in original}
    assert picture.path.read_bytes() == before


def test_a_compressed_file_without_its_context_is_refused_for_good(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider(syntaxes=[ExplicitVRLittleEndian])
    plain = outgoing("1.2.3.2")
    report = send(pacs.peer, [outgoing(syntax=JPEGBaseline8Bit), plain], config, "CAMNODE")
    assert [outcome.kind for outcome in report.objects] == [PERMANENT, TAKEN]
    assert report.objects[0].sent_sop_instance_uid == ""


def test_the_fallback_goes_when_the_class_is_refused(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider(classes=[BasicTextSRStorage])
    last = outgoing("1.2.3.3", BasicTextSRStorage)
    second = outgoing("1.2.3.2", ComprehensiveSRStorage, fallback=last)
    first = outgoing("1.2.3.1", Comprehensive3DSRStorage, fallback=second)
    (outcome,) = send(pacs.peer, [first], config, "CAMNODE").objects
    assert outcome.kind is TAKEN
    assert outcome.used_fallback
    assert outcome.sop_instance_uid == "1.2.3.1"
    assert outcome.sent_sop_instance_uid == "1.2.3.3"
    assert outcome.sent_sop_class_uid == BasicTextSRStorage
    assert "fallback" in outcome.words
    assert [uid for uid, _, _ in pacs.received] == ["1.2.3.3"]


def test_the_fallback_goes_when_the_class_is_refused_late(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider(answers=[0x0122, 0x0000])
    report = outgoing("1.2.3.1", ComprehensiveSRStorage, fallback=outgoing("1.2.3.2"))
    (outcome,) = send(pacs.peer, [report], config, "CAMNODE").objects
    assert (outcome.kind, outcome.sent_sop_instance_uid) == (TAKEN, "1.2.3.2")
    assert [uid for uid, _, _ in pacs.received] == ["1.2.3.1", "1.2.3.2"]


def test_the_fallback_stays_at_home_when_the_object_is_taken(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider()
    report = outgoing("1.2.3.1", ComprehensiveSRStorage, fallback=outgoing("1.2.3.2"))
    (outcome,) = send(pacs.peer, [report], config, "CAMNODE").objects
    assert not outcome.used_fallback
    assert [uid for uid, _, _ in pacs.received] == ["1.2.3.1"]


def test_no_class_accepted_is_final(provider: Any, outgoing: Callable[..., Any], config: SendingConfig) -> None:
    report = send(provider(classes=[]).peer, [outgoing()], config, "CAMNODE")
    assert report.objects[0].kind is PERMANENT
    assert report.association.permanent


@pytest.mark.parametrize(
    ("status", "kind"),
    [(0xB000, TAKEN), (0xB006, TAKEN), (0xB007, TAKEN), (0xA700, TRANSIENT), (0x0110, TRANSIENT), (0xA900, PERMANENT),
     (0xC000, PERMANENT), (0x0117, PERMANENT), (0x0124, PERMANENT), (0x0122, PERMANENT)],
)  # fmt: skip
def test_statuses_are_recorded_and_the_next_object_goes_on(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig, status: Any, kind: Any
) -> None:
    pacs = provider(answers=[status, 0x0000])
    report = send(pacs.peer, [outgoing("1.2.3.1"), outgoing("1.2.3.2")], config, "CAMNODE")
    assert [(outcome.kind, outcome.status) for outcome in report.objects] == [(kind, status), (TAKEN, 0)]
    assert report.all_taken is (kind is TAKEN)


@pytest.mark.parametrize("how", ["drop", "abort"])
def test_an_association_that_ends_midway(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig, how: Any
) -> None:
    pacs = provider(answers=[0x0000, how])
    objects = [outgoing(f"1.2.3.{number}") for number in range(1, 5)]
    started = time.monotonic()
    report = send(pacs.peer, objects, config, "CAMNODE")
    assert time.monotonic() - started < 8
    assert [outcome.kind for outcome in report.objects] == [TAKEN, TRANSIENT, TRANSIENT, TRANSIENT]
    assert report.objects[1].status is None
    assert report.objects[1].sent_sop_instance_uid == "1.2.3.2", "it may have arrived: sent again under the same UID"
    assert report.objects[2].sent_sop_instance_uid == ""
    assert not report.all_taken


def test_a_peer_that_never_answers_is_never_counted_as_taken(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider(answers=[4.0])
    started = time.monotonic()
    report = send(pacs.peer, [outgoing("1.2.3.1"), outgoing("1.2.3.2")], config, "CAMNODE")
    assert time.monotonic() - started < 4
    assert [outcome.kind for outcome in report.objects] == [TRANSIENT, TRANSIENT]
    assert "not known" in report.objects[0].words


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"require_calling_aet": ["OTHER"]}, PERMANENT, "our AE title"),
        ({"require_called_aet": True, "ae_title": "ELSE"}, PERMANENT, "the peer's AE title"),
    ],
)
def test_a_rejected_association_decides_for_all(
    provider: Any, outgoing: Any, config: SendingConfig, settings: Any, kind: Any, words: Any
) -> None:
    report = send(provider(**settings).peer, [outgoing("1.2.3.1"), outgoing("1.2.3.2")], config, "CAMNODE")
    assert [outcome.kind for outcome in report.objects] == [kind, kind]
    assert report.association.kind is AssociationKind.REJECTED
    assert words in report.association.words


def test_congestion_is_transient(provider: Any, outgoing: Callable[..., Any], config: SendingConfig) -> None:
    pacs = provider(answers=[1.0], maximum_associations=1)

    first, second = outgoing("1.2.3.1"), outgoing("1.2.3.2")
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(send, pacs.peer, [first], config, "CAMNODE")
        while not pacs.received:
            time.sleep(0.01)
        report = send(pacs.peer, [second], config, "CAMNODE")
        assert busy.result(10).all_taken
    assert report.association.kind is AssociationKind.REJECTED
    assert report.objects[0].kind is TRANSIENT


def test_a_refused_connection_is_transient(outgoing: Any, config: SendingConfig) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    report = send(Peer(name="p", ae_title="PACS", host="127.0.0.1", port=port), [outgoing()], config, "CAMNODE")
    assert report.association.kind is AssociationKind.UNREACHABLE
    assert report.objects[0].kind is TRANSIENT


def test_a_peer_without_an_address_is_final(outgoing: Any, config: SendingConfig) -> None:
    report = send(Peer(name="p", ae_title="PACS", role="sender"), [outgoing()], config, "CAMNODE")
    assert report.objects[0].kind is PERMANENT


def test_a_file_that_is_gone_does_not_stop_the_others(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider()
    gone, broken, good = outgoing("1.2.3.1"), outgoing("1.2.3.2"), outgoing("1.2.3.3")
    gone.path.unlink()
    broken.path.write_bytes(b"not a file of this kind" * 20)
    report = send(pacs.peer, [gone, broken, good], config, "CAMNODE")
    assert [outcome.kind for outcome in report.objects] == [PERMANENT, PERMANENT, TAKEN]
    assert str(gone.path) not in report.objects[0].words


def test_nothing_to_send_is_an_error(provider: Any, config: SendingConfig) -> None:
    with pytest.raises(ValueError):
        send(provider().peer, [], config, "CAMNODE")


def test_files_are_sent_without_being_decoded(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_node.sending.transfer.dcmread", None)
    assert send(provider().peer, [outgoing()], config, "CAMNODE").all_taken
    assert _config.STORE_SEND_CHUNKED_DATASET is True


def test_contexts_are_proposed_one_by_one_and_never_too_many(outgoing: Any) -> None:
    fallback = outgoing("1.2.3.2", ComprehensiveSRStorage)
    objects = [
        outgoing("1.2.3.1", syntax=JPEGBaseline8Bit),
        outgoing("1.2.3.3", Comprehensive3DSRStorage, fallback=fallback),
    ]
    proposed = [(context.abstract_syntax, *context.transfer_syntax) for context in propose(objects)]
    assert proposed == [
        (SecondaryCaptureImageStorage, JPEGBaseline8Bit),
        (Comprehensive3DSRStorage, ExplicitVRLittleEndian),
        (ComprehensiveSRStorage, ExplicitVRLittleEndian),
        (Comprehensive3DSRStorage, ImplicitVRLittleEndian),
        (ComprehensiveSRStorage, ImplicitVRLittleEndian),
    ]


def test_twenty_small_objects_do_not_wait_for_acknowledgements(
    provider: Any, outgoing: Callable[..., Any], config: SendingConfig
) -> None:
    pacs = provider()
    objects = [outgoing(f"1.2.3.{number}") for number in range(1, 21)]
    send(pacs.peer, objects[:1], config, "CAMNODE")
    started = time.monotonic()
    assert send(pacs.peer, objects, config, "CAMNODE").all_taken
    assert time.monotonic() - started < 20 * 0.040, "TCP_NODELAY and TCP_QUICKACK keep it below 40 ms an object"
