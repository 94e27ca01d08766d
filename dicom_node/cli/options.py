"""Options that several commands share, and how a command opens what it needs."""

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.config import Config, WorkConfig, load_config
from dicom_node.engine.limits import Limits
from storage.database import Database

ConfigPath = Annotated[
    Path, typer.Option("--config", "-c", envvar="CAMNODE_CONFIG", help="The configuration file.", show_default=True)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit trail.")]

DEFAULT_CONFIG = Path("camnode.toml")


def open_database(path: Path) -> tuple[Config, Database]:
    """The configuration and its database, which may be in use by a running node."""
    config = load_config(path)
    config.node.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return config, Database(config.database_url)


def child_limits(work: WorkConfig) -> Limits:
    """What a command's child process may use: the same as the node's own."""
    return Limits(
        memory_bytes=int(work.memory_gib * (1 << 30)),
        cpu_seconds=work.cpu_seconds,
        wall_seconds=work.wall_seconds,
        threads=work.threads,
    )


def person() -> str:
    """Who acts, for the audit trail: the account, and the one behind sudo."""
    account = getpass.getuser()
    behind = os.environ.get("SUDO_USER")
    return f"{account} (sudo by {behind})" if behind else account
