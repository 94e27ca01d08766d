"""`camnode init` and `check`: write an example configuration; report everything wrong before a port opens."""

import socket
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer

from cam_core.errors import CamCoreError
from cam_core.method import clinical_method
from dicom_node.cli import models
from dicom_node.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from dicom_node.cli.printing import as_json, say, table
from dicom_node.config import Config, OutputConfig, load_config
from dicom_node.errors import ConfigurationError
from dicom_node.routing import check_routes
from dicom_node.sending.association import verify
from storage.database import Database, sqlite_warning
from storage.errors import StorageError

_CHEST_DEMO = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo" / "model.toml"


@dataclass(frozen=True, kw_only=True)
class CheckLine:
    """One thing that was looked at."""

    what: str
    verdict: Literal["ok", "warning", "error"]
    words: str


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write an example configuration with every key explained."""
    if path.exists() and not force:
        raise ConfigurationError((f"{path} is there already; --force overwrites it",))
    text = files("dicom_node.cli").joinpath("example.toml").read_text(encoding="utf-8")
    text = text.replace("@CHEST_DEMO@", str(_CHEST_DEMO)).replace("@PALETTE@", OutputConfig().palette)
    path.write_text(text, encoding="utf-8")
    say(f"{path} written; edit it, then `camnode check --config {path}`")


def check(config: ConfigPath = DEFAULT_CONFIG, json_: AsJson = False) -> None:
    """Look at configuration, storage, models, port and peers; exit code 1 when something is wrong."""
    lines = list(check_lines(config))
    if json_:
        as_json([line.__dict__ for line in lines])
    else:
        table(f"{config}", ("what", "verdict", "in words"), [(one.what, one.verdict, one.words) for one in lines])
    if any(line.verdict == "error" for line in lines):
        raise typer.Exit(1)


def check_lines(path: Path) -> Iterator[CheckLine]:
    """Everything that `check` looks at; one line for each, also for what is well."""
    try:
        config = load_config(path)
    except ConfigurationError as error:
        yield from (_error("configuration", problem) for problem in error.problems)
        return
    yield CheckLine(what="configuration", verdict="ok", words="every key is known and every name is defined")
    yield from _check_routes(config)
    yield from _check_models(config)
    yield _check_folder(config.node.folder)
    yield from _check_database(config)
    yield _check_port(config)
    yield from _check_peers(config)


def _error(what: str, words: str) -> CheckLine:
    return CheckLine(what=what, verdict="error", words=words)


def _check_routes(config: Config) -> Iterator[CheckLine]:
    try:
        check_routes(config.routes)
    except ConfigurationError as error:
        yield from (_error("routes", problem) for problem in error.problems)
    for route in config.routes:
        unknown = list(_unknown_methods(route.methods))
        yield from (_error(f"route {route.name}", words) for words in unknown)
        if not unknown:
            words = f"{route.model}, {', '.join(route.methods)} → {', '.join(route.destinations)}"
            yield CheckLine(what=f"route {route.name}", verdict="ok" if route.enabled else "warning", words=words)
    if not config.routes:
        yield CheckLine(what="routes", verdict="warning", words="none: studies are stored and ignored")


def _unknown_methods(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        try:
            clinical_method(name)
        except CamCoreError as error:
            yield str(error)


def _check_models(config: Config) -> Iterator[CheckLine]:
    for name, found in zip(config.models, models.inspect(config.models.values(), config.work), strict=True):
        if found["problems"]:
            yield from (_error(f"model {name}", problem) for problem in found["problems"])
        else:
            yield CheckLine(
                what=f"model {name}",
                verdict="ok",
                words=f"{found['name']} {found['version']}, digest verified, can be opened",
            )


def _check_folder(folder: Path) -> CheckLine:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"camnode")
    except OSError as error:
        return _error("folder", f"{folder} can't be written: {error.strerror}")
    return CheckLine(what="folder", verdict="ok", words=str(folder))


def _check_database(config: Config) -> Iterator[CheckLine]:
    try:
        Database(config.database_url).close()
    except StorageError as error:
        yield _error("database", str(error))
        return
    warning = sqlite_warning(config.database_url)
    if warning:
        yield CheckLine(what="database", verdict="warning", words=warning)
    else:
        yield CheckLine(what="database", verdict="ok", words=config.database_url.split("://")[0])


def _check_port(config: Config) -> CheckLine:
    host, port = config.receiving.host, config.receiving.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            words = f"{host} port {port}: {error.strerror} (a running camnode?)"
            return CheckLine(what="listener", verdict="warning", words=words)
    open_to_all = config.receiving.promiscuous and host not in {"127.0.0.1", "::1", "localhost"}
    words = f"{config.receiving.ae_title} on {host} port {port}"
    if open_to_all:
        return CheckLine(
            what="listener", verdict="warning", words=f"{words}, open to every sender (promiscuous = true)"
        )
    return CheckLine(what="listener", verdict="ok", words=words)


def _check_peers(config: Config) -> Iterator[CheckLine]:
    for peer in config.peers:
        if peer.role != "archive":
            continue
        echo = verify(peer, config.sending, config.receiving.ae_title)
        words = f"{peer.ae_title} at {peer.host} port {peer.port}: {echo.words}"
        yield CheckLine(what=f"peer {peer.name}", verdict="ok" if echo.reachable else "error", words=words)
