"""`camnode models`: what the model cards say, and whether the weights are the ones that the cards name."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cam_core.card import ModelCard, load_card, verify_digest
from cam_core.errors import CamCoreError
from dicom_node.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath
from dicom_node.cli.printing import as_json, say, table
from dicom_node.config import load_config

commands = typer.Typer(help="List, show and verify model cards.", no_args_is_help=True)


def inspect(path: Path) -> dict[str, Any]:
    """A card in short, and what is wrong with it (empty when nothing is)."""
    try:
        card = load_card(path)
    except CamCoreError as error:
        return {"card": str(path), "problems": list(getattr(error, "problems", ())) or [str(error)]}
    try:
        verify_digest(card)
        problems = []
    except (CamCoreError, OSError) as error:
        problems = [str(error)]
    return {"card": str(path), "problems": problems, **_summary(card)}


def _summary(card: ModelCard) -> dict[str, Any]:
    use = card.intended_use
    return {
        "name": card.name,
        "version": card.version,
        "runtime": card.runtime,
        "sha256": card.sha256,
        "labels": [
            f"{label.name} ({label.code.value}, {label.code.scheme}) ≥ {label.threshold:g}" for label in card.labels
        ],
        "modalities": list(use.modalities),
        "body_parts": list(use.body_parts),
        "views": list(use.views),
        "statement": use.statement,
        "demonstration_only": card.demonstration_only,
    }


@commands.command("list")
def list_models(config: ConfigPath = DEFAULT_CONFIG, json_: AsJson = False) -> None:
    """All models of the configuration; exit code 1 when one can't be used."""
    found = {name: inspect(path) for name, path in load_config(config).models.items()}
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
    """One model card in full, its weights verified; exit code 1 when it can't be used."""
    found = inspect(card)
    if json_:
        as_json(found)
    else:
        for key, value in found.items():
            say(f"{key:20} {'; '.join(map(str, value)) if isinstance(value, list) else value}")
    if found["problems"]:
        raise typer.Exit(1)
