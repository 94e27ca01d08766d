"""Options that several commands share, and how a command opens what it needs."""

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.config import Config, load_config
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


def person() -> str:
    """Who acts, for the audit trail: the account, and the one behind sudo."""
    account = getpass.getuser()
    behind = os.environ.get("SUDO_USER")
    return f"{account} (sudo by {behind})" if behind else account
