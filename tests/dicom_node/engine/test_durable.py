"""What we rely on in DBOS, on the real thing: order by priority, one run an ID, takeover, JSON and no pickle."""

import subprocess
import sys
import threading
import time

import pytest
from dbos import DBOS
from sqlalchemy import text

from dicom_node.engine.durable import JOBS, Durable, JsonSerializer, Queues, workflow_database_url
from storage.database import make_engine

ran: list[str] = []
gate = threading.Event()


@DBOS.workflow(name="test_record")
def record(name: str) -> str:
    ran.append(name)
    return name


@DBOS.workflow(name="test_wait")
def wait(name: str) -> str:
    gate.wait(20)
    return name


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'camnode.db'}"


@pytest.fixture
def durable(url):
    ran.clear()
    gate.clear()
    made = Durable(url, Queues(jobs=1))
    made.launch()
    yield made
    gate.set()
    made.stop()


def until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_stat_overtakes_what_was_queued_before_it(durable):
    durable.enqueue(JOBS, wait, "blocker", 1, ("b",))
    assert until(lambda: DBOS.get_workflow_status("blocker").status == "PENDING")
    for number in range(3):
        durable.enqueue(JOBS, record, f"routine-{number}", 100, (f"routine-{number}",))
    durable.enqueue(JOBS, record, "stat", 1, ("stat",))
    gate.set()
    assert until(lambda: len(ran) == 4)
    assert ran == ["stat", "routine-0", "routine-1", "routine-2"]


def test_an_id_runs_once_until_it_is_told_to_have_ended(durable):
    assert durable.enqueue(JOBS, record, "job", 100, ("job",))
    assert not durable.enqueue(JOBS, record, "job", 100, ("job",))
    assert until(lambda: ran == ["job"])
    assert until(lambda: DBOS.get_workflow_status("job").status == "SUCCESS")
    durable.ended("job")
    assert durable.enqueue(JOBS, record, "job", 100, ("job",))
    assert until(lambda: ran == ["job", "job"])


def test_traces_are_json_and_on_a_durable_file_of_their_own(durable, url):
    durable.enqueue(JOBS, record, "job", 100, ("a ’quoted’ name",))
    assert until(lambda: ran)
    engine = make_engine(workflow_database_url(url))
    with engine.connect() as connection:
        stored = connection.execute(text("SELECT inputs FROM workflow_input")).one()
        serialization = connection.execute(text("SELECT serialization FROM workflow_status")).scalar_one()
        mode = connection.execute(text("PRAGMA journal_mode")).scalar()
    engine.dispose()
    assert serialization == "camnode_json"
    assert JsonSerializer().deserialize(stored.inputs)["args"] == ["a ’quoted’ name"]
    assert mode == "wal"


def test_finished_traces_are_forgotten(durable):
    durable.enqueue(JOBS, record, "job", 100, ("x",))
    assert until(lambda: ran and DBOS.get_workflow_status("job").status == "SUCCESS")
    assert durable.forget_finished(int(time.time() * 1000) + 1000) == 1
    assert DBOS.get_workflow_status("job") is None


_DYING = """
import sys, time
from dbos import DBOS
from dicom_node.engine.durable import Durable, JOBS, Queues

@DBOS.workflow(name="test_record")
def record(name: str) -> str:
    print("running", flush=True)
    time.sleep(60)
    return name

durable = Durable(sys.argv[1], Queues(jobs=1))
durable.launch()
durable.enqueue(JOBS, record, "job", 100, ("job",))
time.sleep(60)
"""


def test_what_a_killed_process_had_under_way_is_taken_over(url):
    ran.clear()
    dying = subprocess.Popen([sys.executable, "-c", _DYING, url], stdout=subprocess.PIPE)
    assert dying.stdout is not None
    assert dying.stdout.readline() == b"running\n"
    dying.kill()
    dying.wait()
    heir = Durable(url, Queues(jobs=1))
    heir.launch()
    try:
        assert DBOS.get_workflow_status("job").status == "PENDING"
        assert heir.enqueue(JOBS, record, "job", 100, ("job",))
        assert until(lambda: ran == ["job"])
    finally:
        heir.stop()
