"""The shape of ``model.toml``: which keys exist and what each may hold; reads no files and loads no weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Years = Annotated[float, Field(ge=0, le=150)]

MOST_PASSES = 64
"""Of one picture, for the uncertainty of its scores: they stand on the critical path of a study."""


class Entry(BaseModel):
    """A table of the card: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class CodeEntry(Entry):
    """``{ value, scheme, meaning }``."""

    value: Annotated[str, Field(min_length=1, max_length=64)]
    scheme: Annotated[str, Field(min_length=1, max_length=16)]
    meaning: Annotated[str, Field(min_length=1, max_length=64)]


class ActivationsEntry(Entry):
    """``[model.activations]``: how the target layer's output is laid out."""

    layout: Literal["channels-first", "channels-last", "tokens"] = "channels-first"
    token_grid: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), strict=False)
    prefix_tokens: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _tokens(self) -> Self:
        if self.layout == "tokens" and len(self.token_grid) not in (2, 3):
            raise ValueError("layout \"tokens\" needs 'token_grid': rows and columns, with slices before them in 3D")
        if self.layout != "tokens" and (self.token_grid or self.prefix_tokens):
            raise ValueError("'token_grid' and 'prefix_tokens' belong to layout \"tokens\" only")
        return self


class WeightsEntry(Entry):
    """A file beside the card and its digest."""

    weights: Text
    sha256: str

    @field_validator("weights")
    @classmethod
    def _inside(cls, weights: str) -> str:
        if re.match(r"^([/\\]|[A-Za-z]:)", weights) or ".." in re.split(r"[/\\]", weights):
            raise ValueError("must name a file beside the card, without leaving its folder")
        return weights

    @field_validator("sha256")
    @classmethod
    def _digest(cls, sha256: str) -> str:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
            raise ValueError("must be 64 hexadecimal digits")
        return sha256.lower()


class ModelEntry(WeightsEntry):
    """``[model]``."""

    name: Text
    version: Text
    manufacturer: Text
    description: str = ""
    demonstration_only: bool = False
    runtime: Literal["torch", "onnx"]
    architecture: str | None = None
    architecture_options: dict[str, Any] = {}
    target_layer: str | None = None
    activations: ActivationsEntry = ActivationsEntry()
    license: str = ""

    @model_validator(mode="after")
    def _runtime(self) -> Self:
        if self.runtime == "torch" and not self.architecture:
            raise ValueError("'architecture' is missing, the torch runtime needs one")
        if self.runtime == "torch" and not self.target_layer:
            raise ValueError("'target_layer' is missing, the torch runtime needs one")
        if self.runtime == "onnx" and (self.architecture or self.architecture_options):
            raise ValueError("an onnx model has no 'architecture' and no 'architecture_options'")
        return self


class InputEntry(Entry):
    """``[input]``."""

    rows: Annotated[int, Field(ge=8, le=4096)]
    columns: Annotated[int, Field(ge=8, le=4096)]
    slices: Annotated[int, Field(ge=4, le=2048)] | None = None
    channels: Literal[1, 3]
    fit: Literal["pad", "stretch"] = "pad"
    pad_value: Fraction = 0.0
    normalisation: Literal["per-image", "fixed"]
    mean: tuple[float, ...] = Field(default=(), strict=False)
    sd: tuple[float, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _constants(self) -> Self:
        if self.normalisation == "per-image" and (self.mean or self.sd):
            raise ValueError("'mean' and 'sd' belong to normalisation \"fixed\" only")
        if self.normalisation == "fixed":
            if len(self.mean) != self.channels or len(self.sd) != self.channels:
                raise ValueError(f"normalisation \"fixed\" needs 'mean' and 'sd' with {self.channels} number(s) each")
            if min(self.sd) <= 0:
                raise ValueError("every 'sd' must be above 0")
        return self


class LabelEntry(Entry):
    """``[[labels]]``."""

    name: Text
    code: CodeEntry
    threshold: Fraction


class OutputEntry(Entry):
    """``[output]``."""

    activation: Literal["sigmoid", "softmax"] = "sigmoid"


class IntendedUseEntry(Entry):
    """``[intended_use]``."""

    statement: Text
    modalities: tuple[Text, ...] = Field(default=(), strict=False)
    body_parts: tuple[Text, ...] = Field(default=(), strict=False)
    views: tuple[Text, ...] = Field(default=(), strict=False)
    minimum_age_years: Years | None = None
    maximum_age_years: Years | None = None
    finding_site: CodeEntry | None = None

    @model_validator(mode="after")
    def _ages(self) -> Self:
        if (
            self.minimum_age_years is not None
            and self.maximum_age_years is not None
            and self.minimum_age_years > self.maximum_age_years
        ):
            raise ValueError("'minimum_age_years' is above 'maximum_age_years'")
        return self


class TrainingEntry(Entry):
    """``[training]``: on what and how the model was trained."""

    data: str = ""
    summary: str = ""


class AugmentationsEntry(Entry):
    """``[uncertainty.augmentations]``: how far a picture is changed at most; see `cam_core.card.Augmentations`."""

    shift: Annotated[float, Field(ge=0, le=0.25)] = 0.0
    rotation: Annotated[float, Field(ge=0, le=45)] = 0.0
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    brightness: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    noise: Annotated[float, Field(ge=0, le=0.25)] = 0.0
    mirror_invariant: bool = False

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("at least one augmentation is needed")
        return self


class SpreadEntry(Entry):
    """What every kind of ``[uncertainty]`` has."""

    level: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95


class RepeatedEntry(SpreadEntry):
    """An ``[uncertainty]`` of one model that is asked several times."""

    passes: Annotated[int, Field(ge=2, le=MOST_PASSES)]
    seed: Annotated[int, Field(ge=0, le=999_999)] = 0


class AugmentationEntry(RepeatedEntry):
    """``[uncertainty]`` by changed inputs."""

    kind: Literal["test-time-augmentation"]
    augmentations: AugmentationsEntry


class DropoutEntry(RepeatedEntry):
    """``[uncertainty]`` by random dropout."""

    kind: Literal["mc-dropout"]


class EnsembleEntry(SpreadEntry):
    """``[uncertainty]`` by several models; the card's own is one of them."""

    kind: Literal["ensemble"]
    members: Annotated[tuple[WeightsEntry, ...], Field(strict=False, min_length=1, max_length=MOST_PASSES - 1)]


UncertaintyEntry = Annotated[AugmentationEntry | DropoutEntry | EnsembleEntry, Field(discriminator="kind")]


class CardEntry(Entry):
    """The whole card."""

    model: ModelEntry
    input: InputEntry
    labels: tuple[LabelEntry, ...] = Field(strict=False)
    output: OutputEntry = OutputEntry()
    intended_use: IntendedUseEntry
    training: TrainingEntry = TrainingEntry()
    uncertainty: UncertaintyEntry | None = None

    @field_validator("labels")
    @classmethod
    def _distinct(cls, labels: tuple[LabelEntry, ...]) -> tuple[LabelEntry, ...]:
        if not labels:
            raise ValueError("at least one label is needed")
        repeated = _repeated(label.name for label in labels)
        if repeated:
            raise ValueError(f"these names occur more than once: {', '.join(repeated)}")
        return labels

    @model_validator(mode="after")
    def _possible(self) -> Self:
        declared = self.uncertainty
        if isinstance(declared, DropoutEntry) and self.model.runtime != "torch":
            raise ValueError("uncertainty by mc-dropout needs the torch runtime")
        if isinstance(declared, EnsembleEntry):
            digests = [self.model.sha256, *(member.sha256 for member in declared.members)]
            if _repeated(digests):  # the same weights twice would make the ensemble look surer than it is
                raise ValueError("the members of an ensemble need weights that differ from the model's and each other")
        return self


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return sorted({name for name in names if name in seen or seen.add(name)})  # type: ignore[func-returns-value]


PLAIN_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a known key",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "is longer than {max_length} characters",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than_equal": "must be {le:g} or less",
    "literal_error": "must be {expected}",
    "tuple_type": "must be a list",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "too_short": "needs at least {min_length}",
    "too_long": "takes {max_length} at most",
    "union_tag_not_found": "{discriminator} is missing",
    "union_tag_invalid": "{discriminator} must be one of {expected_tags}",
    "value_error": "{error}",
}
"""What each kind of problem is called for the person who writes the card."""


def problems(error: ValidationError) -> tuple[str, ...]:
    """Every problem of a card in plain words: ``[labels] 2, threshold: must be 1 or less``."""
    return tuple(_problem(tuple(one["loc"]), one["type"], one.get("ctx", {}), one["msg"]) for one in error.errors())


def _problem(location: tuple[int | str, ...], kind: str, facts: dict[str, Any], fallback: str) -> str:
    words = PLAIN_WORDS.get(kind, fallback).format(**facts) if kind in PLAIN_WORDS else fallback
    table = f"[{location[0]}]" if location else "card"
    rest = [str(step + 1) if isinstance(step, int) else step for step in location[1:]]
    return f"{table} {', '.join(rest)}: {words}" if rest else f"{table}: {words}"
