"""kill -9 at any moment: nothing acknowledged is lost, what was begun is finished, nothing arrives under two UIDs."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE, AllStoragePresentationContexts, evt

from storage import audit, jobs, outbox, studies
from storage.database import Database
from storage.errors import UnknownStudy

KILLS = int(os.environ.get("CAMNODE_KILLS", "6"))
CARD = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo" / "model.toml"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Victim:
    """``camnode run`` in a process group of its own, so that one signal ends it with its children."""

    def __init__(self, folder, pacs_port):
        self.port = free_port()
        self.config = folder / "camnode.toml"
        self.log = folder / "node.log"
        self.config.write_text(
            f'[node]\nfolder = "data"\n[receiving]\nport = {self.port}\n[studies]\nquiet_seconds = 0.5\n'
            "[sending]\nbackoff_first_seconds = 0.5\nbackoff_ceiling_seconds = 1\n"
            f'[peers.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {pacs_port}\n'
            f'[models]\nchest-demo = "{CARD}"\n'
            '[[routes]]\nname = "all"\nmodel = "chest-demo"\nmethods = ["grad-cam"]\ndestinations = ["pacs"]\n'
            "[routes.output]\nmaximum_side = 512\n"
        )
        self.database = Database(f"sqlite:///{self._data(folder) / 'camnode.db'}")

    @staticmethod
    def _data(folder):
        (folder / "data").mkdir(exist_ok=True)
        return folder / "data"

    def start(self):
        with open(self.log, "a") as log:
            command = [sys.executable, "-m", "dicom_node", "run", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def pacs():
    received = {}

    def store(event):
        received.setdefault(str(event.request.AffectedSOPInstanceUID), set()).add(event.encoded_dataset(False))
        return 0x0000

    ae = AE(ae_title="PACS")
    ae.supported_contexts = AllStoragePresentationContexts
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    yield server.server_address[1], received
    server.shutdown()


def small_film(real_image):
    data_set = dcmread(real_image("RG1_UNCR.dcm"))
    pixels = data_set.pixel_array[::6, ::6].copy()
    data_set.Rows, data_set.Columns = pixels.shape
    data_set.PixelData = pixels.tobytes()
    return data_set


def send(port, data_set):
    """The status, or None when the node died before it answered."""
    ae = AE(ae_title="CR1")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
    ae.add_requested_context(data_set.SOPClassUID, data_set.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", port, ae_title="CAMNODE")
    if not assoc.is_established:
        return None
    try:
        return assoc.send_c_store(data_set).get("Status")
    except (RuntimeError, ValueError):
        return None
    finally:
        if assoc.is_established:
            assoc.release()


def delivered(database, study_uid):
    with database.reading() as connection:
        try:
            studies.study_by_uid(connection, study_uid)
        except UnknownStudy:
            return False
        found = jobs.of_study(connection, study_uid)
        states = [one.state for each in found for one in outbox.of_job(connection, each.job_id)]
    return bool(states) and set(states) == {"sent"} and all(not each.is_open for each in found)


def test_nothing_acknowledged_is_lost_and_everything_is_answered_once(tmp_path, pacs, real_image):
    pacs_port, received = pacs
    victim = Victim(tmp_path, pacs_port)
    film, chance, acknowledged = small_film(real_image), random.Random(11), []
    victim.start()
    for number in range(KILLS):
        for _ in range(2):
            film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID = (generate_uid() for _ in range(3))
            film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
            if send(victim.port, film) == 0x0000:
                acknowledged.append((str(film.StudyInstanceUID), str(film.SOPInstanceUID)))
        time.sleep(chance.uniform(0.0, 6.0) if number else 0.0)
        victim.kill()
        victim.start()
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            if all(delivered(victim.database, study_uid) for study_uid, _ in acknowledged):
                break
            time.sleep(0.5)
        assert len(acknowledged) >= KILLS
        with victim.database.reading() as connection:
            for study_uid, sop_uid in acknowledged:
                stored = {one.sop_instance_uid: one for one in studies.instances_of(connection, study_uid)}
                assert (tmp_path / "data" / "spool" / stored[sop_uid].path).is_file()
                (job,) = jobs.of_study(connection, study_uid)
                assert (job.state, job.attempts) == ("done", 0), job.reason
                sent = outbox.of_job(connection, job.job_id)
                assert {one.state for one in sent} == {"sent"}
                assert all(len(received[one.sent_as]) == 1 for one in sent)
        audit.verify(victim.database)
    finally:
        victim.kill()
