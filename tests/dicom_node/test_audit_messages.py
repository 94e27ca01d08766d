"""Our audit events as messages of PS3.15 section A.5, each valid against its schema."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from dicom_node.audit_messages import KINDS, OUTCOMES, AuditSource, audit_message

SOURCE = AuditSource(name="camnode-1", ae_title="CAMNODE", address="10.0.0.2", site="Hospital")
SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "dicom_audit.rng"))
FULL = {
    "calling_ae": "CT1", "called_ae": "CAMNODE", "address": "10.0.0.5", "patient_id": "P-4711",
    "accession_number": "A-1", "sop_instance_uid": "1.2.3.4", "peer": "pacs", "peer_ae": "PACS",
    "sop_class_uids": {"1.2.840.10008.5.1.4.1.1.2": 3, "1.2.840.10008.5.1.4.1.1.7": 1},
    "model": "chest-demo 1.0.0", "model_sha256": "ab" * 32, "rule": "Modality == 'DX'",
    "route": "chest", "reason": "because", "attempt": 2, "nested": {"a": [1, None]}, "nothing": None,
}  # fmt: skip
NAMES = (
    "node.started", "node.stopped", "association.accepted", "association.rejected", "association.released",
    "association.aborted", "instance.stored", "instance.duplicate", "instance.conflict", "instance.refused",
    "study.completed", "study.ignored", "study.reopened", "job.queued", "job.started", "job.attempt_failed", "job.done",
    "job.refused", "job.failed", "job.replayed", "result.built", "delivery.sent", "delivery.failed", "delivery.parked",
    "delivery.retried", "configuration.loaded", "model.loaded", "model.unusable", "audit.read", "audit.exported",
)  # fmt: skip


def _event(name: str, outcome: Any = "success", study: Any = "1.2.840.1", details: Any = None, **changes: Any) -> Any:
    return {
        "seq": 17,
        "time": "2026-11-23T03:36:54.123456+00:00",
        "event": name,
        "outcome": outcome,
        "actor": "node",
        "study_uid": study,
        "details": FULL if details is None else details,
        **changes,
    }


def _message(*args: Any, **kwargs: Any) -> Any:
    message = etree.fromstring(audit_message(_event(*args, **kwargs), SOURCE))
    assert SCHEMA.validate(message), SCHEMA.error_log
    return message


def _codes(message: Any, name: str) -> Any:
    return [element.get("csd-code") for element in message.iter(name)]


def _details(message: Any) -> Any:
    return {
        element.get("type"): b64decode(element.get("value")).decode()
        for element in message.iter("ParticipantObjectDetail")
    }


def test_every_event_of_ours_is_in_the_table() -> None:
    assert set(NAMES) == set(KINDS)


@pytest.mark.parametrize("name", [*NAMES, "something.new"])
@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("details", [FULL, {}, {"reason": "because"}])
@pytest.mark.parametrize("study", ["1.2.840.1", None])
def test_every_message_is_valid(name: str, outcome: Any, details: Any, study: Any) -> None:
    message = _message(name, outcome, study, details)
    assert name in _codes(message, "EventTypeCode")
    indicator = int(message.find("EventIdentification").get("EventOutcomeIndicator"))
    assert indicator >= OUTCOMES[outcome]
    assert len(message.findall("AuditSourceIdentification")) == 1


@pytest.mark.parametrize(
    "breakage", ["UserID", "UserIsRequestor", "EventDateTime", "EventOutcomeIndicator", "AuditSourceID"]
)
def test_the_schema_notices_what_is_missing(breakage: Any) -> None:
    message = etree.fromstring(audit_message(_event("instance.stored"), SOURCE))
    element = next(each for each in message.iter() if each.get(breakage) is not None)
    del element.attrib[breakage]
    assert not SCHEMA.validate(message)


def test_the_schema_notices_a_wrong_order() -> None:
    message = etree.fromstring(audit_message(_event("instance.stored"), SOURCE))
    message.append(message.find("AuditSourceIdentification"))
    assert not SCHEMA.validate(message)


@pytest.mark.parametrize(
    ("name", "event", "types", "action"),
    [
        ("node.started", "110100", ["110120"], "E"),
        ("node.stopped", "110100", ["110121"], "E"),
        ("association.rejected", "110113", ["110126"], "E"),
        ("instance.stored", "110104", [], "C"),
        ("instance.duplicate", "110104", [], "R"),
        ("instance.conflict", "110104", [], "U"),
        ("job.started", "110103", [], "R"),
        ("result.built", "110103", [], "C"),
        ("delivery.sent", "110104", [], "R"),
        ("configuration.loaded", "110113", ["110131"], "E"),
        ("audit.read", "110101", [], "R"),
        ("audit.exported", "110106", [], "R"),
        ("something.new", "110100", [], "E"),
    ],
)
def test_codes_are_those_of_the_standard(name: str, event: Any, types: Any, action: Any) -> None:
    message = _message(name)
    assert _codes(message, "EventID") == [event]
    assert _codes(message, "EventTypeCode") == [*types, name]
    assert message.find("EventIdentification").get("EventActionCode") == action


@pytest.mark.parametrize(
    ("name", "outcome", "indicator"),
    [
        ("association.rejected", "success", "8"),
        ("association.rejected", "major", "12"),
        ("delivery.failed", "success", "4"),
        ("delivery.failed", "serious", "8"),
        ("instance.stored", "minor", "4"),
        ("job.refused", "success", "0"),
        ("instance.stored", "no such outcome", "8"),
    ],
)
def test_outcomes(name: str, outcome: Any, indicator: Any) -> None:
    identification = _message(name, outcome).find("EventIdentification")
    assert identification.get("EventOutcomeIndicator") == indicator
    described = identification.findtext("EventOutcomeDescription")
    assert described == (None if indicator == "0" else "because")


def test_a_received_instance_names_source_destination_study_and_patient() -> None:
    message = _message("instance.stored")
    source, destination = message.findall("ActiveParticipant")
    assert _codes(source, "RoleIDCode") == ["110153"]
    assert (source.get("UserID"), source.get("UserIsRequestor")) == ("CT1", "true")
    assert source.get("AlternativeUserID") == "AETITLES=CT1"
    assert (source.get("NetworkAccessPointID"), source.get("NetworkAccessPointTypeCode")) == ("10.0.0.5", "2")
    assert _codes(destination, "RoleIDCode") == ["110152"]
    assert (destination.get("UserID"), destination.get("UserIsRequestor")) == ("camnode-1", "false")
    study, patient = message.findall("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "1.2.840.1"
    assert _codes(study, "ParticipantObjectIDTypeCode") == ["110180"]
    assert study.find(".//Accession").get("Number") == "A-1"
    counts = {element.get("UID"): element.get("NumberOfInstances") for element in study.iter("SOPClass")}
    assert counts == {"1.2.840.10008.5.1.4.1.1.2": "3", "1.2.840.10008.5.1.4.1.1.7": "1"}
    assert (patient.get("ParticipantObjectID"), patient.get("ParticipantObjectTypeCode")) == ("P-4711", "1")
    assert message.find("AuditSourceIdentification").get("AuditEnterpriseSiteID") == "Hospital"


def test_a_delivery_goes_from_us_to_the_peer() -> None:
    source, destination = _message("delivery.sent").findall("ActiveParticipant")
    assert (source.get("UserID"), source.get("UserIsRequestor")) == ("camnode-1", "true")
    assert (destination.get("UserID"), destination.get("AlternativeUserID")) == ("pacs", "AETITLES=PACS")


def test_a_rejection_names_culprit_and_reason() -> None:
    message = _message("association.rejected", study=None, details={**FULL, "address": "scanner.example"})
    reporter, culprit = message.findall("ActiveParticipant")
    assert (reporter.get("UserID"), reporter.get("UserIsRequestor")) == ("camnode-1", "true")
    assert (culprit.get("UserID"), culprit.get("NetworkAccessPointTypeCode")) == ("CT1", "1")
    assert _details(message)["Alert Description"] == "because"


def test_a_person_is_the_requestor_and_the_node_is_not() -> None:
    person, node = _message("audit.read", actor="m.curie").findall("ActiveParticipant")
    assert (person.get("UserID"), person.get("UserIsRequestor")) == ("m.curie", "true")
    assert (node.get("UserID"), node.get("UserIsRequestor")) == ("camnode-1", "false")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_known_is_lost(name: str) -> None:
    text = audit_message(_event(name), SOURCE).decode()
    details = _details(_message(name))
    for key in ("model_sha256", "rule", "route", "reason", "attempt", "nested"):
        if name not in {"node.started", "node.stopped"}:
            assert details[key] == (FULL[key] if isinstance(FULL[key], str) else _json(FULL[key]))
    assert "nothing" not in details
    assert text.startswith("<?xml version='1.0' encoding='UTF-8'?><AuditMessage>")
    assert "\n" not in text, "one message, one line"


def _json(value: Any) -> Any:
    return json.dumps(value, sort_keys=True)


def test_a_time_without_an_offset_is_utc() -> None:
    message = _message("node.started", time="2026-11-23T03:36:54")
    assert message.find("EventIdentification").get("EventDateTime") == "2026-11-23T03:36:54+00:00"


ANY_TEXT = st.text(max_size=20)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(NAMES),
    st.fixed_dictionaries(
        {
            "calling_ae": ANY_TEXT,
            "address": ANY_TEXT,
            "reason": ANY_TEXT,
            "patient_id": ANY_TEXT,
            "model": ANY_TEXT,
            "peer": ANY_TEXT,
        }
    ),
    ANY_TEXT,
)
def test_no_text_from_outside_breaks_a_message(name: str, details: Any, actor: Any) -> None:
    assert b"\n" not in audit_message(_event(name, details=details, actor=actor), SOURCE)
    message = _message(name, "minor", details={**details, "odd": "\x00\ud800<&>]]>"}, actor=actor)
    assert _details(message).get("odd", "").startswith("\x00") or name in {"node.started", "node.stopped"}


def test_an_injected_element_stays_text() -> None:
    message = _message(
        "instance.stored", details={"calling_ae": '"/><ActiveParticipant UserID="root', "patient_id": "<b>"}
    )
    assert len(message.findall("ActiveParticipant")) == 2
    assert message.findall("ParticipantObjectIdentification")[1].get("ParticipantObjectID") == "<b>"
