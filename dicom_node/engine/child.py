"""A warm child process that does one request at a time within limits: the parent's side. Knows no request's meaning.

Requests and answers are JSON lines over pipes. Nothing that a child says is unpickled or executed, so a child that a
hostile file has taken over can at worst answer nonsense; that is why this is not one of the process pools on PyPI,
which all pickle.
"""

import errno
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from dicom_node.engine.limits import Limits
from dicom_node.errors import ChildCrashed, ChildFailed, ChildTimedOut

_SIGNALS = {"SIGXCPU": "over its processor time", "SIGKILL": "killed, perhaps for want of memory"}
MAXIMUM_ANSWER_BYTES = 16 << 20
Progress = Callable[[str, float], None]


class Child:
    """One child process, started when first needed and started anew after a crash, a hang or an overrun.

    Parameters
    ----------
    limits : Limits
    crash_folder : Path
        Where the interpreter writes stack frames (no values, so no patient data) when it dies of a signal.
    module : str
        What the child runs; it must speak the protocol of `child_main`.
    """

    def __init__(self, limits: Limits, crash_folder: Path, module: str = "dicom_node.engine.child_main") -> None:
        self.limits = limits
        self._crash_folder = crash_folder
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: int = -1
        self._buffer = b""
        self._ending = threading.Lock()
        self._retired = False

    @property
    def pid(self) -> int | None:
        """The running child's process ID."""
        process = self._process  # another thread may be ending it
        return process.pid if process is not None and process.poll() is None else None

    def call(self, request: Mapping[str, Any], progress: Progress | None = None) -> dict[str, Any]:
        """Do one request and wait for its answer.

        Raises
        ------
        ChildCrashed
            The process died: killed, out of memory, over its processor time, or a decoder brought it down.
        ChildTimedOut
            No answer within the wall time; the process was killed.
        ChildFailed
            The child answered with an error; it lives on.
        """
        try:
            if self.pid is None:
                self._start()
            deadline = time.monotonic() + self.limits.wall_seconds
            self._write(request)
            while "progress" in (answer := self._read(deadline)):
                if progress:
                    progress(str(answer["progress"]), float(answer.get("seconds", 0.0)))
        except (ChildTimedOut, ChildCrashed):
            self.stop()
            raise
        if "error" in answer:
            raise ChildFailed(str(answer["error"]), str(answer.get("kind", "")))
        return answer

    def _start(self) -> None:
        self.stop()
        if self._retired:
            raise ChildCrashed("it was stopped")
        self._crash_folder.mkdir(parents=True, exist_ok=True)
        self._answers, theirs = os.pipe()
        self._buffer = b""
        command = [sys.executable, "-m", self._module, str(theirs), json.dumps(self.limits.__dict__)]
        environment = {**os.environ, "CAMNODE_CRASH_FOLDER": str(self._crash_folder)}
        if self.limits.threads:
            environment |= {name: str(self.limits.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # libraries' warnings quote values of the data set
                pass_fds=(theirs,),
                env=environment,
                start_new_session=True,  # Ctrl-C is the parent's business
            )
        finally:
            os.close(theirs)
        if self._retired:
            raise ChildCrashed("it was stopped")

    def _write(self, request: Mapping[str, Any]) -> None:
        process = self._process
        try:
            if process is None or process.stdin is None:
                raise ChildCrashed("it was stopped")
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except (OSError, ValueError) as error:  # ValueError: closed by `stop` meanwhile
            raise ChildCrashed(self._how_it_died()) from error

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            received = self._receive(deadline)
            if not received or len(self._buffer) > MAXIMUM_ANSWER_BYTES:
                raise ChildCrashed(self._how_it_died())
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise ChildCrashed("it answered what is not JSON") from error
        if not isinstance(answer, dict):
            raise ChildCrashed("it answered what is not an object")
        return answer

    def _receive(self, deadline: float) -> bytes:
        """What came next; nothing at the end of the pipe. A child that talks without end runs out of time, too."""
        remaining = deadline - time.monotonic()
        try:
            if remaining <= 0 or not select.select([self._answers], [], [], remaining)[0]:
                raise ChildTimedOut(self.limits.wall_seconds)
            return os.read(self._answers, 1 << 16)
        except (OSError, ValueError):  # the pool was stopped and the pipe closed meanwhile
            return b""

    def _how_it_died(self) -> str:
        process = self._process
        if process is None:
            return "it was stopped"
        try:
            code = process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        if code < 0:
            name = signal.Signals(-code).name
            return _SIGNALS.get(name, f"died of {name}")
        return "over its memory" if code == errno.ENOMEM else f"exited with status {code}"

    def stop(self) -> None:
        """End the child and everything it started; from any thread, as often as one likes."""
        with self._ending:
            process, self._process = self._process, None
            answers, self._answers = self._answers, -1
        if process is not None:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process.stdin:
                with suppress(BrokenPipeError):  # half a request was still on its way to it
                    process.stdin.close()
        if answers >= 0:
            os.close(answers)

    def retire(self) -> None:
        """End the child for good: a later request is refused instead of starting another."""
        self._retired = True
        self.stop()


class ChildPool:
    """So many children; a request waits until one is free."""

    def __init__(self, children: int, limits: Limits, crash_folder: Path) -> None:
        self._all = [Child(limits, crash_folder) for _ in range(children)]
        self._free: SimpleQueue[Child] = SimpleQueue()
        self._stopping = threading.Event()
        for child in self._all:
            self._free.put(child)

    @contextmanager
    def child(self) -> Iterator[Child]:
        """A child for one request. Raises `ChildCrashed` when the pool is being stopped."""
        while not self._stopping.is_set():
            try:
                child = self._free.get(timeout=0.5)
                break
            except Empty:
                continue
        else:
            raise ChildCrashed("the node is stopping")
        try:
            yield child
        finally:
            self._free.put(child)

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called: children that die now were ended by us."""
        return self._stopping.is_set()

    def warm(self, request: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Give every child the same request (load the models), each as it becomes free; answers in that order."""
        with ExitStack() as held:
            return [held.enter_context(self.child()).call(request) for _ in self._all]

    def stop(self) -> None:
        """End all children; what they were doing is taken up again after the next start."""
        self._stopping.set()
        for child in self._all:
            child.retire()
