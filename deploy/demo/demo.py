"""`make demo`: a node, a small archive and a modality on loopback; from a real chest film to overlay and report.

Everything is real: the node runs in a process of its own on its embedded defaults, the modality sends by C-STORE, the
archive receives by C-STORE, and what is printed comes from the node's rows and from the files that the archive got.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from modality import demonstration_files, send, study_uid
from pydicom import dcmread
from rich.console import Console
from rich.live import Live
from rich.table import Table
from site_folder import Site
from small_pacs import SmallPacs

from dicom_node.console.picture import png
from dicom_node.console.sr_page import page

OUT = Path("out") / "demo"
PATIENCE_SECONDS = 300
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def main() -> int:
    """Run the demonstration; 0 when every study has its answer in the archive and the audit trail verifies."""
    shutil.rmtree(OUT, ignore_errors=True)
    with SmallPacs(OUT / "pacs") as pacs, Site(folder=OUT / "site", pacs_port=pacs.port) as site:
        console.print(
            f"camnode listens on port {site.port}, the small archive on port {pacs.port}; loading the model …"
        )
        model = site.wait_for_model()
        console.print(f"model {model['model']} on {model['device']}, weights SHA-256 {model['model_sha256'][:16]}…")
        studies = {title: (path, study_uid(path)) for title, path in demonstration_files().items()}
        for title, (path, _) in studies.items():
            statuses = send([path], site.port)
            console.print(f"modality sent {title}: C-STORE answered {', '.join(f'0x{each:04X}' for each in statuses)}")
        delivered = wait_for_answers(site, {title: uid for title, (_, uid) in studies.items()})
        for title, (_, uid) in studies.items():
            print_answer(site, title, uid)
        print_files(pacs.received)
        verified = audit_verifies(site)
    return 0 if delivered and verified else 1


def wait_for_answers(site: Site, studies: Mapping[str, str]) -> bool:
    """Show how far each study is until all answers are in the archive."""
    until = time.monotonic() + PATIENCE_SECONDS
    with Live(
        progress(site, studies), console=console, refresh_per_second=4, transient=not console.is_terminal
    ) as live:
        while time.monotonic() < until:
            live.update(progress(site, studies))
            if all(site.is_delivered(uid) for uid in studies.values()):
                live.update(progress(site, studies))
                return True
            time.sleep(0.25)
    console.print("[bold red]not every study was answered in time; see out/demo/site/node.log")
    return False


def progress(site: Site, studies: Mapping[str, str]) -> Table:
    """Study, job and delivery states as they are now."""
    grid = Table("study", "state", "job", "results in the archive", title="Progress", title_justify="left")
    for title, uid in studies.items():
        study, job, deliveries = site.state_of(uid)
        sent = sum(one.state == "sent" for one in deliveries)
        done = f"{sent} of {len(deliveries)}" if deliveries else ""
        grid.add_row(title, study.state if study else "", job.state if job else "", done)
    return grid


def print_answer(site: Site, title: str, uid: str) -> None:
    """Findings and times of one study."""
    _, job, _ = site.state_of(uid)
    if job is None or job.summary is None:
        console.print(f"{title}: no answer")
        return
    console.print(f"\n[bold]{title}[/bold]: {job.state}. {job.summary['headline']}")
    for words in job.summary["warnings"]:
        console.print(f"  note: {words}")
    if job.summary["findings"]:
        grid = Table("finding", "certainty", "threshold", "present", "regions a map")
        for one in job.summary["findings"]:
            regions = ", ".join(f"{method} {count}" for method, count in one["regions"].items())
            present = "yes" if one["present"] else "no"
            grid.add_row(one["finding"], f"{one['probability']:.1%}", f"{one['threshold']:.1%}", present, regions)
        console.print(grid)
    steps = ", ".join(f"{step} {seconds:.2f} s" for step, seconds in job.summary["timings"].items())
    console.print(f"  time: {steps}")


def print_files(received: list[Path]) -> None:
    """Every object that the archive got, with a rendering beside it."""
    console.print(f"\n[bold]Received by the archive[/bold], in {OUT / 'pacs'}: each object with a rendering beside it")
    grid = Table("object", "patient", "what it is", "rendering")
    for path in sorted(received):
        data_set = dcmread(path)
        if data_set.Modality == "SR":
            shown = path.with_suffix(".html")
            shown.write_text(page(data_set), encoding="utf-8")
        else:
            shown = path.with_suffix(".png")
            shown.write_bytes(png(data_set))
        what = str(data_set.get("ImageComments", data_set.SeriesDescription)).partition(". ")[0]
        grid.add_row(str(path.relative_to(OUT / "pacs")), str(data_set.PatientName), what, shown.name)
    console.print(grid)


def audit_verifies(site: Site) -> bool:
    """Let the command line verify the audit trail of the running node."""
    command = [sys.executable, "-m", "dicom_node", "audit", "verify", "--config", str(site.config)]
    console.print("\n[bold]Audit trail[/bold]")
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
