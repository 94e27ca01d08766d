"""DCMTK's storescu as the modality, Orthanc as the PACS: what a site would see."""

import os
import subprocess
import time
import urllib.error
from pathlib import Path

import orthanc_pacs
import pytest
from PIL import Image

from dicom_node.config import parse_config
from dicom_node.node import Node
from storage import audit, jobs, outbox

pytestmark = pytest.mark.component
DEMO_CARD = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo" / "model.toml"


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    program = orthanc_pacs.program()
    if program is None:
        if os.environ.get("CAMNODE_REQUIRE_COMPONENTS") == "1":
            pytest.fail("Orthanc is not installed (Debian: orthanc)")
        pytest.skip("Orthanc is not installed (Debian: orthanc)")
    with orthanc_pacs.Orthanc(program, tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture(scope="module")
def node(orthanc, tmp_path_factory):
    document = {
        "node": {"folder": "data"},
        "receiving": {"port": 0},
        "studies": {"quiet_seconds": 1},
        "work": {"device": "cpu"},
        "peers": {"pacs": {"ae_title": "ORTHANC", "host": "127.0.0.1", "port": orthanc.dicom_port}},
        "models": {"chest-demo": str(DEMO_CARD)},
        "routes": [
            {"name": "all", "when": "true", "model": "chest-demo", "methods": ["grad-cam"], "destinations": ["pacs"],
             "output": {"maximum_side": 1024}}
        ],
    }  # fmt: skip
    config = parse_config(document, tmp_path_factory.mktemp("node") / "camnode.toml")
    with Node(config) as running:
        yield running


def storescu(node, require_component, *files):
    command = [
        require_component("storescu"),
        "-aet",
        "MODALITY",
        "-aec",
        "CAMNODE",
        "127.0.0.1",
        str(node.listener.port),
    ]
    return subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=120, check=False)


def wait_until_delivered(node, study_uid, seconds=180):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with node.database.reading() as connection:
            found = jobs.of_study(connection, study_uid)
            states = {one.state for each in found for one in outbox.of_job(connection, each.job_id)}
        if found and states == {"sent"}:
            return found[-1]
        time.sleep(0.2)
    raise TimeoutError(f"not delivered: {[one.__dict__ for one in found]}")


@pytest.fixture(scope="module")
def answered(node, orthanc, require_component, real_image):
    """RG1 sent by storescu, its answer in Orthanc; returns the job and what Orthanc holds of the study."""
    from pydicom import dcmread

    source = dcmread(real_image("RG1_UNCR.dcm"), stop_before_pixels=True)
    sent = storescu(node, require_component, real_image("RG1_UNCR.dcm"))
    assert sent.returncode == 0, sent.stderr
    job = wait_until_delivered(node, source.StudyInstanceUID)
    held = [one for one in orthanc.instances() if one["StudyInstanceUID"] == source.StudyInstanceUID]
    return source, job, held


def test_pictures_and_reports_are_in_the_right_study(answered):
    source, job, held = answered
    assert job.state == "done"
    assert all((one["PatientID"], one["PatientName"]) == (source.PatientID, str(source.PatientName)) for one in held)
    modalities = [one["Modality"] for one in held]
    assert modalities.count("SR") >= 1
    if any(one["present"] for one in job.summary["findings"]):
        assert "OT" in modalities


def test_orthanc_renders_every_picture(answered, orthanc):
    _, _, held = answered
    for one in held:
        if one["Modality"] == "OT":
            from io import BytesIO

            preview = Image.open(BytesIO(orthanc.fetch(f"/instances/{one['id']}/preview")))
            assert preview.size == (int(one["Columns"]), int(one["Rows"]))
            assert len(set(preview.convert("L").resize((32, 32)).tobytes())) > 16


def test_dcmtk_reads_every_report(answered, orthanc, require_component, tmp_path):
    _, _, held = answered
    reports = [one for one in held if one["Modality"] == "SR"]
    for one in reports:
        path = tmp_path / f"{one['id']}.dcm"
        path.write_bytes(orthanc.fetch(f"/instances/{one['id']}/file"))
        dumped = subprocess.run([require_component("dsrdump"), path], capture_output=True, text=True, check=False)
        assert dumped.returncode == 0
        assert "E: " not in dumped.stderr
        assert "chest-demo" in dumped.stdout


def test_ct_and_mr_get_a_status_report(node, orthanc, require_component, real_image):
    from pydicom import dcmread

    for name in ("CT_small.dcm", "MR2_UNCR.dcm"):
        source = dcmread(real_image(name), stop_before_pixels=True)
        assert storescu(node, require_component, real_image(name)).returncode == 0
        job = wait_until_delivered(node, source.StudyInstanceUID)
        assert job.state == "refused"
        held = [one for one in orthanc.instances() if one["StudyInstanceUID"] == source.StudyInstanceUID]
        assert sorted(one["Modality"] for one in held) == ["OT", "SR"]


def test_nothing_that_orthanc_lacks_is_asked_for(orthanc):
    with pytest.raises(urllib.error.HTTPError):
        orthanc.fetch("/instances/none/preview")


def test_the_audit_trail_of_all_this_verifies(node, answered):
    assert audit.verify(node.database).events > 10
