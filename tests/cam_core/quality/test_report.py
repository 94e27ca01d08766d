"""A report over a small set whose figures are known one by one."""

import math

import numpy as np
import pytest

from cam_core.quality.artefacts import Artefacts, border_mask
from cam_core.quality.bootstrap import interval, paired_interval
from cam_core.quality.case import Case, Settings
from cam_core.quality.catalogue import MEASURES
from cam_core.quality.controls import centre_gaussian, random_map
from cam_core.quality.faithfulness import Removal
from cam_core.quality.localisation import energy_inside
from cam_core.quality.query import Query
from cam_core.quality.report import Bootstrap, assess, compared, to_markdown
from cam_core.quality.sanity import cascade

GRID = (16, 16)
QUICK = Settings(removal=Removal(steps=4), road_shares=(0.3, 0.6))
DRAW = Bootstrap(draws=200, seed=9)


def score(batch):
    """Two labels: how bright the upper and the lower half is."""
    halves = batch[:, 0].reshape(len(batch), 2, 8, 16).mean(axis=(2, 3))
    return 1 / (1 + np.exp(-6 * (halves - 0.5)))


def made(number):
    rng = np.random.default_rng(number)
    label = number % 2
    mask = np.zeros(GRID, dtype=bool)
    row, column = rng.integers(1, 4) + 8 * label, rng.integers(1, 10)
    mask[row : row + 3, column : column + 4] = True
    image = (0.3 * rng.random((1, *GRID)) + 0.7 * mask).astype(np.float32)
    good = (mask + 0.1 * rng.random(GRID)).astype(np.float32)
    return Case(
        name=f"film {number}",
        patient=f"patient {number // 2}",
        finding=("upper", "lower")[label],
        query=Query(input=image, score=score, label=label),
        maps={"good": good, "random": random_map(GRID, number), "blank": np.zeros(GRID, np.float32)},
        mask=mask if number != 3 else None,
        places=Artefacts(outside=border_mask(GRID), lettering=np.zeros(GRID, bool), border=border_mask(GRID)),
        other_maps={"good": good[None, ::-1]},
        repeats={"good": good[None] + 0.1 * rng.random((1, *GRID))},
        explain={"good": lambda image: image[0]},
        cascades={"good": cascade(good, [("head", random_map(GRID, 50 + number)), ("stem", 1 - good)])},
    )


@pytest.fixture(scope="module")
def cases():
    return [made(number) for number in range(8)]


@pytest.fixture(scope="module")
def report(cases):
    families = {"good": "one", "random": "two"}
    return assess(cases, ["good", "random", "blank"], families=families, settings=QUICK, bootstrap=DRAW)


def row(report, measure, method, finding="all"):
    (found,) = (one for one in report.rows if (one.measure, one.method, one.finding) == (measure, method, finding))
    return found


def test_rows_are_means_of_the_single_figures(report, cases):
    judged = [case for case in cases if case.mask is not None]
    values = [energy_inside(case.maps["good"], case.mask).value for case in judged]
    found = row(report, "energy-inside", "good")
    expected = interval(values, [case.patient for case in judged], draws=200, seed=9)
    assert (found.value, found.low, found.high) == (expected.value, expected.low, expected.high)
    assert (found.n, found.missing, found.patients, found.seed, found.draws) == (7, 0, 4, 9, 200)
    upper = [one for one, case in zip(values, judged, strict=True) if case.finding == "upper"]
    assert row(report, "energy-inside", "good", "upper").value == pytest.approx(np.mean(upper))


def test_every_measure_is_there_for_the_method_that_has_everything(report):
    there = {one.measure for one in report.rows}
    assert there == set(MEASURES)


def test_a_blank_map_is_missing_with_its_reason_and_no_number(report):
    for measure, reason in (("deletion", "the map is constant"), ("gini", "the map has no positive value")):
        found = row(report, measure, "blank")
        assert math.isnan(found.value)
        assert (found.n, found.missing, found.reason) == (0, 8, reason)


def test_the_good_map_beats_chance(report):
    assert row(report, "auprc", "good").low > row(report, "auprc", "random").high
    assert row(report, "pointing", "good").value == 1
    difference = compared(report, "road-combined", "good", "random", bootstrap=DRAW)
    assert difference.low > 0
    assert difference.n == 8
    upper = compared(report, "energy-inside", "good", "random", finding="upper")
    values = [
        (
            energy_inside(case.maps["good"], case.mask).value,
            energy_inside(case.maps["random"], case.mask).value,
            case.patient,
        )
        for case in map(made, (0, 2, 4, 6))
    ]
    assert upper == paired_interval(*zip(*values, strict=True))


def test_agreement_is_of_pairs_and_disagreement_of_families(report):
    pairs = {one.method for one in report.rows if one.measure == "spearman"}
    assert pairs == {"good / random", "good / blank", "random / blank"}
    assert row(report, "disagreement", "independent families").n == 8


def test_the_verdict_of_weight_randomisation(report):
    found = report.verdicts["good"]
    assert found.layers == ("head", "stem")
    assert found.passed is (found.ssim[-1].value < found.pass_line.value)
    assert row(report, "pass-line", "good").value == found.pass_line.value


def test_a_report_is_the_same_every_time(cases, report):
    again = assess(
        cases,
        ["good", "random", "blank"],
        families={"good": "one", "random": "two"},
        settings=QUICK,
        bootstrap=DRAW,
    )
    assert repr(again.rows) == repr(report.rows)


def test_plain_rows_say_what_is_good(report):
    plain = report.to_rows()
    assert len(plain) == len(report.rows)
    assert {one["better"] for one in plain} == {"higher", "lower", "neither"}
    assert all(one["title"] for one in plain)


def test_markdown_tells_definition_settings_and_missing_numbers(report):
    text = to_markdown(report)
    assert "'baseline': 'blur'" in text
    assert "| good | all | 8 | 0 | 4 |" in text
    assert "8 (the map is constant)" in text
    assert MEASURES["auprc"].definition in text
    assert "nan" not in text
    assert "- good passes weight randomisation" in text or "- good does not pass weight randomisation" in text


def test_what_can_t_be_assessed_is_refused(cases):
    with pytest.raises(ValueError, match="no cases"):
        assess([], ["good"])
    with pytest.raises(ValueError, match="no map of eigen"):
        assess(cases, ["good", "eigen"])
    with pytest.raises(ValueError, match="the model's grid"):
        Case(
            name="film",
            patient="p",
            finding="upper",
            query=cases[0].query,
            maps={"good": np.zeros((3, 3), np.float32)},
        )


def test_controls():
    assert (random_map((3, 4), 1) == random_map((3, 4), 1)).all()
    gaussian = centre_gaussian((5, 6, 7))
    assert np.unravel_index(gaussian.argmax(), gaussian.shape)[0] == 2
    assert gaussian == pytest.approx(gaussian[::-1, ::-1, ::-1])
