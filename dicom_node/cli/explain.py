"""`camnode explain`: files in, results in a folder; no network, no database, the same pipeline and limits."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydicom import dcmread
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cam_core.card import load_card
from cam_core.finding import percent
from dicom_node.cli.options import AsJson, child_limits
from dicom_node.cli.printing import as_json, say, table
from dicom_node.config import OutputConfig, Route, WorkConfig
from dicom_node.console.picture import png
from dicom_node.console.sr_page import page
from dicom_node.engine.child import Child
from dicom_node.errors import ConfigurationError, DicomNodeError, UnreadableFile
from dicom_node.reading import read_header
from dicom_node.routing import methods_named_twice
from storage import audit

DEFAULT_CARD = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo" / "model.toml"
DEFAULT_METHODS = Route(name="explain", model="any", destinations=("none",)).methods


def explain(  # noqa: PLR0913, PLR0917 - one parameter an option
    files: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.", exists=True)],
    out: Annotated[Path, typer.Option("--out", help="A folder for the results.")],
    model: Annotated[Path, typer.Option("--model", help="A model.toml.")] = DEFAULT_CARD,
    method: Annotated[list[str] | None, typer.Option("--method", help="A method; may be repeated.")] = None,
    palette: Annotated[str, typer.Option("--palette", help="cividis, inferno, viridis, magma, plasma or jet.")] = "",
    opacity: Annotated[float, typer.Option("--opacity", min=0.3, max=0.5)] = 0.4,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    json_: AsJson = False,
) -> None:
    """Explain a model's findings on files: Secondary Captures, Structured Reports, PNG and HTML into a folder."""
    if problems := tuple(methods_named_twice(method or ())):
        raise ConfigurationError(problems)
    card = load_card(model.resolve())
    output = OutputConfig(opacity=opacity, **({"palette": palette} if palette else {}))  # type: ignore[arg-type]
    studies = _by_study(_expanded(files))
    work = WorkConfig(device=device)
    child = Child(child_limits(work), out / ".crashes")
    told: list[dict[str, Any]] = []
    try:
        for study_uid, members in studies.items():
            folder = out / f"study-{len(told) + 1}"
            folder.mkdir(parents=True, exist_ok=True)
            request = _request(study_uid, members, folder, method or DEFAULT_METHODS, output)
            request |= {"card": str(card.path), "device": device}
            answer = _with_progress(child, request, f"study {len(told) + 1} of {len(studies)}", quiet=json_)
            told.append({"study_uid": study_uid, **answer, "renderings": _render(answer["results"], folder)})
    finally:
        child.stop()
        shutil.rmtree(out / ".crashes", ignore_errors=True)
    if json_:
        as_json(told)
    else:
        for one in told:
            _print(one)


def _expanded(paths: Sequence[Path]) -> list[Path]:
    found = [
        file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*"))) if file.is_file()
    ]
    if not found:
        raise ConfigurationError(("no files were given",))
    return found


def _by_study(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files grouped by Study Instance UID; what can't be parsed is told and left out, unless nothing else is there."""
    studies: dict[str, list[Path]] = {}
    for path in files:
        try:
            uid = str(read_header(path).StudyInstanceUID)
        except (DicomNodeError, AttributeError) as error:
            say(f"{path.name}: left out, {error}")
        else:
            studies.setdefault(uid, []).append(path)
    if not studies:
        raise UnreadableFile("none of the files is a DICOM object of a study")
    return studies


def _request(
    study_uid: str, members: Sequence[Path], folder: Path, methods: Sequence[str], output: OutputConfig
) -> dict[str, Any]:
    source = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in sorted(members)))
    settings = {"methods": list(methods), "output": asdict(output)}
    return {
        "task": "answer",
        "job_id": "explain",
        "study_uid": study_uid,
        "route": "explain",
        "created": datetime.now(UTC).isoformat(),
        "files": [{"path": str(path.resolve())} for path in members],
        **settings,
        "settings_digest": hashlib.sha256(audit.canonical(settings).encode()).hexdigest(),
        "source_digest": source.hexdigest(),
        "staging": str(folder.resolve()),
        "node": {"station_name": "CAMNODE", "device_serial_number": "explain"},
    }


def _with_progress(child: Child, request: Mapping[str, Any], title: str, *, quiet: bool) -> dict[str, Any]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, disable=quiet, transient=True) as shown:
        task = shown.add_task(title, total=None)
        return child.call(
            request, lambda step, seconds: shown.update(task, description=f"{title}: {step} ({seconds:.2f} s)")
        )


def _render(results: Sequence[Mapping[str, Any]], folder: Path) -> list[str]:
    """A PNG beside each Secondary Capture and an HTML page beside each report."""
    made = []
    for one in results:
        data_set = dcmread(one["file"])
        if data_set.Modality == "SR":
            path = Path(one["file"]).with_suffix(".html")
            path.write_text(page(data_set), encoding="utf-8")
        else:
            path = Path(one["file"]).with_suffix(".png")
            path.write_bytes(png(data_set))
        made.append(str(folder / path.name))
    return made


def _certainty(line: Mapping[str, Any]) -> str:
    shown, spread = f"{percent(line['probability'], line['threshold'])} %", line["uncertainty"]
    if spread is None:
        return shown
    low, high = (percent(spread[end], line["threshold"]) for end in ("low", "high"))
    return f"{shown} ({percent(spread['level'])} % interval {low} to {high} %)"


def _print(one: Mapping[str, Any]) -> None:
    summary = one["summary"]
    say(f"{one['state']}: {summary['headline']}")
    say(f"{summary['model']} on {summary['device'] or 'no device'} {summary['runtime']}")
    findings = [
        (
            each["finding"],
            _certainty(each),
            f"{percent(each['threshold'])} %",
            ("yes" if each["present"] else "no") + (", borderline" if each["borderline"] else ""),
        )
        for each in summary["findings"]
    ]
    if findings:
        table("Findings", ("finding", "certainty", "threshold", "present"), findings)
    for words in (*summary["warnings"], *(left["reason"] for left in summary["left_out"])):
        say(f"  note: {words}")
    table(
        "Results", ("kind", "description", "file"), [(r["kind"], r["description"], r["file"]) for r in one["results"]]
    )
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in summary["timings"].items())
    say(f"time: {steps}")
