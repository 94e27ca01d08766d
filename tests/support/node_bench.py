"""A node in the test's own process, an archive whose answers the test decides, and a modality."""

import time

from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, evt

from dicom_node.config import parse_config
from storage import audit, jobs, outbox

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
