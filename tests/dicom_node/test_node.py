"""The whole node in one process: C-STORE in, results out, with everything that may go wrong on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_node import workflows
from dicom_node.config import parse_config
from dicom_node.errors import NodeAlreadyRunning
from dicom_node.node import Node
from storage import audit, jobs, outbox, results, studies
from storage.database import Database
from storage.errors import OutOfSpace

PATIENCE = 60


class Pacs:
    """An archive whose answers a test decides."""

    def __init__(self):
        self.received, self.status, self.accepts = {}, 0x0000, AllStoragePresentationContexts
        self.copies = []

    def start(self, port=0):
        ae = AE(ae_title="PACS")
        ae.supported_contexts = self.accepts
        self.server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        self.port = self.server.server_address[1]
        return self

    def _store(self, event):
        if self.status == 0x0000:
            uid = str(event.request.AffectedSOPInstanceUID)
            self.received[uid] = event.dataset
            self.copies.append(uid)
        return self.status

    def kinds(self):
        return sorted(f"{one.Modality} {one.SeriesNumber}" for one in self.received.values())

    def stop(self):
        self.server.shutdown()


@pytest.fixture
def pacs():
    made = Pacs().start()
    yield made
    made.stop()


def configuration(tmp_path, card, port, **changes):
    document = {
        "node": {"folder": "data"},
        "receiving": {"port": 0},
        "studies": {"quiet_seconds": 0.5},
        "work": {"attempts": 2, "retry_seconds": 0.2, "memory_gib": 3, "device": "cpu"},
        "sending": {"backoff_first_seconds": 0.3, "backoff_ceiling_seconds": 0.6, "connection_timeout": 2},
        "peers": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": port}},
        "models": {"tiny": str(card)},
        "routes": [
            {
                "name": "chest",
                "when": 'Modality in ["CR", "CT", "SR"]',
                "model": "tiny",
                "methods": ["cam", "grad-cam"],
                "destinations": ["pacs"],
                "output": {"maximum_side": 512},
            }
        ],
        **changes,
    }
    return parse_config(document, tmp_path / "camnode.toml")


def send(node, *data_sets, called="CAMNODE"):
    ae = AE(ae_title="CR1")
    for data_set in data_sets:
        ae.add_requested_context(data_set.SOPClassUID, data_set.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", node.listener.port, ae_title=called)
    assert assoc.is_established
    statuses = [assoc.send_c_store(data_set).Status for data_set in data_sets]
    assoc.release()
    return statuses


def film(real_image, **changes):
    data_set = dcmread(real_image("RG1_UNCR.dcm"))
    # a small cut-out: the node's work, not the decoder's, is tested here
    pixels = data_set.pixel_array[::8, ::8].copy()
    data_set.Rows, data_set.Columns = pixels.shape
    data_set.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        setattr(data_set, keyword, value)
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    return data_set


def until(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def all_jobs(node, uid):
    with node.database.reading() as connection:
        return jobs.of_study(connection, uid)


def deliveries(node, job_id):
    with node.database.reading() as connection:
        return outbox.of_job(connection, job_id)


def delivered(node, uid, count=1):
    found = all_jobs(node, uid)
    if len(found) < count or any(one.is_open for one in found):
        return False
    states = [one.state for each in found for one in deliveries(node, each.job_id)]
    return bool(states) and all(state == "sent" for state in states)


def events(node, prefix=""):
    return [one.event for one in audit.events(node.database, event=prefix)]


def test_from_c_store_to_overlay_and_report(tmp_path, tiny_card, pacs, real_image):
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        assert send(node, source) == [0x0000]
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        assert pacs.kinds() == ["OT 9001", "OT 9001", "OT 9001", "SR 9002", "SR 9006"]
        assert len(pacs.copies) == len(set(pacs.copies))
        assert {one.StudyInstanceUID for one in pacs.received.values()} == {source.StudyInstanceUID}
        assert {str(one.PatientName) for one in pacs.received.values()} == {str(source.PatientName)}
        audit.verify(node.database)
        told = set(events(node))
        assert told >= {
            "node.started", "association.accepted", "instance.stored", "study.completed", "study.routed", "job.queued",
            "job.started", "job.done", "result.built", "delivery.sent", "model.loaded",
        }  # fmt: skip
    events_after = [one.event for one in audit.events(Database(node.config.database_url))]
    assert events_after[-1] == "node.stopped"


def test_our_results_coming_back_are_stored_and_never_processed(tmp_path, tiny_card, pacs, real_image):
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        ours = list(pacs.received.values())
        for one in ours:
            one.file_meta = source.file_meta.__class__()
            one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        assert set(send(node, *ours)) == {0x0000}
        time.sleep(1.5)
        assert len(all_jobs(node, source.StudyInstanceUID)) == 1
        assert events(node, "instance.own-result") == ["instance.own-result"] * len(ours)


def test_a_late_instance_earns_a_revision_and_a_copy_earns_nothing(tmp_path, tiny_card, pacs, real_image):
    first = film(real_image)
    second = film(real_image, SOPInstanceUID=generate_uid(), InstanceNumber=2)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, first)
        assert until(lambda: delivered(node, first.StudyInstanceUID))
        before = set(pacs.received)
        assert send(node, first) == [0x0000]
        time.sleep(1.5)
        assert len(all_jobs(node, first.StudyInstanceUID)) == 1
        send(node, second)
        assert until(lambda: delivered(node, first.StudyInstanceUID, count=2))
        old, new = all_jobs(node, first.StudyInstanceUID)
        assert new.predecessor == old.job_id
        assert len(new.inputs) == 2
        with node.database.reading() as connection:
            assert not before & {one.sop_instance_uid for one in results.of_job(connection, new.job_id)}


def test_a_study_without_a_route_is_ignored_with_a_reason(tmp_path, tiny_card, pacs, real_image):
    source = film(real_image, Modality="MG")
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)

        def state():
            with node.database.reading() as connection:
                return studies.study_by_uid(connection, source.StudyInstanceUID)

        assert until(lambda: state().state == "ignored")
        assert "none of the 1 routes" in state().reason


def test_a_refused_study_gets_its_status_report(tmp_path, tiny_card, pacs, real_image):
    source = dcmread(real_image("CT_small.dcm"))
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        (job,) = all_jobs(node, source.StudyInstanceUID)
        assert job.state == "refused"
        assert "Modality CT" in job.reason
        assert pacs.kinds() == ["OT 9008", "SR 9006"]


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


def test_an_archive_without_3d_reports_gets_the_comprehensive_one(tmp_path, tiny_card, real_image):
    old = Pacs()
    old.accepts = [cx for cx in AllStoragePresentationContexts if cx.abstract_syntax != "1.2.840.10008.5.1.4.1.1.88.34"]
    old.start()
    source = film(real_image)
    try:
        with Node(configuration(tmp_path, tiny_card, old.port)) as node:
            send(node, source)
            assert until(lambda: delivered(node, source.StudyInstanceUID))
            classes = {str(one.SOPClassUID) for one in old.received.values()}
            assert "1.2.840.10008.5.1.4.1.1.88.33" in classes
            (job,) = all_jobs(node, source.StudyInstanceUID)
            assert any(one.sent_as != one.result_uid for one in deliveries(node, job.job_id))
    finally:
        old.stop()


def test_a_replay_sends_the_same_objects_again(tmp_path, tiny_card, pacs, real_image):
    source = film(real_image)
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
        first = {uid: one.to_json() for uid, one in pacs.received.items()}
        (job,) = all_jobs(node, source.StudyInstanceUID)
        with node.database.transaction() as connection:
            jobs.queue_again(connection, job.job_id, actor="ann", reason="archive lost it", now=time.time())
        assert until(lambda: len(pacs.copies) == 2 * len(first))
        assert {uid: one.to_json() for uid, one in pacs.received.items()} == first


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
        assert (job.attempts, job.reason) == (2, "unforeseen LookupError")


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


def test_one_folder_is_for_one_node(tmp_path, tiny_card, pacs):
    config = configuration(tmp_path, tiny_card, pacs.port)
    with Node(config), pytest.raises(NodeAlreadyRunning):
        Node(config)
    with Node(config):
        pass  # the folder is free again


def test_no_patient_in_the_log(tmp_path, tiny_card, pacs, real_image, caplog):
    caplog.set_level("DEBUG")
    source = film(real_image, PatientName="Canary^Bird", PatientID="CANARY-7", AccessionNumber="CANARY-8")
    with Node(configuration(tmp_path, tiny_card, pacs.port)) as node:
        send(node, source)
        assert until(lambda: delivered(node, source.StudyInstanceUID))
    assert "CANARY" not in caplog.text.upper()
    for path in Path(tmp_path).rglob("*.txt"):
        assert "CANARY" not in path.read_text().upper()
