"""`make bench-cam`: time and memory of the CAM methods beside other libraries, in one process; changes nothing.

All are asked about the same model, picture and findings. Works take turns, so that what disturbs the machine disturbs
all of them, and targets are ratios. The networks have random weights, on which cost does not depend; how near the
clustered Score-CAM comes to the full one is measured on the demonstration model as well.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from cam_approximations import bf16, clustered
from cam_contest import FINDINGS, MODELS, contested
from cam_memory import memory
from cam_speed import gradients, panel, score_cam
from small_networks import Case
from stopwatch import Part, Verdict, machine, versions

PACKAGES = ("camnode", "torch", "onnxruntime", "numpy", "grad-cam", "torchcam", "captum", "monai")
PARTS: dict[str, Callable[[Case, argparse.Namespace], Part]] = {
    "gradients": gradients,
    "score-cam": score_cam,
    "panel": panel,
    "memory": memory,
    "clustered": clustered,
    "bf16": bf16,
}
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def main() -> int:
    """Measure the parts asked for, print them, and say which targets are met."""
    options = _options()
    found: list[Part] = []
    for model in options.models:
        case = contested(model, options.side)
        for name in options.parts:
            part = PARTS[name](case, options)
            found.append(part)
            if not options.json:
                _print(part)
    facts = {"machine": machine(), "versions": versions(PACKAGES), "side": options.side, "quick": options.quick}
    if options.json:
        print(json.dumps({**facts, "parts": [_as_numbers(part) for part in found]}, indent=2))
    else:
        for name, fact in facts.items():
            console.print(f"{name}: {fact}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time and memory of the CAM methods beside other libraries.")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the tables")
    parser.add_argument("--quick", action="store_true", help="small pictures, few channels: shows that it works")
    parser.add_argument("--model", choices=MODELS, action="append", dest="models", help="all when not given")
    parser.add_argument("--part", choices=PARTS, action="append", dest="parts", help="all when not given")
    parser.add_argument("--rounds", type=int, default=8, help="of the gradient methods")
    parser.add_argument("--long-rounds", type=int, default=1, help="of the works that take minutes")
    parser.add_argument("--channels", type=int, default=0, help="only so many channels for Score-CAM; 0 is all")
    parser.add_argument("--side", type=int, default=224, help="of the square picture, pixel")
    options = parser.parse_args()
    options.their_findings = FINDINGS
    if options.quick:
        options.rounds, options.channels, options.side, options.their_findings = 3, 16, 96, 1
        torch.set_num_threads(1)
    options.models = options.models or list(MODELS)[: 1 if options.quick else None]
    options.parts = options.parts or list(PARTS)
    return options


def _as_numbers(part: Part) -> dict[str, object]:
    return {**asdict(part), "verdicts": [{**asdict(one), "met": one.is_met} for one in part.verdicts]}


def _print(part: Part) -> None:
    table = Table("", title=f"{part.title}, {part.unit}", title_justify="left")
    for head in ("n", "median", "min"):
        table.add_column(head, justify="right")
    for name, values in part.measured.items():
        table.add_row(name, str(len(values)), f"{statistics.median(values):.3f}", f"{min(values):.3f}")
    targets = Table("target", "bound", "measured", "met", "")
    for one in part.verdicts:
        targets.add_row(one.target, *_judged(one), one.note)
    for thing in (table, targets, *part.notes):
        console.print(thing)


def _judged(one: Verdict) -> tuple[str, str, str]:
    if one.at_most is None and one.at_least is None:
        return "-", f"{one.measured:.3g}", "-"
    bound = f"<= {one.at_most:g}" if one.at_most is not None else f">= {one.at_least:g}"
    return bound, f"{one.measured:.3g}", "yes" if one.is_met else "no"


if __name__ == "__main__":
    sys.exit(main())
