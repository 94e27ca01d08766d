"""The configuration as one frozen value, read once from `camnode.toml`; opens no port and no database."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, field_validator
from pydantic.dataclasses import dataclass

from dicom_node.errors import ConfigurationError

STRICT = ConfigDict(extra="forbid", str_strip_whitespace=True)

AETitle = Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]*)$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class NodeConfig:
    """Who this node is and where it keeps what it must not forget."""

    name: Name = "camnode"
    station_name: Annotated[str, Field(max_length=16)] = "CAMNODE"
    device_serial_number: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    folder: Path = Path("camnode-data")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StorageConfig:
    """`database` empty: SQLite in the node's folder. One URL changes it, e.g. ``postgresql+psycopg://user@host/camnode``."""

    database: str = ""

    @field_validator("database")
    @classmethod
    def _known_dialect(cls, url: str) -> str:
        if url and not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            raise ValueError("use sqlite:///<path> or postgresql+psycopg://<user>@<host>/<database>")
        return url


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReceivingConfig:
    """The C-STORE and C-ECHO listener. Times in seconds, `maximum_pdu` in bytes (0 = unlimited, PS3.8 D.1)."""

    ae_title: AETitle = "CAMNODE"
    host: str = "127.0.0.1"
    port: Port = 11112
    maximum_associations: Annotated[int, Field(ge=1, le=10_000)] = 100
    acse_timeout: Seconds = 30
    dimse_timeout: Seconds = 60
    network_timeout: Seconds = 60
    maximum_pdu: Annotated[int, Field(ge=0)] = 131_072
    promiscuous: bool = True
    called_ae_titles: tuple[AETitle, ...] = ()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StudiesConfig:
    """When a study counts as complete: no new instance for `quiet_seconds`."""

    quiet_seconds: Seconds = 30
    #: same SOP Instance UID, other content: both are kept and audited; a job reads the first, or (`replace`) the last
    conflicts: Literal["keep-first", "replace"] = "keep-first"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorkConfig:
    """The child processes that decode and infer, and how often a job may try."""

    workers: Annotated[int, Field(ge=1, le=64)] = 1
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    retry_seconds: Annotated[float, Field(ge=0)] = 5
    memory_gib: Annotated[float, Field(gt=0.25)] = 6
    cpu_seconds: Seconds = 600
    wall_seconds: Seconds = 300
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    #: what runs the many passes of Score-CAM and its kin: `cam_core.classifier.ForwardOptions`
    engine: Literal["model", "fused", "onnxruntime"] = "model"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SendingConfig:
    """The C-STORE SCU: time-outs, and the patience of the outbox (it never gives up on what may still succeed)."""

    acse_timeout: Seconds = 30
    dimse_timeout: Seconds = 30
    network_timeout: Seconds = 60
    connection_timeout: Seconds = 10
    maximum_pdu: Annotated[int, Field(ge=0)] = 131_072
    backoff_first_seconds: Seconds = 5
    backoff_ceiling_seconds: Seconds = 900


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Peer:
    """A remote application entity. An archive needs an address; a sender's `host` or `subnet`, if given, is checked."""

    name: Name
    ae_title: AETitle
    role: Literal["sender", "archive"] = "archive"
    host: str | None = None
    port: Port | None = None
    subnet: str | None = None

    @field_validator("subnet")
    @classmethod
    def _is_network(cls, subnet: str | None) -> str | None:
        if subnet is not None:
            ip_network(subnet)
        return subnet


@dataclass(frozen=True, kw_only=True, config=STRICT)
class OutputConfig:
    """How the overlays of a route look. Opacity stays within the 30-50 % in which anatomy remains readable."""

    opacity: Annotated[float, Field(ge=0.30, le=0.50)] = 0.40
    palette: Literal["cividis", "inferno", "viridis", "magma", "plasma", "jet"] = "inferno"
    maximum_side: Annotated[int, Field(ge=512, le=8192)] = 1536
    region_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    regions_per_map: Annotated[int, Field(ge=1, le=20)] = 3
    #: also send a picture "AI not performed: reason" beside the status report
    notice_picture: bool = True


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Route:
    """A site's rule: which series of which studies (`when`), which model and methods, which peers get the results."""

    name: Name
    model: Name
    destinations: Annotated[tuple[Name, ...], Field(min_length=1)]
    when: Annotated[str, Field(min_length=1)] = "true"
    #: as `cam_core.panel.DEFAULT_PANEL`: one method of each family
    methods: Annotated[tuple[str, ...], Field(min_length=1)] = ("grad-cam", "grad-cam++", "score-cam", "ablation-cam")
    priority: Literal["stat", "routine"] = "routine"
    stat_when: str = "false"
    enabled: bool = True
    output: OutputConfig = field(default_factory=OutputConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """The whole configuration. `folder`, model paths and the like are absolute."""

    source: Path
    node: NodeConfig = field(default_factory=NodeConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    receiving: ReceivingConfig = field(default_factory=ReceivingConfig)
    studies: StudiesConfig = field(default_factory=StudiesConfig)
    work: WorkConfig = field(default_factory=WorkConfig)
    sending: SendingConfig = field(default_factory=SendingConfig)
    peers: tuple[Peer, ...] = ()
    models: Mapping[Name, Path] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()

    @property
    def database_url(self) -> str:
        return self.storage.database or f"sqlite:///{self.node.folder / 'camnode.db'}"

    def peer(self, name: str) -> Peer | None:
        return next((peer for peer in self.peers if peer.name == name), None)

    def route(self, name: str) -> Route | None:
        return next((route for route in self.routes if route.name == name), None)


def load_config(path: Path) -> Config:
    """Read `camnode.toml`.

    Raises
    ------
    ConfigurationError
        With *every* problem found: unreadable file, unknown keys, wrong types, routes that name no known model or peer.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError((f"{path}: no such file; `camnode init` writes an example",)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError((f"{path}: {error}",)) from error
    return parse_config(document, path)


def parse_config(document: Mapping[str, Any], source: Path) -> Config:
    """The configuration of a parsed TOML document; relative paths are taken from the file's own folder."""
    raw: dict[str, Any] = dict(document)
    raw["source"] = source
    raw["peers"] = _named(raw.get("peers", {}))
    try:
        config = TypeAdapter(Config).validate_python(raw)
    except ValidationError as error:
        raise ConfigurationError(tuple(_in_words(problem) for problem in error.errors())) from None
    problems = tuple(_cross_references(config))
    if problems:
        raise ConfigurationError(problems)
    return _absolute(config)


def _named(tables: Any) -> Any:
    """`[peers.pacs]` tables to values that carry their name."""
    if not isinstance(tables, Mapping):
        return tables
    return tuple({**table, "name": name} if isinstance(table, Mapping) else table for name, table in tables.items())


def _in_words(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "configuration"
    if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return f"{where}: unknown key"
    if problem["type"] in {"missing", "missing_argument"}:
        return f"{where}: required, but missing"
    given = problem.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}{shown}"


def _cross_references(config: Config) -> Iterable[str]:
    yield from _duplicates("routes", [route.name for route in config.routes])
    for route in config.routes:
        if route.model not in config.models:
            yield f"routes.{route.name}.model: no model {route.model!r} under [models]"
        for name in route.destinations:
            peer = config.peer(name)
            if peer is None:
                yield f"routes.{route.name}.destinations: no peer {name!r} under [peers]"
            elif peer.role != "archive":
                yield f"routes.{route.name}.destinations: peer {name!r} is a sender, not an archive"
    for peer in config.peers:
        if peer.role == "archive" and not (peer.host and peer.port):
            yield f"peers.{peer.name}: an archive needs host and port"


def _duplicates(where: str, names: list[str]) -> Iterable[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{where}: the name {name!r} is used twice"


def _absolute(config: Config) -> Config:
    base = config.source.resolve().parent
    node = NodeConfig(
        name=config.node.name,
        station_name=config.node.station_name,
        device_serial_number=config.node.device_serial_number,
        folder=(base / config.node.folder).resolve(),
    )
    models = {name: (base / path).resolve() for name, path in config.models.items()}
    values = {key: getattr(config, key) for key in config.__dataclass_fields__}
    return Config(**{**values, "node": node, "models": models})
