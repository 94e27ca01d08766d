"""A child's answer is believed only as far as it can be checked."""

import pytest

from dicom_node.config import parse_config
from dicom_node.errors import ChildFailed
from dicom_node.pipeline.rows import (
    arrival,
    attempts_of,
    checked_answer,
    config_digest,
    request_for,
    route_study,
)
from dicom_node.receiving.instance import ReceivedInstance
from dicom_node.sending.outcome import ObjectOutcome, ObjectOutcomeKind
from storage import jobs, studies
from storage.database import Database
from storage.spool import Spool


@pytest.fixture
def good(tmp_path):
    file = tmp_path / "1.dcm"
    file.write_bytes(b"x")
    result = {
        "sop_instance_uid": "2.25.1",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.7",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "kind": "overlay",
        "position": 1,
        "description": "d",
        "fallback_for": None,
        "file": str(file),
    }
    return {"state": "done", "reason": None, "results": [result], "summary": {"timings": {}}}


def test_a_right_answer_passes(good, tmp_path):
    assert checked_answer(good, tmp_path) == good


@pytest.mark.parametrize(
    "change",
    [
        {"file": "/etc/passwd"},
        {"file": "nowhere.dcm"},
        {"sop_instance_uid": "../../x"},
        {"sop_instance_uid": 7},
        {"transfer_syntax_uid": ""},
        {"surplus": 1},
    ],
)
def test_a_result_that_can_not_be_right_is_refused(good, tmp_path, change):
    with pytest.raises(ChildFailed):
        checked_answer({**good, "results": [{**good["results"][0], **change}]}, tmp_path)


@pytest.mark.parametrize(
    "change", [{"state": "queued"}, {"state": "rich"}, {"summary": {}}, {"summary": None}, {"results": None}]
)
def test_an_answer_that_can_not_be_right_is_refused(good, tmp_path, change):
    with pytest.raises(ChildFailed):
        checked_answer({**good, **change}, tmp_path)
    with pytest.raises(ChildFailed):
        checked_answer({}, tmp_path)


def test_a_request_says_whose_study_it_is_and_what_the_model_is_called(tmp_path):
    settings = {
        "peers": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": 1}},
        "models": {"tiny": "nowhere/model.toml"},
        "routes": [{"name": "chest", "model": "tiny", "destinations": ["pacs"]}],
    }
    config = parse_config(settings, tmp_path / "c.toml")
    database, spool = Database(f"sqlite:///{tmp_path / 'camnode.db'}"), Spool(tmp_path / "spool")
    film = received(
        attributes={"PatientName": "山田^太郎", "PatientID": "P1"}, sop_class_uid="1.2.840.10008.5.1.4.1.1.1"
    )
    studies.register(database, spool, arrival(film, now=1.0), b"", film.encoded)
    (job_id,) = route_study(database, config, "1.5", since=50.0, now=100.0)
    with database.reading() as connection:
        job = jobs.by_id(connection, job_id)
    request = request_for(database, spool, job, config, tmp_path)
    database.close()
    assert request["model"] == "tiny"
    assert request["identity"]["PatientName"] == "山田^太郎"
    assert (request["identity"]["StudyInstanceUID"], request["identity"]["SeriesInstanceUID"]) == ("1.5", "1.6")
    assert request["identity"]["SOPInstanceUID"] == request["files"][0]["sop_instance_uid"] == "1.3"
    assert request["files"][0]["sop_class_uid"] == "1.2.840.10008.5.1.4.1.1.1"


def received(**changes):
    values = {
        "sop_class_uid": "1.2", "sop_instance_uid": "1.3", "transfer_syntax_uid": "1.4", "study_instance_uid": "1.5",
        "series_instance_uid": "1.6", "attributes": {}, "calling_ae": "A", "called_ae": "B", "address": "127.0.0.1",
        "encoded": b"content",
    }  # fmt: skip
    return ReceivedInstance(**{**values, **changes})


def test_an_instance_is_known_by_its_content_and_syntax():
    first = arrival(received(), now=1.0).sha256
    assert arrival(received(calling_ae="OTHER"), now=2.0).sha256 == first
    assert arrival(received(encoded=b"other"), now=1.0).sha256 != first
    assert arrival(received(transfer_syntax_uid="1.9"), now=1.0).sha256 != first


def test_our_own_objects_are_told_by_their_maker():
    assert arrival(received(attributes={"ManufacturerModelName": "camnode"}), now=1.0).own_result
    assert not arrival(received(attributes={"ManufacturerModelName": "Definium"}), now=1.0).own_result


def test_the_digest_of_a_configuration_follows_its_values(tmp_path):
    base = parse_config({}, tmp_path / "c.toml")
    other = parse_config({"studies": {"quiet_seconds": 31}}, tmp_path / "c.toml")
    assert config_digest(base) == config_digest(parse_config({}, tmp_path / "c.toml")) != config_digest(other)


def outcome(status, kind):
    return ObjectOutcome(kind=kind, sop_instance_uid="1.2", words="w", status=status)


def test_cannot_understand_is_believed_only_after_several_tries():
    refused = outcome(0xC211, ObjectOutcomeKind.PERMANENT)
    states = [attempts_of([refused], tries=tries)[0].state for tries in range(1, 7)]
    assert states == ["pending"] * 4 + ["failed"] * 2
    assert attempts_of([outcome(0xA900, ObjectOutcomeKind.PERMANENT)], tries=1)[0].state == "failed"
