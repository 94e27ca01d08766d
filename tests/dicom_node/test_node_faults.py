"""What may go wrong around a study: each costs what it must, is visible, and loses nothing."""

import os
import signal
import threading
import time

from node_bench import Pacs, all_jobs, configuration, delivered, deliveries, events, film, send, until
from pydicom.uid import generate_uid

from dicom_node import workflows
from dicom_node.errors import ChildCrashed
from dicom_node.node import Node
from storage import audit, jobs, outbox
from storage.errors import OutOfSpace


def test_changed_weights_fail_the_job_visibly_and_tell_the_pacs(tmp_path, tiny_card, pacs, real_image):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.toml", "weights.safetensors"):
        (folder / name).write_bytes((tiny_card.parent / name).read_bytes())
    with open(folder / "weights.safetensors", "ab") as file:
        file.write(b"\0")
    source = film(real_image)
    with Node(configuration(tmp_path, folder / "model.toml", pacs.port)) as node:
        assert until(lambda: events(node, "model.unusable") == ["model.unusable"])
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert (job.state, job.attempts) == ("failed", 1)
        assert "SHA-256" in job.reason
        assert pacs.kinds() == ["OT 9008", "SR 9006"]
        # mended and replayed: the answer is another report, not other bytes under the failure's UID
        (folder / "weights.safetensors").write_bytes((tiny_card.parent / "weights.safetensors").read_bytes())
        with node.database.transaction() as connection:
            jobs.queue_again(connection, job.job_id, actor="ann", reason="weights restored", now=time.time())
        assert until(lambda: delivered(node, source.StudyInstanceUID, count=2))
        assert all_jobs(node, source.StudyInstanceUID)[-1].state == "done"
        assert pacs.kinds() == ["OT 9001", "OT 9001", "OT 9001", "OT 9008", "SR 9002", "SR 9006", "SR 9006"]


def test_a_poisoned_job_fails_after_its_attempts_and_charges_no_neighbour(tmp_path, tiny_card, pacs, real_image):
    poison = film(real_image, StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid(), PatientID="POISON")
    healthy = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        assert until(lambda: "model.loaded" in events(node))
        real_call = type(node.children._all[0]).call

        def call(child, request, progress=None):
            if request["study_uid"] == poison.StudyInstanceUID and request["task"] == "answer":
                threading.Timer(0.01, os.kill, (child.pid, signal.SIGSEGV)).start()
            return real_call(child, request, progress)

        type(node.children._all[0]).call = call
        try:
            send(node, poison, healthy)
            assert until(lambda: delivered(node, healthy.StudyInstanceUID))
            assert until(lambda: delivered(node, poison.StudyInstanceUID))
        finally:
            type(node.children._all[0]).call = real_call
        (bad,) = all_jobs(node, poison.StudyInstanceUID)
        (good,) = all_jobs(node, healthy.StudyInstanceUID)
        assert (bad.state, bad.attempts) == ("failed", 2)
        assert "died" in bad.reason
        assert (good.state, good.attempts) == ("done", 0)


def test_an_archive_that_is_away_gets_everything_once_it_is_back(tmp_path, tiny_card, real_image):
    away = Pacs().start()
    port = away.port
    away.stop()
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, port)) as node:
        send(node, source)
        assert until(lambda: "delivery.failed" in events(node))
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert {one.state for one in deliveries(node, job.job_id)} == {"pending"}
        back = Pacs().start(port)
        try:
            assert until(lambda: delivered(node, source.StudyInstanceUID))
            assert len(back.copies) == len(set(back.copies)) == 5
        finally:
            back.stop()


def test_a_permanent_rejection_is_parked_and_sent_after_a_person_says_so(tmp_path, tiny_card, pacs, real_image):
    pacs.status = 0xC001
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: "delivery.parked" in events(node))
        (job,) = all_jobs(node, source.StudyInstanceUID)
        attempts = [one.attempts for one in deliveries(node, job.job_id)]
        time.sleep(1.5)
        assert [one.attempts for one in deliveries(node, job.job_id)] == attempts
        assert {one.state for one in deliveries(node, job.job_id)} == {"failed"}
        pacs.status = 0x0000
        with node.database.transaction() as connection:
            outbox.retry(connection, job_id=None, peer="pacs", actor="ann", reason="mended", now=time.time())
        assert until(lambda: delivered(node, source.StudyInstanceUID))


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, tiny_card, pacs, real_image, monkeypatch):
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        real_fsync = os.fsync

        def full(_descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("storage.spool.os.fsync", full)
        assert send(node, source) == [0xA700]
        monkeypatch.setattr("storage.spool.os.fsync", real_fsync)
        assert send(node, source) == [0x0000]
        assert until(lambda: delivered(node, source.StudyInstanceUID))


def test_trouble_with_the_disk_while_committing_costs_the_job_nothing(
    tmp_path, tiny_card, pacs, real_image, monkeypatch
):
    source = film(real_image)
    monkeypatch.setattr("dicom_node.workflows._TROUBLE_SECONDS", 0.5)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        real_commit, failures = workflows.rows.commit, []

        def full(*args, **options):
            if len(failures) < 2:
                failures.append(1)
                raise OutOfSpace("No space left on device")
            return real_commit(*args, **options)

        monkeypatch.setattr("dicom_node.workflows.rows.commit", full)
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert (job.state, job.attempts) == ("done", 0)
        assert events(node, "job.put_off") == ["job.put_off", "job.put_off"]


def test_an_unforeseen_error_is_charged_and_ends_in_a_visible_failure(
    tmp_path, tiny_card, pacs, real_image, monkeypatch
):
    def broken(*_args, **_options):
        raise LookupError("patient value in a message")

    monkeypatch.setattr("dicom_node.workflows.rows.commit", broken)
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: [one.state for one in all_jobs(node, source.StudyInstanceUID)] == ["failed"])
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert (job.attempts, job.reason) == (
            2,
            "unforeseen LookupError; and no report of it could be made: LookupError",
        )


def test_an_error_of_our_own_is_reported_to_the_archive(tmp_path, tiny_card, pacs, real_image, monkeypatch):
    real_commit = workflows.rows.commit

    def broken(database, outbox_spool, job, answer, **options):
        if answer["state"] == "done":
            raise LookupError
        return real_commit(database, outbox_spool, job, answer, **options)

    monkeypatch.setattr("dicom_node.workflows.rows.commit", broken)
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        assert all_jobs(node, source.StudyInstanceUID)[0].state == "failed"
        assert pacs.kinds() == ["OT 9008", "SR 9006"]


def test_headers_that_bring_the_child_down_still_get_a_report(tmp_path, tiny_card, pacs, real_image, monkeypatch):
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        assert until(lambda: events(node, "model.loaded"))
        real_call = type(node.children._all[0]).call

        def call(child, request, progress=None):
            if request["task"] == "answer" or request["files"]:
                raise ChildCrashed("on purpose")
            return real_call(child, request, progress)

        monkeypatch.setattr(type(node.children._all[0]), "call", call)
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        assert pacs.kinds() == ["OT 9008", "SR 9006"]
        assert {str(one.PatientName) for one in pacs.received.values()} == {str(source.PatientName)}


def test_a_delivery_that_breaks_stays_pending_with_its_reason(tmp_path, tiny_card, pacs, real_image, monkeypatch):
    real_send, failures = workflows.send, []

    def broken(*args, **options):
        if len(failures) < 2:
            failures.append(1)
            raise FileNotFoundError("gone")
        return real_send(*args, **options)

    monkeypatch.setattr("dicom_node.workflows.send", broken)
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert {one.attempts for one in deliveries(node, job.job_id)} == {3}
        reasons = {one.details["reason"] for one in audit.events(node.database, event="delivery.failed")}
        assert reasons == {"not sent: FileNotFoundError"}


def test_jobs_that_fail_side_by_side_are_each_tried_again_in_time(tmp_path, tiny_card, pacs, real_image, monkeypatch):
    def fail(_child, request, _progress=None):
        if request["task"] == "answer":
            raise ChildCrashed("on purpose")
        return real_call(_child, request)

    work = {"attempts": 3, "retry_seconds": 0.2, "memory_gib": 3, "device": "cpu", "workers": 2}
    sources = [film(real_image, StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid()) for _ in range(4)]
    with Node(configuration(tmp_path, tiny_card, pacs.port, work=work)) as node:
        assert until(lambda: events(node, "model.loaded"))
        real_call = type(node.children._all[0]).call
        monkeypatch.setattr(type(node.children._all[0]), "call", fail)
        started = time.monotonic()
        for source in sources:
            send(node, source)
        assert until(
            lambda: all([one.state for one in all_jobs(node, s.StudyInstanceUID)] == ["failed"] for s in sources)
        )
        assert time.monotonic() - started < 20
        assert {one.attempts for s in sources for one in all_jobs(node, s.StudyInstanceUID)} == {3}


def test_a_node_stopped_during_an_attempt_or_a_report_charges_nothing_and_finishes_later(
    tmp_path, tiny_card, pacs, real_image, monkeypatch
):
    source = film(real_image)
    config = configuration(tmp_path, tiny_card, pacs.port)
    with Node(config) as node:
        assert until(lambda: events(node, "model.loaded"))
        real_call, entered = type(node.children._all[0]).call, threading.Event()

        def slow(child, request, progress=None):
            entered.set()
            until(lambda: node.children.stopping)
            return real_call(child, request, progress)

        monkeypatch.setattr(type(node.children._all[0]), "call", slow)
        send(node, source)
        assert entered.wait(30)
    monkeypatch.undo()
    with Node(config) as node:
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert job.attempts == 0
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        assert all_jobs(node, source.StudyInstanceUID)[0].state == "done"


def test_a_node_stopped_while_it_reports_a_failure_reports_it_later(tmp_path, tiny_card, pacs, real_image, monkeypatch):
    source = film(real_image)
    config = configuration(tmp_path, tiny_card, pacs.port)
    with Node(config) as node:
        assert until(lambda: events(node, "model.loaded"))
        real_call, reporting = type(node.children._all[0]).call, threading.Event()

        def fail(child, request, progress=None):
            if request["task"] == "answer":
                raise ChildCrashed("on purpose")
            reporting.set()
            until(lambda: node.children.stopping)
            return real_call(child, request, progress)

        monkeypatch.setattr(type(node.children._all[0]), "call", fail)
        send(node, source)
        assert reporting.wait(30)
    monkeypatch.undo()
    with Node(config) as node:
        assert until(lambda: delivered(node, source.StudyInstanceUID))


def test_a_condition_that_fails_on_one_study_holds_up_no_other(tmp_path, tiny_card, pacs, real_image):
    route = {
        "name": "a",
        "when": 'ImageType[0] == "DERIVED"',
        "model": "tiny",
        "methods": ["cam"],
        "destinations": ["pacs"],
    }
    odd = film(real_image, StudyInstanceUID=generate_uid(), SOPInstanceUID=generate_uid(), ImageType="")
    good = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port, routes=[route])) as node:
        send(node, odd)
        send(node, good)
        assert until(lambda: delivered(node, good.StudyInstanceUID))
        assert until(lambda: "study.ignored" in events(node))
