"""A crash, a hang or a bomb in a child costs that request and nothing else."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dicom_node.engine.child import Child, ChildPool
from dicom_node.engine.limits import Limits
from dicom_node.errors import ChildCrashed, ChildFailed, ChildTimedOut

LIMITS = Limits(memory_bytes=1 << 30, cpu_seconds=2, wall_seconds=8)
HERE = Path(__file__).parent


@pytest.fixture
def child(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    made = Child(LIMITS, tmp_path, module="crashing_child")
    yield made
    made.stop()


def test_it_stays_warm_between_requests(child):
    first = child.call({"what": "work"})
    assert child.call({"what": "work"})["pid"] == first["pid"] == child.pid
    assert first["parent"] == os.getpid()


def test_progress_is_passed_on(child):
    seen = []
    child.call({"what": "work"}, lambda step, seconds: seen.append((step, seconds)))
    assert seen == [("working", 0.5)]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("segfault", "SIGSEGV"),
        ("memory", "over its memory"),
        ("spin", "processor time"),
        ("exit", "status 3"),
        ("nonsense", "not JSON"),
    ],
)
def test_a_death_is_told_and_the_next_request_gets_a_new_child(child, what, words):
    before = child.call({"what": "work"})["pid"]
    with pytest.raises(ChildCrashed, match=words):
        child.call({"what": what})
    assert child.call({"what": "work"})["pid"] != before


@pytest.mark.parametrize("what", ["hang", "chatter"])
def test_a_hang_ends_at_the_wall_time_even_if_it_talks(tmp_path, monkeypatch, what):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    child = Child(Limits(memory_bytes=1 << 30, cpu_seconds=60, wall_seconds=3), tmp_path, module="crashing_child")
    started = time.monotonic()
    with pytest.raises(ChildTimedOut):
        child.call({"what": what})
    assert time.monotonic() - started < 10
    assert child.pid is None
    child.stop()


def test_a_killed_child_is_told(child):
    pid = child.call({"what": "work"})["pid"]
    threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
    with pytest.raises(ChildCrashed, match="killed"):
        child.call({"what": "hang"})


def test_a_known_error_is_an_answer_and_the_child_lives_on(child):
    pid = child.call({"what": "work"})["pid"]
    with pytest.raises(ChildFailed, match="not DICOM") as failed:
        child.call({"what": "error"})
    assert failed.value.kind == "UnreadableFile"
    assert child.pid == pid


def test_an_unforeseen_error_tells_where_but_not_what_it_says(child):
    with pytest.raises(ChildFailed) as failed:
        child.call({"what": "surprise"})
    assert "ValueError in crashing_child.py" in str(failed.value)
    assert "Patient" not in str(failed.value)


def test_a_child_ends_with_its_parent(tmp_path):
    program = (
        "import sys, os; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from dicom_node.engine.child import Child\n"
        "from dicom_node.engine.limits import Limits\n"
        "os.environ['PYTHONPATH'] = sys.argv[1]\n"
        "c = Child(Limits(memory_bytes=1 << 30, cpu_seconds=5, wall_seconds=30), Path(sys.argv[2]), 'crashing_child')\n"
        "print(c.call({'what': 'work'})['pid'], flush=True)\n"
        "c.call({'what': 'hang'})\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(HERE), str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()


def test_a_pool_hands_out_each_child_to_one_request_at_a_time(tmp_path):
    pool = ChildPool(1, LIMITS, tmp_path)
    with pool.child() as first:
        waited = []
        thread = threading.Thread(target=lambda: waited.append(pool.child().__enter__()))
        thread.start()
        time.sleep(0.2)
        assert waited == []
    thread.join(timeout=5)
    assert waited == [first]
    pool.stop()
    with pytest.raises(ChildCrashed, match="stopping"), pool.child():
        pass


def test_stopping_a_pool_while_its_children_work_fails_nobody_but_them(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    for _ in range(5):
        child = Child(LIMITS, tmp_path, module="crashing_child")
        outcomes = []

        def work(child=child, outcomes=outcomes):
            try:
                while True:
                    child.call({"what": "work"})
            except ChildCrashed as error:
                outcomes.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.4)
        child.retire()
        child.retire()
        thread.join(timeout=10)
        assert len(outcomes) == 1
        with pytest.raises(ChildCrashed, match="stopped"):
            child.call({"what": "work"})
