"""A file is there whole and durable, or not at all."""

import hashlib
import os

import pytest

from storage.errors import OutOfSpace
from storage.spool import Spool


def test_a_kept_file_is_whole_private_and_under_its_group(spool):
    file = spool.keep((b"abc", b"def"), group="1.2.3", name="1.2.3.4.dcm")
    path = spool.absolute(file.path)
    assert path.read_bytes() == b"abcdef"
    assert (file.size, file.sha256) == (6, hashlib.sha256(b"abcdef").hexdigest())
    assert path.stat().st_mode & 0o777 == 0o600
    assert not list(spool.folder.rglob("*.part"))


def test_order_of_system_calls(spool, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (calls.append("dir" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"), real_fsync(fd))[1],
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), real_replace(a, b))[1])
    spool.keep((b"x",), group="g", name="n.dcm")
    assert calls[-3:] == ["file", "rename", "dir"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "", ".hidden", "a\\b"])
def test_a_name_that_is_a_path_is_refused(spool, name):
    with pytest.raises(ValueError, match="plain file name"):
        spool.keep((b"x",), group="g", name=name)


def test_a_group_can_not_leave_the_spool(spool):
    file = spool.keep((b"x",), group="../../../../etc", name="n.dcm")
    assert spool.absolute(file.path).resolve().is_relative_to(spool.folder.resolve())


def test_a_full_disk_leaves_nothing_behind(spool, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match="No space left"):
        spool.keep((b"x",), group="g", name="n.dcm")
    assert not [path for path in spool.folder.rglob("*") if path.is_file()]


def test_what_a_killed_writer_left_is_swept(spool):
    file = spool.keep((b"x",), group="g", name="n.dcm")
    leftover = spool.absolute(file.path).with_name(".n.dcm.1.ab.part")
    leftover.write_bytes(b"half")
    assert Spool(spool.folder).sweep_unfinished() == 1
    assert spool.absolute(file.path).read_bytes() == b"x"
