"""Conditions pick series; nothing that is not an expression gets in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.config import Route
from dicom_node.errors import ConfigurationError
from dicom_node.routing import SYMBOLS, ConditionError, RoutedInstance, check_routes, holds, match, series_symbols


def route(when="true", **changes):
    return Route(**{"name": "r", "model": "m", "destinations": ("pacs",), "when": when, **changes})


def one(instance_id=1, series="1.1", **attributes):
    return RoutedInstance(
        instance_id=instance_id, series_uid=series, attributes=attributes, calling_ae="CR1", called_ae="CAMNODE"
    )


CHEST = one(Modality="CR", BodyPartExamined="CHEST", ImageType=["ORIGINAL", "PRIMARY"], Rows=2000, PatientAge="045Y")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ('Modality in ["CR", "DX"] and BodyPartExamined == "CHEST"', True),
        ('Modality == "CT"', False),
        ('"PRIMARY" in ImageType', True),
        ("Rows >= 1000", True),
        ("Columns >= 1000", False),
        ("Columns < 1000", False),
        ("PatientAgeYears >= 18", True),
        ('StudyDescription =~~ "(?i)thorax"', False),
        ('CallingAETitle == "CR1" and CalledAETitle == "CAMNODE"', True),
        ('ModalitiesInStudy == ["CR"] and NumberOfInstances == 1', True),
        ("NumberOfStudyRelatedSeries == 1", True),
        ("false", False),
    ],
)
def test_a_condition_sees_the_series(when, expected):
    assert bool(match([route(when)], [CHEST]).matches) is expected


def test_a_route_gets_the_instances_of_the_series_that_match():
    lateral = one(2, "1.2", Modality="CR", ViewPosition="LL")
    dose = one(3, "1.3", Modality="SR")
    (found,) = match([route('Modality == "CR"')], [CHEST, lateral, dose]).matches
    assert found.instance_ids == (1, 2)
    assert "2 of 3 series" in found.why


def test_two_routes_take_one_study_independently():
    found = match(
        [route("true"), route('Modality == "CR"', name="s"), route("true", name="off", enabled=False)], [CHEST]
    ).matches
    assert [each.route.name for each in found] == ["r", "s"]


def test_stat_by_route_or_by_condition():
    urgent = one(1, "1.1", Modality="CR", RequestedProcedurePriority="STAT")
    by_condition = route(stat_when='RequestedProcedurePriority == "STAT"')
    assert [match([each], [urgent]).matches[0].stat for each in (by_condition, route(priority="stat"), route())] == [
        True,
        True,
        False,
    ]
    assert not match([by_condition], [CHEST]).matches[0].stat


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ('Modlity == "CR"', "did you mean Modality"),
        ("Rows >", "syntax"),
        ('Modality = "CR"', "syntax"),
        ('Rows > "big"', "mismatch"),
        ("Modality > 3", "mismatch"),
        ('__import__("os").system("true")', "unknown name"),
        ('Modality.__class__ == "x"', "syntax|attribute|resol|__class__"),
        ("open('/etc/passwd')", "unknown name"),
    ],
)
def test_what_is_no_sound_condition_is_refused_before_it_is_used(when, words):
    with pytest.raises(ConfigurationError, match=words):
        check_routes([route(when)])


def test_all_unsound_conditions_are_told_at_once():
    with pytest.raises(ConfigurationError) as error:
        check_routes([route("Rows >"), route("true", name="s", stat_when="Nope == 1")])
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (("cam", "grad-cam", "cam"), r"r\.methods: the method 'cam' is named twice"),
        (("score-cam:delta", "cam", "score-cam"), r"named twice \(as 'score-cam:delta', 'score-cam'\)"),
    ],
)
def test_a_method_named_twice_would_make_two_objects_of_one_identity(methods, words):
    with pytest.raises(ConfigurationError, match=words):
        check_routes([route(methods=methods)])


def test_variants_of_a_method_are_several_methods():
    check_routes([route(methods=("score-cam", "score-cam:paper", "no-such", "no-such:odd"))])


def test_a_number_that_is_absent_makes_no_comparison_hold():
    bare = series_symbols((one(),), (one(),))
    assert not holds("PatientAgeYears >= 18", bare)
    assert not holds("PatientAgeYears < 18", bare)
    assert holds("PatientAgeYears == null", bare)
    with pytest.raises(ConditionError):
        holds("Modality > 3", bare)


@pytest.mark.parametrize(
    ("age", "years"), [("045Y", 45), ("006M", 0.5), ("052W", 0.996), ("010D", 0.027), ("45", None)]
)
def test_age_strings(age, years):
    found = series_symbols((one(PatientAge=age),), ())["PatientAgeYears"]
    assert found == (pytest.approx(years, abs=0.01) if years is not None else None)


@pytest.mark.parametrize(
    "when",
    ['ImageType[0] == "ORIGINAL"', "Rows / Columns > 1", "StudyDescription.to_flt > 3"],
)
def test_a_condition_that_fails_on_a_series_does_not_hold_and_says_so(when):
    odd = one(Modality="CR", Rows=0, Columns=0, SeriesNumber=1, PatientAge="045Y", StudyDescription="thorax")
    found = match([route(when), route("true", name="other")], [odd])
    assert [each.route.name for each in found.matches] == ["other"]
    assert "route r" in found.problems[0] or not found.problems


CONDITIONS = (
    'Modality == "CR" and Rows > 3 or "X" in ImageType or PatientAgeYears < 3',
    'ImageType[0] == "ORIGINAL"',
    "Rows / Columns > 1",
    "StudyDescription.to_flt > 3",
)


@given(
    st.dictionaries(
        st.sampled_from(sorted(SYMBOLS)), st.one_of(st.text(), st.integers(), st.lists(st.text()), st.none())
    ),
    st.sampled_from(CONDITIONS),
)
def test_no_attribute_value_breaks_a_condition(attributes, condition):
    found = match([route(condition), route("true", name="other")], [one(**attributes)])
    assert found.matches[-1].route.name == "other"
