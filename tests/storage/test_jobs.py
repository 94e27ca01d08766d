"""A job's life: queued, run, charged, ended once, replayed by hand."""

from dataclasses import replace

import pytest

from storage import audit, jobs, studies
from storage.errors import UnknownJob
from storage.jobs import JobOrder
from storage.schema import JobState
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
    attributes={},
    received=100.0,
)


@pytest.fixture
def order(database, spool):
    studies.register(database, spool, ARRIVAL, b"", b"x")
    with database.reading() as connection:
        stored = studies.instances_of(connection, "1.2")
    return JobOrder(
        study_uid="1.2", generation=1, route="chest", priority=100, inputs=stored, settings={"model": "m"}, why="w"
    )


def queue(database, order, now=1.0):
    with database.transaction() as connection:
        return jobs.queue(connection, order, now=now)


def get(database, job_id):
    with database.reading() as connection:
        return jobs.by_id(connection, job_id)


def due(database, now=10.0):
    with database.reading() as connection:
        return [one.job_id for one in jobs.due(connection, now=now)]


def test_a_queued_job_knows_its_inputs_and_settings(database, order):
    job = get(database, queue(database, order))
    assert (job.state, job.priority, job.settings, list(job.inputs)) == (
        "queued",
        100,
        {"model": "m"},
        [order.inputs[0].instance_id],
    )


def test_unchanged_inputs_earn_no_second_job(database, order):
    assert queue(database, order)
    assert queue(database, replace(order, generation=2)) is None


def test_changed_inputs_earn_a_job_that_names_its_predecessor(database, spool, order):
    first = queue(database, order)
    studies.register(database, spool, replace(ARRIVAL, sop_instance_uid="1.2.3.2", sha256="b" * 64), b"", b"y")
    with database.reading() as connection:
        stored = studies.instances_of(connection, "1.2")
    second = queue(database, replace(order, generation=2, inputs=stored))
    assert get(database, second).predecessor == first


def test_stat_is_due_before_routine(database, order):
    routine = queue(database, order, now=1.0)
    stat = queue(database, replace(order, route="urgent", priority=jobs.PRIORITIES["stat"]), now=2.0)
    assert due(database) == [stat, routine]


def test_a_charge_is_for_one_job_only_and_delays_it(database, order):
    job_id, neighbour = queue(database, order), queue(database, replace(order, route="other"))
    for one in (job_id, neighbour):
        with database.transaction() as connection:
            jobs.begin(connection, one, now=2.0)
    with database.transaction() as connection:
        assert jobs.charge(connection, job_id, reason="it died", next_attempt=50.0) == 1
    charged = get(database, job_id)
    assert (charged.state, charged.attempts, charged.reason) == ("queued", 1, "it died")
    assert get(database, neighbour).attempts == 0
    assert due(database, 10.0) == [neighbour]
    assert set(due(database, 50.0)) == {job_id, neighbour}


def test_an_interrupted_job_is_taken_up_again_uncharged(database, order):
    job_id = queue(database, order)
    for _ in range(3):
        with database.transaction() as connection:
            assert jobs.begin(connection, job_id, now=2.0).state == JobState.RUNNING
    assert get(database, job_id).attempts == 0
    assert due(database) == [job_id]


def test_a_job_ends_once(database, order):
    job_id = queue(database, order)
    with database.transaction() as connection:
        assert jobs.finish(connection, job_id, JobState.DONE, reason=None, summary={}, now=3.0)
    with database.transaction() as connection:
        assert not jobs.finish(connection, job_id, JobState.FAILED, reason="late", summary={}, now=4.0)
        assert not jobs.begin(connection, job_id, now=5.0).is_open
    assert get(database, job_id).state == JobState.DONE
    assert [one.event for one in audit.events(database, event="job.")] == ["job.queued", "job.done"]


def test_a_replay_is_a_new_job_with_the_same_inputs(database, order):
    job_id = queue(database, order)
    with database.transaction() as connection:
        again = jobs.queue_again(connection, job_id, actor="ann", reason="new weights", now=9.0)
    replayed = get(database, again)
    assert again != job_id
    assert (replayed.run, replayed.predecessor, replayed.input_digest) == (
        1,
        job_id,
        get(database, job_id).input_digest,
    )
    (event,) = audit.events(database, event="job.replayed")
    assert (event.actor, event.details["reason"]) == ("ann", "new weights")


def test_an_unknown_job_is_an_error(database):
    with pytest.raises(UnknownJob):
        get(database, "no")
