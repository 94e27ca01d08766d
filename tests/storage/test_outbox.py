"""Results never change once committed; deliveries are pending until every object was taken."""

from dataclasses import replace

import pytest

from storage import audit, jobs, outbox, results, studies
from storage.jobs import JobOrder
from storage.outbox import Attempt
from storage.results import BuiltResult
from storage.schema import DeliveryState
from storage.spool import Spool
from storage.studies import Arrival

ARRIVAL = Arrival(
    sop_instance_uid="1.2.3.1",
    sop_class_uid="1.2",
    study_uid="1.2",
    series_uid="1.2.3",
    transfer_syntax_uid="1.2.840",
    sha256="a" * 64,
    calling_ae="CR1",
    called_ae="CAMNODE",
    address="127.0.0.1",
    attributes={"PatientID": "P"},
    received=1.0,
)


@pytest.fixture
def job_id(database, spool):
    studies.register(database, spool, ARRIVAL, b"", b"x")
    with database.transaction() as connection:
        stored = studies.instances_of(connection, "1.2")
        order = JobOrder(study_uid="1.2", generation=1, route="r", priority=100, inputs=stored, settings={}, why="w")
        return jobs.queue(connection, order, now=1.0)


@pytest.fixture
def outbox_spool(tmp_path):
    return Spool(tmp_path / "outbox")


def built(tmp_path, uid, content=b"sr", **changes):
    file = tmp_path / f"built-{uid}"
    file.write_bytes(content)
    one = BuiltResult(
        sop_instance_uid=uid,
        sop_class_uid="1.9",
        transfer_syntax_uid="1.2.1",
        kind="sr",
        position=1,
        description="d",
        fallback_for=None,
        file=file,
    )
    return replace(one, **changes)


def commit(database, outbox_spool, job_id, built_results, peers=("pacs",)):
    kept = results.keep(outbox_spool, built_results, job_id=job_id, study_uid="1.2", now=5.0)
    with database.transaction() as connection:
        results.commit(connection, kept)
        uids = [one.sop_instance_uid for one in kept if not one.fallback_for]
        outbox.schedule(connection, job_id, uids, peers, priority=100, now=5.0)


def deliveries(database, job_id):
    with database.reading() as connection:
        return outbox.of_job(connection, job_id)


def record(database, job_id, *attempts, due=50.0, now=10.0, peer="pacs"):
    with database.transaction() as connection:
        first = outbox.pending(connection, job_id, peer)[0]
        outbox.record(connection, first, attempts, study_uid="1.2", next_attempt=due, now=now)


def attempt(uid, state, error=None, status=0):
    return Attempt(result_uid=uid, state=state, status=status, sent_as=uid, error=error)


def due(database, now):
    with database.reading() as connection:
        return outbox.due(connection, now=now)


def test_a_committed_result_keeps_its_bytes(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1", b"first")])
    with database.transaction() as connection:
        second = jobs.queue_again(connection, job_id, actor="a", reason="r", now=6.0)
    commit(database, outbox_spool, second, [built(tmp_path, "9.1", b"second")])
    with database.reading() as connection:
        (one,) = results.by_uids(connection, ["9.1"])
    assert outbox_spool.absolute(one.path).read_bytes() == b"first"
    assert one.job_id == job_id


def test_fallbacks_travel_with_their_result_but_are_not_delivered_themselves(database, outbox_spool, tmp_path, job_id):
    commit(
        database, outbox_spool, job_id, [built(tmp_path, "9.1"), built(tmp_path, "9.2", fallback_for="9.1", position=2)]
    )
    assert [one.result_uid for one in deliveries(database, job_id)] == ["9.1"]
    with database.reading() as connection:
        assert [one.sop_instance_uid for one in results.by_uids(connection, ["9.1"])] == ["9.1", "9.2"]


def test_one_rejected_object_keeps_the_set_from_counting_as_sent(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1"), built(tmp_path, "9.2")])
    record(database, job_id, attempt("9.1", DeliveryState.SENT), attempt("9.2", DeliveryState.PENDING, "A700"))
    assert {one.result_uid: one.state for one in deliveries(database, job_id)} == {"9.1": "sent", "9.2": "pending"}
    assert due(database, 49.0) == ()
    (batch,) = due(database, 50.0)
    assert batch.attempts == 1
    assert [one.event for one in audit.events(database, event="delivery.")] == ["delivery.sent", "delivery.failed"]


def test_the_next_attempt_is_another_workflow(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1")])
    (first,) = due(database, 5.0)
    record(database, job_id, attempt("9.1", DeliveryState.PENDING, "no answer"))
    (second,) = due(database, 50.0)
    assert first.workflow_id != second.workflow_id
    assert due(database, 51.0)[0].workflow_id == second.workflow_id


def test_a_permanent_rejection_is_parked_until_someone_retries(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1")])
    record(database, job_id, attempt("9.1", DeliveryState.FAILED, "SOP class refused"))
    assert due(database, 1e9) == ()
    with database.transaction() as connection:
        count = outbox.retry(connection, job_id=None, peer="pacs", actor="ann", reason="configured", now=60.0)
    assert count == 1
    assert len(due(database, 60.0)) == 1
    (event,) = audit.events(database, event="delivery.retried")
    assert (event.actor, event.details["count"]) == ("ann", 1)


def test_an_unreachable_peer_is_left_alone_by_all_and_others_are_not(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1")], peers=("pacs", "archive"))
    with database.transaction() as connection:
        outbox.postpone(connection, "pacs", until=100.0)
    assert [batch.peer for batch in due(database, 50.0)] == ["archive"]
    with database.transaction() as connection:
        outbox.hasten(connection, "pacs", now=51.0)
    assert {batch.peer for batch in due(database, 51.0)} == {"archive", "pacs"}


def test_a_result_recorded_twice_stays_sent(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1"), built(tmp_path, "9.2")])
    record(database, job_id, attempt("9.1", DeliveryState.SENT))
    record(database, job_id, attempt("9.1", DeliveryState.FAILED, "late"), attempt("9.2", DeliveryState.SENT))
    assert {one.state for one in deliveries(database, job_id)} == {"sent"}


def test_moving_the_time_of_an_attempt_under_way_starts_no_second_one(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1")])
    (under_way,) = due(database, 5.0)
    with database.transaction() as connection:
        outbox.hasten(connection, "pacs", now=7.0)
    assert due(database, 8.0)[0].workflow_id == under_way.workflow_id


def test_what_a_peer_answered_keeps_its_own_time_when_the_peer_is_back(database, outbox_spool, tmp_path, job_id):
    commit(database, outbox_spool, job_id, [built(tmp_path, "9.1"), built(tmp_path, "9.2")])
    record(
        database,
        job_id,
        attempt("9.1", DeliveryState.PENDING, "failed", status=0x0110),
        attempt("9.2", DeliveryState.PENDING, "no answer", status=None),
    )
    with database.transaction() as connection:
        outbox.hasten(connection, "pacs", now=11.0)
    assert {one.result_uid: one.next_attempt for one in deliveries(database, job_id)} == {"9.1": 50.0, "9.2": 11.0}
