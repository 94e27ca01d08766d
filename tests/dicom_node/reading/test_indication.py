"""Which images a model is meant for, by its card."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
from pydicom.dataset import Dataset

from cam_core.card import ModelCard
from dicom_node.reading.indication import age_years, check


def film(**attributes: str) -> Dataset:
    ds = Dataset()
    given = {"Modality": "CR", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientAge": "054Y"}
    for keyword, value in {**given, **attributes}.items():
        setattr(ds, keyword, value)
    return ds


@pytest.fixture
def card(results: ModuleType) -> ModelCard:
    made: ModelCard = results.CARD
    return made


def test_a_fitting_film_is_within(card: ModelCard) -> None:
    outcome = check(card, film())
    assert outcome.within
    assert outcome.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "kind", "words"),
    [
        ({"Modality": "CT"}, "modality", "Modality CT is not in the model's indication (CR, DX)"),
        ({"Modality": ""}, "modality", "Modality is missing; the model's indication is CR, DX"),
        ({"BodyPartExamined": "HAND"}, "body-part", "Body part HAND is not in the model's indication (CHEST)"),
        ({"ViewPosition": "LL"}, "view", "View LL is not in the model's indication (PA, AP)"),
        (
            {"PatientAge": "006M"},
            "age",
            "The patient's age (0 years) is not in the model's indication (18 years and older)",
        ),
    ],
)
def test_each_refusal_says_what_and_what_would_fit(
    attributes: dict[str, str], kind: str, words: str, card: ModelCard
) -> None:
    outcome = check(card, film(**attributes))
    assert [(reason.kind, reason.words) for reason in outcome.reasons] == [(kind, words)]
    assert outcome.reasons[0].concept == "not supported"


def test_every_reason_is_given(card: ModelCard) -> None:
    outcome = check(card, film(Modality="MR", BodyPartExamined="KNEE", PatientAge="010Y"))
    assert [reason.kind for reason in outcome.reasons] == ["modality", "body-part", "age"]


def test_what_is_not_stated_is_accepted_with_a_warning(card: ModelCard) -> None:
    outcome = check(card, film(BodyPartExamined="", ViewPosition="", PatientAge=""))
    assert outcome.within
    assert len(outcome.warnings) == 3


def test_spelling_of_sites_does_not_matter(card: ModelCard) -> None:
    assert check(card, film(BodyPartExamined="Chest ", Modality="cr")).within


def test_an_unrestricted_card_takes_anything(card: ModelCard) -> None:
    use = replace(card.intended_use, modalities=(), body_parts=(), views=(), minimum_age_years=None)
    outcome = check(replace(card, intended_use=use), Dataset())
    assert outcome.within
    assert outcome.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientBirthDate": "20081124", "StudyDate": "20261123", "PatientAge": "099Y"}, 17),
        ({"PatientBirthDate": "20081123", "StudyDate": "20261123"}, 18),
        ({"PatientBirthDate": "19000101", "PatientAge": "018M"}, 1.5),
        ({"PatientBirthDate": "20300101", "StudyDate": "20261123", "PatientAge": "007D"}, 7 / 365.25),
        ({"PatientBirthDate": "00000000", "StudyDate": "20261123", "PatientAge": ""}, None),
        ({"PatientAge": "old"}, None),
    ],
)
def test_age(attributes: dict[str, str], years: float | None) -> None:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    assert age_years(ds) == (pytest.approx(years) if years is not None else None)


def test_an_upper_age_includes_its_last_year(card: ModelCard) -> None:
    limited = replace(card, intended_use=replace(card.intended_use, minimum_age_years=None, maximum_age_years=17))
    assert check(limited, film(PatientAge="017Y")).within
    assert not check(limited, film(PatientAge="018Y")).within
