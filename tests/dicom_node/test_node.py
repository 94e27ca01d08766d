"""The whole node in one process: C-STORE in, results out."""

import time
from pathlib import Path

import pytest
from node_bench import Pacs, all_jobs, configuration, delivered, deliveries, events, film, send, until
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AllStoragePresentationContexts

from dicom_node.errors import NodeAlreadyRunning
from dicom_node.node import Node
from storage import audit, jobs, results, studies
from storage.database import Database


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
