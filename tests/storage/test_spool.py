"""A file is there whole and durable, or not at all."""

import errno
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


@pytest.fixture
def finished(tmp_path):
    path = tmp_path / "staging.dcm"
    path.write_bytes(b"abcdef")
    return path


def test_an_adopted_file_is_moved_whole_private_and_under_its_group(spool, finished):
    inode = finished.stat().st_ino
    file = spool.adopt(finished, group="1.2.3", name="1.2.3.4.dcm")
    path = spool.absolute(file.path)
    assert path.read_bytes() == b"abcdef"
    assert path.stat().st_ino == inode
    assert path.stat().st_mode & 0o777 == 0o600
    assert (file.size, file.sha256) == (6, hashlib.sha256(b"abcdef").hexdigest())
    assert file == spool.keep((b"abcdef",), group="1.2.3", name="1.2.3.4.dcm")
    assert not finished.exists()


def test_order_of_system_calls_of_an_adoption(spool, finished, monkeypatch):
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), real_replace(a, b))[1])
    file = spool.adopt(finished, group="g", name="n.dcm")
    folders = [call for call in calls if call not in (str(finished), "rename")]
    assert calls[0] == str(finished)
    assert calls[-2:] == ["rename", str(spool.absolute(file.path).parent)]
    assert len(folders) == 3  # the spool (for the group's first folder), that folder, and the file's own


def test_a_file_of_another_file_system_is_copied_durably(spool, finished, monkeypatch):
    real_replace, calls = os.replace, []

    def replace(source, target):
        if source == finished:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        calls.append("rename")
        real_replace(source, target)

    real_fsync = os.fsync
    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(
        os,
        "fsync",
        lambda fd: (calls.append("dir" if os.path.isdir(f"/proc/self/fd/{fd}") else "file"), real_fsync(fd))[1],
    )
    file = spool.adopt(finished, group="g", name="n.dcm")
    assert spool.absolute(file.path).read_bytes() == b"abcdef"
    assert file.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert calls[-3:] == ["file", "rename", "dir"]
    assert not finished.exists()
    assert not list(spool.folder.rglob("*.part"))


def test_what_can_not_be_flushed_is_not_adopted(spool, finished, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace, match="No space left"):
        spool.adopt(finished, group="g", name="n.dcm")
    assert finished.exists()
    assert not [path for path in spool.folder.rglob("*") if path.is_file()]


def test_a_link_is_not_adopted(spool, finished, tmp_path):
    link = tmp_path / "link.dcm"
    link.symlink_to(finished)
    with pytest.raises(OutOfSpace):
        spool.adopt(link, group="g", name="n.dcm")
    with pytest.raises(ValueError, match="plain file name"):
        spool.adopt(finished, group="g", name="../n.dcm")
    assert finished.read_bytes() == b"abcdef"
