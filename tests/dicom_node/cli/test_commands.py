"""The command line as a person uses it: real processes, real files, readable words and exit codes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import audit, studies
from storage.database import Database
from storage.spool import Spool
from storage.studies import Arrival


def camnode(*arguments, cwd=None, code=0):
    done = subprocess.run(
        [sys.executable, "-m", "dicom_node", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=240,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def site(tmp_path, tiny_card):
    """A configuration whose archive answers nobody."""
    config = tmp_path / "camnode.toml"
    config.write_text(
        '[node]\nfolder = "data"\n[receiving]\nport = 0\n[sending]\nconnection_timeout = 1\n'
        '[peers.pacs]\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 1\n'
        f'[models]\ntiny = "{tiny_card}"\n'
        '[[routes]]\nname = "chest"\nmodel = "tiny"\nmethods = ["grad-cam"]\ndestinations = ["pacs"]\n'
    )
    return config


@pytest.fixture
def database(site):
    made = (
        Database(f"sqlite:///{site.parent / 'data' / 'camnode.db'}") if (site.parent / "data").mkdir() is None else None
    )
    yield made
    made.close()


def put_study(database, folder):
    arrival = Arrival(
        sop_instance_uid="1.2.3.1", sop_class_uid="1.2", study_uid="1.2", series_uid="1.2.3",
        transfer_syntax_uid="1.2.840", sha256="a" * 64, calling_ae="CR1", called_ae="CAMNODE", address="127.0.0.1",
        attributes={"PatientID": "P1"}, received=time.time(),
    )  # fmt: skip
    studies.register(database, Spool(folder / "data" / "spool"), arrival, b"", b"x")


def test_init_writes_an_example_that_check_reads(tmp_path):
    assert "camnode.toml written" in camnode("init", cwd=tmp_path)
    assert "--force" in camnode("init", cwd=tmp_path, code=1)
    told = camnode("check", cwd=tmp_path, code=1)  # its archive does not exist
    assert "every key is known" in told
    assert "no TCP connection" in told


def test_check_tells_everything_that_is_wrong(site):
    lines = json.loads(camnode("check", "--config", site, "--json", code=1))
    verdicts = {line["what"]: line["verdict"] for line in lines}
    assert verdicts["model tiny"] == verdicts["route chest"] == verdicts["folder"] == "ok"
    assert verdicts["peer pacs"] == "error"


def test_check_tells_unknown_keys_bad_conditions_methods_and_models(site):
    text = site.read_text()
    site.write_text(text.replace("[receiving]", "[receiving]\nprot = 1"))
    assert "receiving.prot: unknown key" in camnode("check", "--config", site, code=1)
    site.write_text(text.replace('["grad-cam"]', '["grad-cam", "xcam"]') + "when = 'Modlity == 1'\n")
    told = camnode("check", "--config", site, code=1)
    assert "xcam" in told
    site.write_text(text.replace('["grad-cam"]', '["random"]'))
    assert "null control" in camnode("check", "--config", site, code=1)
    site.write_text(text.replace('["grad-cam"]', '["grad-cam", "xcam"]') + "when = 'Modlity == 1'\n")
    told = camnode("check", "--config", site, code=1)
    assert "did you mean Modality" in told
    site.write_text(text.replace("model.toml", "nowhere.toml"))
    assert "nowhere.toml" in camnode("check", "--config", site, code=1)


def test_run_refuses_a_configuration_that_is_wrong(site):
    site.write_text(site.read_text() + "when = 'Modlity == 1'\n")
    assert "did you mean Modality" in camnode("run", "--config", site, code=1)
    assert "camnode init" in camnode("run", "--config", site.parent / "none.toml", code=1)


def test_status_and_audit_of_an_empty_node(site):
    assert "jobs: none" in camnode("status", "--config", site)
    assert "intact: 0 events" in camnode("audit", "verify", "--config", site)


def test_status_shows_a_study_and_the_audit_trail_shows_who_looked(site, database):
    put_study(database, site.parent)
    assert "1.2" in camnode("status", "--config", site)
    found = json.loads(camnode("status", "--config", site, "--study", "1.2", "--json"))
    assert found["instances"][0]["sop_instance_uid"] == "1.2.3.1"
    assert "no study 9.9" in camnode("status", "--config", site, "--study", "9.9", code=1)
    assert "instance.stored" in camnode("audit", "list", "--config", site)
    listed = json.loads(camnode("audit", "list", "--config", site, "--json"))
    assert [one["event"] for one in listed] == ["instance.stored", "audit.read"]


def test_audit_export_as_lines_and_as_dicom_messages(site, database, tmp_path):
    put_study(database, site.parent)
    camnode("audit", "export", "--config", site, "--out", tmp_path / "trail.jsonl")
    (line,) = (tmp_path / "trail.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "instance.stored"
    camnode("audit", "export", "--config", site, "--format", "dicom", "--out", tmp_path / "trail.xml")
    messages = (tmp_path / "trail.xml").read_text().splitlines()
    assert len(messages) == 2
    assert all("<AuditMessage" in message for message in messages)


def test_a_broken_trail_is_told_with_exit_code_1(site, database):
    put_study(database, site.parent)
    from sqlalchemy import text

    with database.transaction() as connection:
        connection.execute(text("DROP TRIGGER audit_no_update"))
        connection.execute(text("UPDATE audit_event SET actor = 'x'"))
    assert "BROKEN: audit event 1" in camnode("audit", "verify", "--config", site, code=1)
    assert json.loads(camnode("audit", "verify", "--config", site, "--json", code=1))["intact"] is False


def test_replay_wants_a_reason_and_something_to_replay(site):
    assert "--reason" in camnode("replay", "--job", "x", "--config", site, code=2)
    assert "name one of" in camnode("replay", "--reason", "r", "--config", site, code=2)
    assert "no job x" in camnode("replay", "--job", "x", "--reason", "r", "--config", site, code=1)
    assert "0 deliveries" in camnode("replay", "--parked", "--reason", "r", "--config", site)


def test_models_are_listed_and_shown(site, tiny_card):
    assert "usable" in camnode("models", "list", "--config", site)
    assert "Tests only." in camnode("models", "show", tiny_card)
    assert "nowhere" in camnode("models", "show", tiny_card.parent / "nowhere.toml", code=1)


def test_methods_are_listed_with_what_they_need():
    told = camnode("methods")
    for words in ("grad-cam++:original", "score-cam:delta", "gradients", "not negative"):
        assert words in told
    listed = {one["name"]: one for one in json.loads(camnode("methods", "--json"))}
    assert listed["grad-cam"]["needs"] == ["activations", "gradients"]
    assert listed["score-cam:delta"]["default"]
    assert not listed["score-cam:paper"]["default"]
    assert "random" not in listed
    assert "CVPR 2016" in listed["cam"]["reference"]


@pytest.mark.parametrize(
    ("of_the_card", "instead", "problem"),
    [
        ('architecture = "residual-gap"', 'architecture = "no-such-network"', "no-such-network"),
        ('target_layer = "stages"', 'target_layer = "no.such.layer"', "no.such.layer"),
    ],
)
def test_a_model_that_can_not_be_opened_is_found_before_a_study_is(
    site, tiny_card, tmp_path, of_the_card, instead, problem
):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "weights.safetensors").write_bytes((tiny_card.parent / "weights.safetensors").read_bytes())
    (broken / "model.toml").write_text(tiny_card.read_text().replace(of_the_card, instead))
    assert problem in camnode("models", "show", broken / "model.toml", code=1)
    site.write_text(site.read_text().replace(str(tiny_card), str(broken / "model.toml")))
    lines = json.loads(camnode("check", "--config", site, "--json", code=1))
    (line,) = (line for line in lines if line["what"] == "model tiny")
    assert line["verdict"] == "error"
    assert problem in line["words"]


def test_explain_writes_objects_and_renderings_without_a_network(tmp_path, tiny_card, real_image):
    told = camnode(
        "explain", real_image("RG1_UNCR.dcm"), real_image("CT_small.dcm"), "--out", tmp_path / "out",
        "--model", tiny_card, "--method", "grad-cam", "--json",
    )  # fmt: skip
    film, ct = json.loads(told)
    assert (film["state"], ct["state"]) == ("done", "refused")
    made = {Path(path).suffix for path in film["renderings"]}
    assert made == {".png", ".html"}
    assert all(Path(path).stat().st_size > 1000 for path in film["renderings"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["study-1", "study-2"]


def test_explain_takes_a_method_once_whatever_it_is_called(tmp_path, tiny_card, real_image):
    told = camnode(
        "explain", real_image("RG1_UNCR.dcm"), "--out", tmp_path / "out", "--model", tiny_card,
        "--method", "score-cam", "--method", "score-cam:delta", code=1,
    )  # fmt: skip
    assert "named twice" in told
    assert not (tmp_path / "out").exists()


def test_explain_of_what_is_not_dicom_says_so(tmp_path, tiny_card):
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear colleague")
    told = camnode("explain", letter, "--out", tmp_path / "out", "--model", tiny_card, code=1)
    assert "none of the files is a DICOM object" in told


def test_the_version_and_the_help():
    assert camnode("version").strip()
    told = camnode("--help")
    for command in ("init", "check", "run", "explain", "status", "replay", "audit", "models"):
        assert command in told


def test_audit_events_carry_the_person(site, database):
    put_study(database, site.parent)
    camnode("audit", "list", "--config", site)
    assert [one.actor for one in audit.events(database, event="audit.read")] == [
        "root" if os.getuid() == 0 else os.environ["USER"]
    ]
