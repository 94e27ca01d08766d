"""`camnode models`: what the model cards say, and whether the models can be opened with the weights that they name."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from cam_core.card import ModelCard, load_card
from cam_core.errors import CamCoreError
from dicom_node.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, child_limits
from dicom_node.cli.printing import as_json, say, table
from dicom_node.config import WorkConfig, load_config
from dicom_node.engine.child import Child
from dicom_node.errors import ChildError
from dicom_node.pipeline.rows import warm_request

commands = typer.Typer(help="List, show and verify model cards.", no_args_is_help=True)


def inspect(paths: Iterable[Path], work: WorkConfig) -> list[dict[str, Any]]:
    """Each card in short, and what is wrong with it (empty when nothing is).

    Every model is opened as a job would open it, in a child process within the node's limits: the card alone doesn't
    tell whether the weights fit the architecture, or whether the layer to be explained is there.
    """
    with tempfile.TemporaryDirectory() as crashes:
        child = Child(child_limits(work), Path(crashes))
        try:
            return [_inspect(path, child, work) for path in paths]
        finally:
            child.stop()


def _inspect(path: Path, child: Child, work: WorkConfig) -> dict[str, Any]:
    try:
        card = load_card(path)
    except CamCoreError as error:
        return {"card": str(path), "problems": list(getattr(error, "problems", ())) or [str(error)]}
    try:
        (told,) = child.call(warm_request([str(card.path)], work))["models"]
        problems = [told["reason"]] if "reason" in told else []
        ran_by = {key: told[key] for key in ("device", "masked_passes") if key in told}
    except ChildError as error:
        problems, ran_by = [f"can't be opened: {error}"], {}
    return {"card": str(path), "problems": problems, **ran_by, **_summary(card)}


def _summary(card: ModelCard) -> dict[str, Any]:
    use, declared = card.intended_use, card.uncertainty
    return {
        "name": card.name,
        "version": card.version,
        "runtime": card.runtime,
        "sha256": card.sha256,
        "labels": [
            f"{label.name} ({label.code.value}, {label.code.scheme}) ≥ {label.threshold:g}" for label in card.labels
        ],
        "uncertainty": f"{declared.kind}, {declared.passes} passes" if declared else "none",
        "modalities": list(use.modalities),
        "body_parts": list(use.body_parts),
        "views": list(use.views),
        "statement": use.statement,
        "demonstration_only": card.demonstration_only,
    }


@commands.command("list")
def list_models(config: ConfigPath = DEFAULT_CONFIG, json_: AsJson = False) -> None:
    """All models of the configuration; exit code 1 when one can't be used."""
    loaded = load_config(config)
    found = dict(zip(loaded.models, inspect(loaded.models.values(), loaded.work), strict=True))
    if json_:
        as_json(found)
    else:
        lines = [
            (
                name,
                f"{one.get('name', '?')} {one.get('version', '')}",
                one.get("runtime", ""),
                one.get("sha256", "")[:12],
                ", ".join([*one.get("modalities", ()), *one.get("body_parts", ())]),
                "; ".join(one["problems"]) or "usable",
            )
            for name, one in found.items()
        ]
        table("Models", ("configured as", "model", "runtime", "SHA-256", "intended use", "state"), lines)
    if any(one["problems"] for one in found.values()):
        raise typer.Exit(1)


@commands.command("show")
def show(
    card: Annotated[Path, typer.Argument(help="A model.toml.")],
    json_: AsJson = False,
) -> None:
    """One model card in full, its weights verified and opened; exit code 1 when it can't be used."""
    (found,) = inspect([card], WorkConfig())
    if json_:
        as_json(found)
    else:
        for key, value in found.items():
            say(f"{key:20} {'; '.join(map(str, value)) if isinstance(value, list) else value}")
    if found["problems"]:
        raise typer.Exit(1)
