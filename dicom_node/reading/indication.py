"""Whether an image is one that a model is meant for, by its card and the image's header alone; knows no score.

Policy: Modality has to be there and fit. Body part, view and age are checked where the card restricts them and the
image states them; an image that states none is accepted with a warning, since many sites leave these attributes empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from pydicom.dataset import Dataset

from cam_core.card import IntendedUse, ModelCard
from dicom_node.provenance import Reason

AGE_UNITS: Final = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
"""Years in a unit of value representation AS (PS3.5 6.2)."""


@dataclass(frozen=True, kw_only=True)
class Indication:
    """How an image fits a model's intended use.

    Attributes
    ----------
    reasons : tuple of Reason
        Why the model must not be used; empty when it may be. Kinds: modality, body-part, view, age.
    warnings : tuple of str
        What could not be checked, in plain words.
    """

    reasons: tuple[Reason, ...]
    warnings: tuple[str, ...]

    @property
    def within(self) -> bool:
        """Whether the model may be used."""
        return not self.reasons


def check(card: ModelCard, header: Dataset) -> Indication:
    """Compare an image's header with a model's intended use; every reason is given, not only the first."""
    use = card.intended_use
    outcomes = (_modality(use, header), _body_part(use, header), _view(use, header), _age(use, header))
    return Indication(
        reasons=tuple(outcome for outcome in outcomes if isinstance(outcome, Reason)),
        warnings=tuple(outcome for outcome in outcomes if isinstance(outcome, str)),
    )


def _refusal(kind: str, words: str) -> Reason:
    return Reason(kind=kind, words=words, concept="not supported")


def _modality(use: IntendedUse, header: Dataset) -> Reason | None:
    found = _term(header.get("Modality"))
    allowed = ", ".join(use.modalities)
    if not use.modalities or found in _terms(use.modalities):
        return None
    if not found:
        return _refusal("modality", f"Modality is missing; the model's indication is {allowed}")
    return _refusal("modality", f"Modality {found} is not in the model's indication ({allowed})")


def _body_part(use: IntendedUse, header: Dataset) -> Reason | str | None:
    if not use.body_parts:
        return None
    found = _term(header.get("BodyPartExamined"))
    allowed = ", ".join(use.body_parts)
    if not found:
        return f"Body Part Examined is missing; taken to be in the model's indication ({allowed})"
    if found in _terms(use.body_parts):
        return None
    return _refusal("body-part", f"Body part {found} is not in the model's indication ({allowed})")


def _view(use: IntendedUse, header: Dataset) -> Reason | str | None:
    if not use.views:
        return None
    found = _term(header.get("ViewPosition"))
    allowed = ", ".join(use.views)
    if not found:
        return f"View Position is missing; taken to be in the model's indication ({allowed})"
    if found in _terms(use.views):
        return None
    return _refusal("view", f"View {found} is not in the model's indication ({allowed})")


def _age(use: IntendedUse, header: Dataset) -> Reason | str | None:
    if use.minimum_age_years is None and use.maximum_age_years is None:
        return None
    age = age_years(header)
    if age is None:
        return f"The patient's age is not known; the model's indication is {_age_range(use)}"
    too_young = use.minimum_age_years is not None and age < use.minimum_age_years
    too_old = use.maximum_age_years is not None and age >= use.maximum_age_years + 1
    if too_young or too_old:
        words = f"The patient's age ({int(age)} years) is not in the model's indication ({_age_range(use)})"
        return _refusal("age", words)
    return None


def _age_range(use: IntendedUse) -> str:
    if use.maximum_age_years is None:
        return f"{use.minimum_age_years:g} years and older"
    if use.minimum_age_years is None:
        return f"up to {use.maximum_age_years:g} years"
    return f"{use.minimum_age_years:g} to {use.maximum_age_years:g} years"


def age_years(header: Dataset) -> float | None:
    """Age at the study in years: birth date against study date where both are given, else Patient's Age."""
    born, studied = _date(header.get("PatientBirthDate")), _date(_first_date(header))
    if born is not None and studied is not None and born <= studied:
        before_birthday = (studied.month, studied.day) < (born.month, born.day)
        whole = studied.year - born.year - before_birthday
        return float(whole)
    stated = re.fullmatch(r"(\d{1,3})([DWMY])", str(header.get("PatientAge", "")).strip())
    return int(stated[1]) * AGE_UNITS[stated[2]] if stated else None


def _first_date(header: Dataset) -> object:
    keywords = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")
    return next((header.get(keyword) for keyword in keywords if header.get(keyword)), None)


def _date(value: object) -> date | None:
    digits = str(value or "").strip().replace(".", "")
    if not re.fullmatch(r"\d{8}", digits):
        return None
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _terms(values: Sequence[str]) -> frozenset[str]:
    return frozenset(_term(value) for value in values)


def _term(value: object) -> str:
    """A coded string as compared: upper case, without spaces and underscores at which sites differ."""
    return re.sub(r"[\s_]+", "", str(value or "")).upper()
