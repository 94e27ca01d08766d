"""`make bench`: seconds for each step from door to door, and the node's own share of them; changes nothing it measures.

A real node, archive and modality on loopback, as in `make demo`. All times but the first come from the node's own rows:
what is measured is what a site can read from its database.
"""

import argparse
import json
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from pynetdicom import AE
from rich.console import Console
from rich.table import Table

DEMO = Path(__file__).parents[2] / "deploy" / "demo"
sys.path.insert(0, str(DEMO))

from modality import demonstration_files  # noqa: E402 - the demonstration is no package
from site_folder import Site  # noqa: E402
from small_pacs import SmallPacs  # noqa: E402

from storage import audit, results  # noqa: E402

OUT = Path("out") / "bench"
FILM = "chest radiograph (CR)"
PATIENCE_SECONDS = 300
PACKAGES = ("camnode", "torch", "numpy", "pydicom", "pynetdicom", "highdicom", "pillow", "sqlalchemy", "dbos")
#: own steps of the pipeline, by their name in the job's summary, in their order
PIPELINE = ("open model", "read headers", "decode", "predict", "draw overlays", "build objects", "wait for a worker")
OVERHEAD_SECONDS = 1.0
RATIO = 1.3

Times = dict[str, float]
console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A study as the modality saw it: the answer's time (seconds since the epoch) and how long it was waited for."""

    study_uid: str
    answered: float
    receive_seconds: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One study's seconds for each step, and what came out."""

    times: Times
    objects: int
    megabytes: float
    findings: tuple[str, ...]


def main() -> int:
    """Measure, print, and say which targets are met; 1 when a study was not answered."""
    options = _options()
    shutil.rmtree(OUT, ignore_errors=True)
    with SmallPacs(OUT / "pacs") as pacs, Site(folder=OUT / "site", pacs_port=pacs.port) as site:
        model = site.wait_for_model()
        measured = [_run_study(site) for _ in range(options.studies + 1)][1:]  # the first warms up
    lines = {step: [one.times[step] for one in measured] for step in measured[0].times}
    verdicts = judge({step: statistics.median(values) for step, values in lines.items()})
    facts = _facts(model, measured, site.quiet_seconds)
    if options.json:
        print(json.dumps({**facts, "seconds": lines, "targets": verdicts}, indent=2))
    else:
        _print(lines, facts, verdicts)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Seconds from a film's acknowledgement to its results in the archive.")
    parser.add_argument("--studies", type=int, default=3, help="so many studies are measured, after one to warm up")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    options = parser.parse_args()
    if options.studies < 1:
        parser.error("at least one study has to be measured")
    return options


def _run_study(site: Site) -> Measured:
    """Send one film, wait until every result was taken, and read the times from the rows."""
    node = _node_process()
    before = _processor_seconds(node)
    sent = send_film(fresh_film(), site.port)
    until = time.monotonic() + PATIENCE_SECONDS
    while not site.is_delivered(sent.study_uid):
        if time.monotonic() > until:
            raise TimeoutError(f"no answer within {PATIENCE_SECONDS} s; see {OUT / 'site' / 'node.log'}")
        time.sleep(0.25)
    return _measured(site, sent, _processor_seconds(node) - before)


def fresh_film() -> Dataset:
    """The demonstration's chest film as a study that the node has not seen."""
    film = dcmread(demonstration_files()[FILM])
    film.StudyInstanceUID, film.SeriesInstanceUID, film.SOPInstanceUID = (generate_uid(None) for _ in range(3))
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID
    return film


def send_film(film: Dataset, port: int) -> Sent:
    """C-STORE one film; the clock runs from the request to the answer, without the association."""
    ae = AE(ae_title="MODALITY")
    ae.add_requested_context(film.SOPClassUID, film.file_meta.TransferSyntaxUID)
    assoc = ae.associate("127.0.0.1", port, ae_title="CAMNODE")
    if not assoc.is_established:
        raise ConnectionError("the node does not accept the association")
    started = time.perf_counter()
    status = assoc.send_c_store(film).Status
    seconds, answered = time.perf_counter() - started, time.time()
    assoc.release()
    if status != 0x0000:
        raise ConnectionError(f"the node answered 0x{status:04X}")
    return Sent(study_uid=str(film.StudyInstanceUID), answered=answered, receive_seconds=seconds)


def _node_process() -> psutil.Process:
    """The node that `Site` started."""
    return next(one for one in psutil.Process().children() if "dicom_node" in one.cmdline())


def _processor_seconds(node: psutil.Process) -> float:
    """Processor time of the node and the children that work for it."""
    used = [one.cpu_times() for one in (node, *node.children(recursive=True))]
    return sum(one.user + one.system for one in used)


def _measured(site: Site, sent: Sent, processor_seconds: float) -> Measured:
    study, job, deliveries = site.state_of(sent.study_uid)
    if study is None or job is None or job.summary is None or study.completed is None:
        raise RuntimeError(f"study {sent.study_uid} has no finished job")
    if not (job.state == "done" and job.started and job.finished):
        raise RuntimeError(f"the job ended as {job.state}: {job.reason}")
    timings: Times = job.summary["timings"]
    committed = _committed(site, sent.study_uid)
    taken = max(one.sent or 0.0 for one in deliveries)
    times = {
        "receive (C-STORE request to answer)": sent.receive_seconds,
        "complete (quiet time over, to study closed)": study.completed - study.last_received - site.quiet_seconds,
        "queue (study closed, to job started)": job.started - study.completed,
        **_pipeline_steps(timings),
        "rest of the job (request, answer, rows)": job.finished - job.started - sum(timings.values()),
        "commit (computed, to rows committed)": committed - job.finished,
        "deliver (committed, to last object taken)": taken - committed,
        **summary_times(taken - sent.answered, site.quiet_seconds, timings),
        "processor time, node and its children": processor_seconds,
    }
    with site.database.reading() as connection:
        made = results.of_job(connection, job.job_id)
    return Measured(
        times=times,
        objects=len(deliveries),
        megabytes=sum(one.size for one in made if one.fallback_for is None) / 1e6,
        findings=tuple(one["finding"] for one in job.summary["findings"] if one["present"]),
    )


def _pipeline_steps(timings: Times) -> Times:
    """The child's own steps in their order; explaining stands between predicting and drawing."""
    place = PIPELINE.index("draw overlays")
    explained = [step for step in timings if step.startswith("explain")]
    order = (*PIPELINE[:place], *explained, *PIPELINE[place:])
    known = {step: timings.get(step, 0.0) for step in order}
    return {**known, **{step: seconds for step, seconds in timings.items() if step not in known}}


def summary_times(door_to_door: float, quiet: float, timings: Times) -> Times:
    """What the targets are about. Pure compute: everything that the model and the methods do, and nothing else."""
    pure = sum(seconds for step, seconds in timings.items() if step == "predict" or step.startswith("explain"))
    return {
        "door to door (C-STORE answer, to last object taken)": door_to_door,
        "pure compute (predict, and explain by every method)": pure,
        OWN: door_to_door - quiet - pure,
        RATIO_LINE: (door_to_door - quiet) / pure,
    }


OWN = "the node's own overhead (door to door - quiet - pure)"
RATIO_LINE = "(door to door - quiet) / pure compute"


def judge(medians: Mapping[str, float]) -> dict[str, str]:
    """Each target, and whether the median meets it."""
    targets = {OWN: (OVERHEAD_SECONDS, "s"), RATIO_LINE: (RATIO, "times")}
    return {
        f"{line} <= {bound:g} {unit}": f"met, by {bound - medians[line]:.2f}"
        if medians[line] <= bound
        else f"missed, by {medians[line] - bound:.2f}"
        for line, (bound, unit) in targets.items()
    }


def _committed(site: Site, study_uid: str) -> float:
    """When the results' transaction ended: its last audit event, seconds since the epoch."""
    built = [one.time for one in audit.events(site.database, study_uid=study_uid, event="result.built")]
    return datetime.fromisoformat(built[-1]).timestamp()


def _facts(model: Mapping[str, Any], measured: Sequence[Measured], quiet_seconds: float) -> dict[str, Any]:
    last = measured[-1]
    return {
        "machine": f"{_processor()}, {psutil.cpu_count()} cores, load {psutil.getloadavg()[0]:.1f}",
        "versions": f"Python {platform.python_version()}, " + ", ".join(f"{one} {version(one)}" for one in PACKAGES),
        "model": f"{model['model']} on {model['device']}",
        "study": f"1 film, present: {', '.join(last.findings) or 'nothing'}; "
        f"{last.objects} objects, {last.megabytes:.1f} MB; quiet_seconds {quiet_seconds:g}",
        "studies": len(measured),
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _print(lines: Mapping[str, Sequence[float]], facts: Mapping[str, Any], verdicts: Mapping[str, str]) -> None:
    say: Callable[..., None] = console.print
    table = Table("step", title=f"Seconds, {facts['studies']} studies after one to warm up", title_justify="left")
    for head in ("median", "min", "max"):
        table.add_column(head, justify="right")
    for step, values in lines.items():
        numbers = (statistics.median(values), min(values), max(values))
        if step.startswith("door to door"):
            table.add_section()
        table.add_row(step, *(f"{number:.3f}" for number in numbers))
    say(table)
    for target, verdict in verdicts.items():
        say(f"{target}: {verdict}")
    for name in ("machine", "versions", "model", "study"):
        say(f"{name}: {facts[name]}")


if __name__ == "__main__":
    sys.exit(main())
