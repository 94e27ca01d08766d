"""What a child process is asked to do with one job, as a value parsed from JSON; does none of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cam_core.card import ModelCard
from cam_core.classifier import ForwardOptions
from cam_core.overlay import OverlayStyle
from dicom_node import __version__
from dicom_node.pipeline import PIPELINE_VERSION
from dicom_node.provenance import Equipment, Provenance, derived_uid


@dataclass(frozen=True, kw_only=True)
class Output:
    """How a route wants its results (the configuration's ``[routes.output]``)."""

    opacity: float
    palette: str
    maximum_side: int
    region_threshold: float
    regions_per_map: int
    notice_picture: bool

    def style(self, card: ModelCard | None) -> OverlayStyle:
        """The same as the overlay's own value."""
        return OverlayStyle(
            opacity=self.opacity,
            palette=self.palette,
            maximum_side=self.maximum_side,
            demonstration_only=card is not None and card.demonstration_only,
        )


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file with what reception knew of it; empty where it was never received (files given by hand)."""

    path: Path
    sop_instance_uid: str = ""
    sop_class_uid: str = ""


UNKNOWN: Final = "unknown"
"""Version and digests of a model whose card can't be read."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """One job: files in, a folder for the objects out, and everything that decides the objects' bytes.

    Attributes
    ----------
    model : str
        What the configuration calls the model: its name for want of a card.
    identity : mapping of DICOM keyword to plain value
        Whose study it is, for want of a readable file; empty where that was never kept.
    """

    job_id: str
    study_uid: str
    route: str
    created: datetime
    files: Sequence[SourceFile]
    identity: Mapping[str, Any]
    model: str
    card: Path
    methods: Sequence[str]
    output: Output
    settings_digest: str
    source_digest: str
    staging: Path
    device: str
    forward: ForwardOptions
    station_name: str
    device_serial_number: str

    def provenance(self, card: ModelCard | None) -> Provenance:
        """Who makes the results, from what. The device UID is another for each model version, as IHE AIR asks."""
        name, version = (card.name, card.version) if card else (self.model, UNKNOWN)
        weights, digest = (card.sha256, card.digest) if card else (UNKNOWN, UNKNOWN)
        equipment = Equipment(
            software_version=__version__,
            device_serial_number=self.device_serial_number,
            station_name=self.station_name,
            device_uid=derived_uid("device", self.device_serial_number, weights, digest),
        )
        return Provenance(
            study_uid=self.study_uid,
            route=self.route,
            job_id=self.job_id,
            model_name=name,
            model_version=version,
            model_sha256=weights,
            card_digest=digest,
            pipeline_version=PIPELINE_VERSION,
            settings_digest=self.settings_digest,
            source_digest=self.source_digest,
            created=self.created,
            equipment=equipment,
        )


def parse_request(request: Mapping[str, Any]) -> JobRequest:
    """From the JSON that `rows.request_for` makes."""
    return JobRequest(
        job_id=request["job_id"],
        study_uid=request["study_uid"],
        route=request["route"],
        created=datetime.fromisoformat(request["created"]),
        files=tuple(_source_file(one) for one in request["files"]),
        identity=request.get("identity") or {},
        model=request.get("model") or UNKNOWN,
        card=Path(request["card"]),
        methods=tuple(request["methods"]),
        output=Output(**request["output"]),
        settings_digest=request["settings_digest"],
        source_digest=request["source_digest"],
        staging=Path(request["staging"]),
        device=request["device"],
        forward=forward_options(request),
        station_name=request["node"]["station_name"],
        device_serial_number=request["node"]["device_serial_number"],
    )


def forward_options(request: Mapping[str, Any]) -> ForwardOptions:
    """How the passes over changed inputs are computed; exactly, unless the request says otherwise."""
    return ForwardOptions(**request.get("forward", {}))


def _source_file(entry: Mapping[str, str]) -> SourceFile:
    return SourceFile(
        path=Path(entry["path"]),
        sop_instance_uid=entry.get("sop_instance_uid", ""),
        sop_class_uid=entry.get("sop_class_uid", ""),
    )
