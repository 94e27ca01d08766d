"""The paper of a model, read from its ``model.toml``; knows the weights' digest but never loads them."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from cam_core.card_schema import (
    AugmentationEntry,
    CardEntry,
    CodeEntry,
    EnsembleEntry,
    IntendedUseEntry,
    UncertaintyEntry,
    problems,
)
from cam_core.errors import CardError, DigestMismatch, ModelLoadError
from cam_core.finding import Code, Label, UncertaintyKind


@dataclass(frozen=True, kw_only=True)
class InputSpecification:
    """The grid that the model looks at.

    Attributes
    ----------
    rows, columns : int, pixel
    slices : int or None, pixel
        None for models of pictures.
    channels : 1 or 3
    fit : ``pad`` or ``stretch``
        How a picture of another shape gets onto the grid; see `cam_core.image.fit_to`.
    pad_value : float, 0..1
        Display value of the border.
    normalisation : ``per-image`` or ``fixed``
        Either ``(x - mean) / max(sd, 0.001)`` over the fitted grid, or the given `mean` and `sd` per channel.
    mean, sd : tuple of float
        Empty unless fixed.
    """

    rows: int
    columns: int
    channels: int
    fit: Literal["pad", "stretch"]
    pad_value: float
    normalisation: Literal["per-image", "fixed"]
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    slices: int | None = None

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows and columns, with the slices before them when the model takes volumes."""
        return (self.rows, self.columns) if self.slices is None else (self.slices, self.rows, self.columns)


@dataclass(frozen=True, kw_only=True)
class ActivationLayout:
    """How the target layer's output is laid out.

    Attributes
    ----------
    layout : ``channels-first``, ``channels-last`` or ``tokens``
        (N, Ch, *cells) as convolutions give it, (N, *cells, Ch) as shifted-window transformers do, or (N, T, Ch) with
        one token a cell as vision transformers do.
    token_grid : tuple of int, cell
        Rows and columns (and slices before them) of the tokens; empty unless ``tokens``.
    prefix_tokens : int
        Tokens before those of the cells (class token, registers); they are no place and get no map.
    """

    layout: Literal["channels-first", "channels-last", "tokens"] = "channels-first"
    token_grid: tuple[int, ...] = ()
    prefix_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Augmentations:
    """How far an input may be changed without a reader answering otherwise.

    Every pass draws evenly from plus or minus these amounts (noise: normally), anew for each of them.

    Attributes
    ----------
    shift : float, part of the grid's side
        Along every axis.
    rotation : float, degree
        In the plane of the rows and columns, about the centre of the grid.
    scale : float, part of the size
        Of the rows and columns; 0.1 draws factors from 0.9 to 1.1.
    brightness : float, display value
    contrast : float, part of the distance from mid-grey
    noise : float, display value
        Standard deviation.
    mirror_invariant : bool
        The model answers the mirrored picture alike: each pass is mirrored left to right or not.
    """

    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    mirror_invariant: bool = False


@dataclass(frozen=True, kw_only=True)
class Member:
    """The weights of a further model of an ensemble: absolute path, and SHA-256 in lower case hexadecimal."""

    weights: Path
    sha256: str


@dataclass(frozen=True, kw_only=True)
class UncertaintySpecification:
    """How the uncertainty of the scores is to be found.

    Attributes
    ----------
    kind : ``test-time-augmentation``, ``mc-dropout`` or ``ensemble``
    passes : int
        Answers for each picture, those of the card's own weights being one of an ensemble's.
    level : float, 0..1
        Of the interval.
    seed : int
        Of the random changes; an ensemble has none.
    augmentations : Augmentations or None
        None unless the kind needs them.
    members : tuple of Member
        Models beside the card's own, of the same runtime, architecture, input and labels; for ensembles.
    """

    kind: UncertaintyKind
    passes: int
    level: float
    seed: int = 0
    augmentations: Augmentations | None = None
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, kw_only=True)
class IntendedUse:
    """For which studies the model is meant; empty lists and None mean no restriction."""

    statement: str
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    views: tuple[str, ...]
    minimum_age_years: float | None
    maximum_age_years: float | None
    finding_site: Code | None


@dataclass(frozen=True, kw_only=True)
class Training:
    """On what and how the model was trained, in words."""

    data: str
    summary: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Everything about a model that its weights don't say.

    Attributes
    ----------
    path : Path
        The card itself, absolute.
    digest : str
        SHA-256 of the card's own bytes, lower case hexadecimal: with the same weights, another card is another model.
    weights : Path
        Absolute; always inside the card's folder.
    sha256 : str
        Of the weights, lower case hexadecimal.
    architecture, architecture_options
        Name in the architecture table and its options; torch only.
    target_layer : str or None
        Module (torch) or tensor (onnx) whose output is explained; None lets the onnx runtime find it.
    activations : ActivationLayout
        How that output is laid out.
    uncertainty : UncertaintySpecification or None
        None when the model's scores are to stand alone.
    """

    path: Path
    digest: str
    name: str
    version: str
    manufacturer: str
    description: str
    demonstration_only: bool
    runtime: Literal["torch", "onnx"]
    weights: Path
    sha256: str
    architecture: str | None
    architecture_options: Mapping[str, Any]
    target_layer: str | None
    license: str
    input: InputSpecification
    labels: tuple[Label, ...]
    activation: Literal["sigmoid", "softmax"]
    intended_use: IntendedUse
    training: Training
    activations: ActivationLayout = ActivationLayout()
    uncertainty: UncertaintySpecification | None = None

    @property
    def weights_files(self) -> tuple[Path, ...]:
        """Every file of weights that the card names: the model's own, then those of the ensemble's other members."""
        members = self.uncertainty.members if self.uncertainty else ()
        return (self.weights, *(member.weights for member in members))

    def member_cards(self) -> tuple[ModelCard, ...]:
        """The ensemble's other members as cards of their own, which declare no uncertainty."""
        members = self.uncertainty.members if self.uncertainty else ()
        return tuple(replace(self, weights=one.weights, sha256=one.sha256, uncertainty=None) for one in members)


def load_card(path: Path) -> ModelCard:
    """Read and check a model card.

    Raises
    ------
    CardError
        With every problem at once: unreadable file, broken TOML, unknown or missing keys, values out of range.
    """
    try:
        encoded = path.read_bytes()
        content = tomllib.loads(encoded.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CardError(path, (f"can't be read: {error}",)) from error
    except tomllib.TOMLDecodeError as error:
        raise CardError(path, (f"is not valid TOML: {error}",)) from error
    try:
        entry = CardEntry.model_validate(content)
    except ValidationError as error:
        raise CardError(path, problems(error)) from error
    card = _card(path.resolve(), hashlib.sha256(encoded).hexdigest(), entry)
    places = ["[model]", *(f"[uncertainty] members, {number}," for number in range(1, len(card.weights_files)))]
    outside = tuple(
        f"{place} weights: must name a file beside the card, without leaving its folder"
        for place, weights in zip(places, card.weights_files, strict=True)
        if not weights.is_relative_to(card.path.parent)
    )
    if outside:
        raise CardError(path, outside)
    return card


def _card(path: Path, digest: str, entry: CardEntry) -> ModelCard:
    model = entry.model
    return ModelCard(
        path=path,
        digest=digest,
        name=model.name,
        version=model.version,
        manufacturer=model.manufacturer,
        description=model.description,
        demonstration_only=model.demonstration_only,
        runtime=model.runtime,
        weights=(path.parent / model.weights).resolve(),
        sha256=model.sha256,
        architecture=model.architecture,
        architecture_options=dict(model.architecture_options),
        target_layer=model.target_layer,
        license=model.license,
        input=InputSpecification(**entry.input.model_dump()),
        labels=tuple(Label(name=one.name, code=_code(one.code), threshold=one.threshold) for one in entry.labels),
        activation=entry.output.activation,
        intended_use=_intended_use(entry.intended_use),
        training=Training(data=entry.training.data, summary=entry.training.summary),
        activations=ActivationLayout(**model.activations.model_dump()),
        uncertainty=_uncertainty(path.parent, entry.uncertainty) if entry.uncertainty else None,
    )


def _uncertainty(folder: Path, entry: UncertaintyEntry) -> UncertaintySpecification:
    if isinstance(entry, EnsembleEntry):
        members = tuple(Member(weights=(folder / one.weights).resolve(), sha256=one.sha256) for one in entry.members)
        return UncertaintySpecification(kind=entry.kind, passes=1 + len(members), level=entry.level, members=members)
    return UncertaintySpecification(
        kind=entry.kind,
        passes=entry.passes,
        level=entry.level,
        seed=entry.seed,
        augmentations=Augmentations(**entry.augmentations.model_dump())
        if isinstance(entry, AugmentationEntry)
        else None,
    )


def _code(entry: CodeEntry) -> Code:
    return Code(value=entry.value, scheme=entry.scheme, meaning=entry.meaning)


def _intended_use(entry: IntendedUseEntry) -> IntendedUse:
    return IntendedUse(
        statement=entry.statement,
        modalities=entry.modalities,
        body_parts=entry.body_parts,
        views=entry.views,
        minimum_age_years=entry.minimum_age_years,
        maximum_age_years=entry.maximum_age_years,
        finding_site=_code(entry.finding_site) if entry.finding_site else None,
    )


def verified_weights(card: ModelCard) -> bytes:
    """The weights, read once and checked, so that what is loaded is what was checked.

    Raises
    ------
    ModelLoadError
        When they can't be read.
    DigestMismatch
    """
    try:
        weights = card.weights.read_bytes()
    except OSError as error:
        raise ModelLoadError(card.weights, f"can't be read: {error}") from error
    found = hashlib.sha256(weights).hexdigest()
    if found != card.sha256:
        raise DigestMismatch(card.weights, card.sha256, found)
    return weights
