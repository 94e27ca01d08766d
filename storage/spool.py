"""Files that survive a power cut: what was received and what will be sent. Knows bytes and names, not their meaning."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.errors import OutOfSpace


@dataclass(frozen=True, kw_only=True)
class SpoolFile:
    """A durable file: `path` relative to the spool, `size` in bytes, `sha256` of the whole content (hex)."""

    path: str
    size: int
    sha256: str


class Spool:
    """A folder of immutable files, spread over subfolders by the digest of their study's UID.

    A file is written under a temporary name, fsynced, renamed, and its folder fsynced; new folders are fsynced in
    their parents. After `keep` or `adopt` returns, the file survives kill -9 and loss of power.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _make_folder(folder)

    def absolute(self, path: str) -> Path:
        return self.folder / path

    def keep(self, chunks: Iterable[bytes], *, group: str, name: str) -> SpoolFile:
        """Write `chunks` as one durable file.

        Parameters
        ----------
        chunks : iterable of bytes
        group : str
            What belongs together (a study UID); only its digest names a folder, so it can't leave the spool.
        name : str
            A file name already known to be safe (a validated UID and a digest).

        Raises
        ------
        OutOfSpace
            The disk is full or fails; nothing is left behind.
        ValueError
            `name` is no plain file name.
        """
        relative = _relative(group, name)
        try:
            return self._write(chunks, relative)
        except OSError as error:
            raise OutOfSpace(error.strerror or str(error)) from error

    def adopt(self, path: Path, *, group: str, name: str) -> SpoolFile:
        """Take over a finished file: fsynced, renamed into place, and its folder fsynced; `path` is gone afterwards.

        The bytes aren't written again, unless `path` is on another file system. A file of that name is replaced.

        Parameters
        ----------
        path : Path
            A file that nobody writes to any more.
        group, name : str
            As for `keep`.

        Raises
        ------
        OutOfSpace
            The disk is full or fails, or the file can't be read.
        ValueError
            `name` is no plain file name.
        """
        relative = _relative(group, name)
        try:
            return self._adopt(path, relative)
        except OSError as error:
            raise OutOfSpace(error.strerror or str(error)) from error

    def _adopt(self, path: Path, relative: str) -> SpoolFile:
        target = self.folder / relative
        with open(path, "rb", buffering=0, opener=_not_a_link) as file:
            os.fchmod(file.fileno(), 0o600)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            os.fsync(file.fileno())
        _make_folder(target.parent)
        try:
            os.replace(path, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copied = self._write(_read(path), relative)
            path.unlink(missing_ok=True)
            return copied
        _sync_folder(target.parent)
        return SpoolFile(path=relative, size=size, sha256=digest)

    def _write(self, chunks: Iterable[bytes], relative: str) -> SpoolFile:
        target = self.folder / relative
        _make_folder(target.parent)
        part = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.part")
        digest, size = hashlib.sha256(), 0
        try:
            with open(part, "xb", opener=_private) as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
        return SpoolFile(path=relative, size=size, sha256=digest.hexdigest())

    def remove(self, path: str) -> None:
        """Delete one file; it is no error when it is gone already."""
        (self.folder / path).unlink(missing_ok=True)

    def sweep_unfinished(self) -> int:
        """Delete what an earlier process left half-written; returns how many. Call before any writer starts."""
        leftovers = list(self.folder.glob("*/*/.*.part"))
        for leftover in leftovers:
            leftover.unlink(missing_ok=True)
        return len(leftovers)


def _relative(group: str, name: str) -> str:
    """Where a file of a group lies in the spool. Raises `ValueError` for a name that is a path."""
    if not name or "/" in name or "\\" in name or name.startswith("."):
        raise ValueError(f"not a plain file name: {name!r}")
    digest = hashlib.sha256(group.encode()).hexdigest()
    return f"{digest[:2]}/{digest[:32]}/{name}"


def _read(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, mode=0o600)


def _not_a_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW)


def _make_folder(folder: Path) -> None:
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
