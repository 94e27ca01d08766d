"""Instances, copies, conflicts, own results, and when a study is complete."""

import threading
from dataclasses import replace

import pytest

from storage import audit, studies
from storage.errors import OutOfSpace, UnknownStudy
from storage.schema import StudyState
from storage.studies import Arrival, Registration

ARRIVAL = Arrival(
    sop_instance_uid="1.2.3.1",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.1",
    study_uid="1.2",
    series_uid="1.2.3",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    sha256="a" * 64,
    calling_ae="CR1",
    called_ae="CAMNODE",
    address="127.0.0.1",
    attributes={"PatientID": "P1", "AccessionNumber": "A1", "Modality": "CR"},
    received=100.0,
)


def register(database, spool, **changes):
    return studies.register(database, spool, replace(ARRIVAL, **changes), b"meta", b"content")


def study(database, uid="1.2"):
    with database.reading() as connection:
        return studies.study_by_uid(connection, uid)


def instances(database, **options):
    with database.reading() as connection:
        return studies.instances_of(connection, "1.2", **options)


def close(database, now=200.0, since=150.0):
    with database.transaction() as connection:
        closed = studies.close(connection, "1.2", rule="quiet", now=now, since=since)
        if closed:
            studies.settle(connection, "1.2", routed=True, reason="r")
        return closed


def test_a_first_instance_opens_its_study(database, spool):
    assert register(database, spool) is Registration.NEW
    found = study(database)
    assert (found.state, found.generation, found.patient_id, found.accession_number) == ("receiving", 1, "P1", "A1")
    stored = instances(database)[0]
    assert spool.absolute(stored.path).read_bytes() == b"metacontent"
    assert [one.event for one in audit.events(database)] == ["instance.stored"]


def test_an_identical_copy_is_counted_not_stored(database, spool):
    register(database, spool)
    assert register(database, spool, received=120.0) is Registration.DUPLICATE
    assert len(instances(database)) == 1
    assert study(database).last_received == 100.0
    assert [one.event for one in audit.events(database)] == ["instance.stored", "instance.duplicate"]


def test_other_content_under_one_uid_is_kept_apart(database, spool):
    register(database, spool)
    assert register(database, spool, sha256="b" * 64) is Registration.CONFLICT
    (first,) = instances(database)
    (last,) = instances(database, replace_conflicts=True)
    assert first.path != last.path
    assert spool.absolute(first.path).exists()
    assert spool.absolute(last.path).exists()
    assert [one.outcome for one in audit.events(database, event="instance.conflict")] == ["minor"]


def test_our_own_result_neither_opens_nor_reopens_a_study(database, spool):
    register(database, spool)
    assert close(database)
    assert (
        register(database, spool, sop_instance_uid="1.9", sha256="c" * 64, own_result=True) is Registration.OWN_RESULT
    )
    assert study(database).state == StudyState.ROUTED
    assert [one.sop_instance_uid for one in instances(database)] == ["1.2.3.1"]
    register(database, spool, sop_instance_uid="1.8", sha256="d" * 64, study_uid="7.7", own_result=True)
    assert study(database, "7.7").state == StudyState.IGNORED


def test_a_study_is_quiet_only_after_the_quiet_time(database, spool):
    register(database, spool)
    assert studies.quiet(database, since=99.0) == ()
    assert studies.quiet(database, since=100.0) == ("1.2",)


def test_the_study_that_will_be_quiet_next_is_told_by_its_last_instance(database, spool):
    register(database, spool)
    assert studies.soon_quiet(database, since=90.0, until=99.0) is None
    assert studies.soon_quiet(database, since=90.0, until=100.0) == 100.0
    assert studies.soon_quiet(database, since=100.0, until=110.0) is None
    close(database, since=100.0)
    assert studies.soon_quiet(database, since=90.0, until=100.0) is None


def test_an_instance_that_comes_while_closing_keeps_the_study_open(database, spool):
    register(database, spool)
    register(database, spool, sop_instance_uid="1.2.3.2", sha256="e" * 64, received=180.0)
    assert close(database, since=150.0) is None
    assert study(database).state == StudyState.RECEIVING


def test_a_late_instance_reopens_a_routed_study(database, spool):
    register(database, spool)
    assert close(database).state == StudyState.COMPLETE
    assert study(database).state == StudyState.ROUTED
    register(database, spool, sop_instance_uid="1.2.3.2", sha256="e" * 64, received=300.0)
    found = study(database)
    assert (found.state, found.generation, found.completed) == (StudyState.RECEIVING, 2, None)
    assert "study.reopened" in [one.event for one in audit.events(database)]


def test_a_full_disk_acknowledges_nothing(database, spool, monkeypatch):
    def full(*_args, **_options):
        raise OutOfSpace("full")

    monkeypatch.setattr(spool, "keep", full)
    with pytest.raises(OutOfSpace):
        register(database, spool)
    with pytest.raises(UnknownStudy):
        study(database)


def test_instances_that_arrive_at_once_are_all_registered(database, spool):
    def one_association(number):
        for study_number in range(4):
            uid = f"1.2.{study_number}"
            results.append(
                register(
                    database,
                    spool,
                    study_uid=uid,
                    sop_instance_uid=f"{uid}.{number}",
                    sha256=f"{study_number}{number}" * 32,
                )
            )
            copies.append(register(database, spool, study_uid=uid, sop_instance_uid=f"{uid}.99", sha256="f" * 64))

    results, copies = [], []
    threads = [threading.Thread(target=one_association, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Registration.NEW] * 24
    assert len(copies) == 24
    assert copies.count(Registration.NEW) == 4
    assert copies.count(Registration.DUPLICATE) == 20
    assert audit.verify(database).events == 48
