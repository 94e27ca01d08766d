"""What a child process may do wrong, on request: the real limits and loop around a handler that misbehaves."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from dicom_node.engine import child_main
from dicom_node.errors import UnreadableFile


def misbehave(request: Mapping[str, Any], progress: Callable[[str, float], None]) -> Mapping[str, Any]:  # noqa: C901
    what = request["what"]
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "chatter":
        while True:
            progress("still here", 0.0)
    if what == "hang":
        time.sleep(60)
    if what == "spin":
        while True:
            pass
    if what == "memory":
        return {"bytes": len(bytearray(4 << 30))}
    if what == "error":
        raise UnreadableFile("not DICOM")
    if what == "surprise":
        raise ValueError("Patient^Name in the message")
    if what == "exit":
        sys.exit(3)
    if what == "nonsense":
        os.write(int(sys.argv[1]), b"not json\n")
        time.sleep(60)
    progress("working", 0.5)
    return {"pid": os.getpid(), "parent": os.getppid()}


child_main._pipeline = lambda: misbehave

if __name__ == "__main__":
    sys.exit(child_main.main(sys.argv[1:]))
