"""UIDs are valid, stable and as different as what they are made from; codes are those of the standard."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import ModuleType
from uuid import RFC_4122, UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import UID

from cam_core.classifier import Capability
from cam_core.method import known_methods, method_named
from dicom_node.provenance import (
    CONCEPTS,
    SERIES_NUMBERS,
    ClinicalStatus,
    Reason,
    derived_uid,
    presence_concept,
    processing_summary,
    result_uid,
    series_uid,
    tracking_uid,
    visual_explanation,
)


@given(parts=st.lists(st.text(), max_size=4))
def test_a_derived_uid_is_a_valid_version_8_uuid(parts: list[str]) -> None:
    value = derived_uid(*parts)
    assert UID(value).is_valid
    assert len(value) <= 64
    uuid = UUID(int=int(value.removeprefix("2.25.")))
    assert (uuid.version, uuid.variant) == (8, RFC_4122)
    assert derived_uid(*parts) == value


def test_division_and_order_of_the_parts_matter() -> None:
    made = [derived_uid(*parts) for parts in (("ab", "c"), ("a", "bc"), ("c", "ab"), ("abc",), ("ab", "c", ""))]
    assert len(set(made)) == len(made)


def test_a_known_value_never_changes() -> None:
    assert derived_uid("a", "b") == "2.25.80570676777572633702511940372177902698"


def study() -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID = "2.25.5"
    return ds


@pytest.mark.parametrize(
    "change",
    [
        {"study_uid": "2.25.6"},
        {"route": "other"},
        {"model_sha256": "0" * 64},
        {"card_digest": "0" * 64},
        {"pipeline_version": "9"},
        {"settings_digest": "9"},
        {"source_digest": "9"},
    ],
)
def test_whatever_decides_the_content_decides_the_uid(change: dict[str, str], results: ModuleType) -> None:
    first = results.provenance(study())
    second = replace(first, **change)
    assert series_uid(first, "secondary-capture") != series_uid(second, "secondary-capture")
    assert result_uid(first, "summary-report") != result_uid(second, "summary-report")
    assert result_uid(first, "summary-report") == result_uid(results.provenance(study()), "summary-report")


def test_which_job_it_was_does_not_decide_the_uid(results: ModuleType) -> None:
    first = results.provenance(study())
    assert result_uid(first, "summary-report") == result_uid(replace(first, job_id="other"), "summary-report")


def test_kinds_and_facts_tell_results_apart(results: ModuleType) -> None:
    made_by = results.provenance(study())
    uids = {series_uid(made_by, kind) for kind in SERIES_NUMBERS}
    uids |= {result_uid(made_by, kind, *facts) for kind in SERIES_NUMBERS for facts in ((), ("a",), ("a", "b"))}
    assert len(uids) == 4 * len(SERIES_NUMBERS)
    with pytest.raises(KeyError):
        series_uid(made_by, "heatmap")
    assert all(number > 9000 for number in SERIES_NUMBERS.values())


def test_a_time_without_zone_is_refused(results: ModuleType) -> None:
    with pytest.raises(ValueError, match="time zone"):
        results.provenance(study(), created=datetime(2026, 1, 1))


@pytest.mark.parametrize("key", sorted(set(CONCEPTS) - {"pixels"}))
def test_every_concept_is_in_the_published_tables(key: str) -> None:
    concept = CONCEPTS[key]
    published = {
        (code, meaning)
        for entries in concepts[concept.scheme_designator].values()
        for code, (meaning, _) in entries.items()
    }
    assert (concept.value, concept.meaning) in published


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("cam", "130402"),
        ("score-cam", "130402"),
        ("score-cam:paper", "130402"),
        ("grad-cam", "130403"),
        ("grad-cam++", "130403"),
        ("layercam", "130403"),
        ("integrated-gradients", "130404"),
    ],
)
def test_visual_explanation_by_method(method: str, code: str) -> None:
    assert visual_explanation(method).value == code


@pytest.mark.parametrize("name", known_methods())
def test_every_method_is_coded_by_what_it_weighs(name: str) -> None:
    method = method_named(name)
    if Capability.GRADIENTS in method.needs:
        expected = "130403"
    else:
        expected = "130402" if Capability.ACTIVATIONS in method.needs else "130404"
    assert visual_explanation(name).value == expected


@pytest.mark.parametrize(
    ("status", "any_finding", "summary", "outcome", "reason"),
    [
        (ClinicalStatus.PROCESSED, True, "111242", "111222", None),
        (ClinicalStatus.PROCESSED, False, "111241", "111222", None),
        (ClinicalStatus.EXPLANATION_FAILED, True, "111244", "111223", None),
        (ClinicalStatus.EXPLANATION_FAILED, False, "111243", "111223", None),
        (ClinicalStatus.PARTLY_PROCESSED, True, "111244", "111223", None),
        (ClinicalStatus.PARTLY_PROCESSED, False, "111243", "111223", None),
        (ClinicalStatus.NOT_INDICATED, False, "111245", "111225", "110522"),
        (ClinicalStatus.UNUSABLE, False, "111245", "111225", "111220"),
        (ClinicalStatus.INCOMPLETE, False, "111245", "111225", "110523"),
        (ClinicalStatus.UNSUPPORTED, False, "111245", "111225", "110522"),
        (ClinicalStatus.FAILED, False, "111245", "111224", "110501"),
    ],
)
def test_how_each_status_is_coded(
    status: ClinicalStatus, any_finding: bool, summary: str, outcome: str, reason: str | None
) -> None:
    assert processing_summary(status, any_finding).value == summary
    assert status.outcome.value == outcome
    assert (CONCEPTS[status.default_reason].value if status.default_reason else None) == reason


def test_presence_is_decided_at_the_threshold() -> None:
    assert presence_concept(0.5, 0.5) == CONCEPTS["present"]
    assert presence_concept(0.4999, 0.5) == CONCEPTS["absent"]
    assert presence_concept(float("nan"), 0.5) == CONCEPTS["undetermined"]


def test_tracking_is_stable_over_studies_and_differs_between_groups() -> None:
    nodule = CONCEPTS["abnormal structure"]
    first = tracking_uid(("site", "7"), nodule, "cam", "1", "1")
    assert first == tracking_uid(("site", "7"), nodule, "cam", "1", "1")
    others = {
        tracking_uid(("site", "8"), nodule, "cam", "1", "1"),
        tracking_uid(("else", "7"), nodule, "cam", "1", "1"),
        tracking_uid(("site", "7"), CONCEPTS["area"], "cam", "1", "1"),
        tracking_uid(("site", "7"), nodule, "cam", "1", "2"),
    }
    assert len(others | {first}) == 5


def test_an_unknown_reason_code_is_refused() -> None:
    with pytest.raises(KeyError):
        Reason(words="x", kind="x", concept="no such concept")
