"""The same node on PostgreSQL: one URL changes, nothing else."""

import time

import pytest
from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_node.config import parse_config
from dicom_node.node import Node
from storage import audit, jobs, outbox

pytestmark = pytest.mark.component


def test_from_c_store_to_the_archive_on_postgresql(postgresql_database, tmp_path, tiny_card, real_image):
    received = []
    ae = AE(ae_title="PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    store = [(evt.EVT_C_STORE, lambda event: received.append(str(event.request.AffectedSOPInstanceUID)) or 0x0000)]
    pacs = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=store)
    document = {
        "node": {"folder": "data"},
        "storage": {"database": postgresql_database},
        "receiving": {"port": 0},
        "studies": {"quiet_seconds": 0.5},
        "work": {"device": "cpu", "memory_gib": 3},
        "peers": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": pacs.server_address[1]}},
        "models": {"tiny": str(tiny_card)},
        "routes": [{"name": "all", "model": "tiny", "methods": ["cam"], "destinations": ["pacs"]}],
    }
    source = dcmread(real_image("CT_small.dcm"))
    try:
        with Node(parse_config(document, tmp_path / "camnode.toml")) as node:
            modality = AE(ae_title="CT1")
            modality.add_requested_context(source.SOPClassUID, source.file_meta.TransferSyntaxUID)
            assoc = modality.associate("127.0.0.1", node.listener.port)
            assert assoc.send_c_store(source).Status == 0x0000
            assoc.release()
            deadline = time.monotonic() + 90
            states: set[str] = set()
            while states != {"sent"} and time.monotonic() < deadline:
                time.sleep(0.2)
                with node.database.reading() as connection:
                    found = jobs.of_study(connection, source.StudyInstanceUID)
                    states = {one.state for each in found for one in outbox.of_job(connection, each.job_id)}
            assert states == {"sent"}
            assert (found[0].state, len(received)) == ("refused", 2)
            assert audit.verify(node.database).events > 5
        assert not list((tmp_path / "data").glob("*.db"))
    finally:
        pacs.shutdown()
