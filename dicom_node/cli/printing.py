"""Tables for people, JSON for machines; knows no row and no DICOM."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(title: str, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Print a table; a cell is plain text, so nothing that came from outside is read as markup."""
    grid = Table(title=title, title_justify="left", header_style="bold", show_edge=False, pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for line in lines:
        grid.add_row(*(Text(plain(cell)) for cell in line))
    console().print(grid)


def say(line: str) -> None:
    """Print one line, in full, without markup."""
    console().print(Text(plain(line)), soft_wrap=True)


def as_json(value: object) -> None:
    """Print JSON."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def console() -> Console:
    """Standard output; 140 columns where it is not a terminal, so that logs keep whole lines."""
    return Console(width=None if sys.stdout.isatty() else 140, highlight=False)


def errors_to(stream: TextIO, title: str, problems: Iterable[str]) -> None:
    """Print an error and its list of problems."""
    stream.write(plain(title) + "\n")
    for problem in problems:
        stream.write(f"  - {plain(problem)}\n")


def plain(value: object) -> str:
    """Text without control characters: what a peer sent can't move the cursor or forge a line."""
    return "".join(character if character.isprintable() else "�" for character in str("" if value is None else value))


def local_time(seconds: float | None) -> str:
    """Seconds since the epoch as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


def rows_as_json(rows: Iterable[Any]) -> list[Mapping[str, Any]]:
    """Frozen dataclasses as JSON objects."""
    return [dict(row.__dict__) for row in rows]
