"""The child's loop: reads a request, lets the pipeline answer it, writes the answer; opens no socket, no database."""

import errno
import faulthandler
import gc
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from cam_core.errors import CamCoreError
from dicom_node.engine.limits import Limits, allow_processor_time, confine, end_with_parent
from dicom_node.errors import DicomNodeError

Handler = Callable[[Mapping[str, Any], Callable[[str, float], None]], Mapping[str, Any]]


def main(arguments: list[str]) -> int:
    """``child_main <answer descriptor> <limits as JSON>``; ends when its standard input does."""
    answers = os.fdopen(int(arguments[0]), "wb", buffering=0)
    limits = Limits(**json.loads(arguments[1]))
    end_with_parent(os.getppid())
    with open(Path(os.environ["CAMNODE_CRASH_FOLDER"]) / f"child-{os.getpid()}.txt", "w", encoding="utf-8") as crash:
        faulthandler.enable(crash)
        confine(limits)
        serve(sys.stdin.buffer, answers, limits, _pipeline())
    Path(crash.name).unlink(missing_ok=True)
    return 0


def _pipeline() -> Handler:
    from dicom_node.pipeline.study import answer  # noqa: PLC0415 - after the limits: importing runs other people's code

    return answer


def serve(requests: IO[bytes], answers: IO[bytes], limits: Limits, handle: Handler) -> None:
    """Answer requests one by one until the stream ends."""

    def say(value: Mapping[str, Any]) -> None:
        answers.write(json.dumps(value).encode() + b"\n")

    def progress(step: str, seconds: float) -> None:
        say({"progress": step, "seconds": seconds})

    for number, line in enumerate(requests):
        allow_processor_time(limits)
        try:
            say(handle(json.loads(line), progress))
        except MemoryError:
            os._exit(errno.ENOMEM)  # whatever is left of the heap is not worth another job
        except (DicomNodeError, CamCoreError) as error:
            say({"error": str(error), "kind": type(error).__name__})
        except Exception as error:  # noqa: BLE001 - the job's outermost step in this process: its failure must be told
            say({"error": f"{type(error).__name__} in {_where(error)}", "kind": type(error).__name__})
        gc.collect()
        if number == 0:
            gc.freeze()  # libraries and models stay: no later collection has to walk through them


def _where(error: BaseException) -> str:
    """Where an unforeseen error was raised; its message is left out, since it may quote values of the data set."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return "unknown"
    return f"{Path(traceback.tb_frame.f_code.co_filename).name}:{traceback.tb_lineno}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
