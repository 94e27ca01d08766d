"""Tables of ``"module:name"`` strings joined with entry points; knows nothing of what they name."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from cam_core.errors import DuplicateName


def table_with_entry_points(kind: str, table: dict[str, str], group: str) -> dict[str, str]:
    """The built-in table and the installed entry points of a group, name to ``"module:name"``.

    Parameters
    ----------
    kind : str
        What the names are, for the error's text.
    table : dict
    group : str
        Entry point group.

    Raises
    ------
    DuplicateName
        When a name is registered twice with different targets.
    """
    joined = dict(table)
    for point in _installed(group):
        if point.name in joined:
            raise DuplicateName(kind, point.name, (joined[point.name], point.value))
        joined[point.name] = point.value
    return joined


@cache
def _installed(group: str) -> tuple[EntryPoint, ...]:
    """What is installed doesn't change while a process runs, and looking takes milliseconds."""
    return tuple(entry_points(group=group))


def load_named(source: str) -> object:
    """The object that ``"module:name"`` names."""
    module, _, name = source.partition(":")
    loaded: object = getattr(import_module(module), name)
    return loaded
