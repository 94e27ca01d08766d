"""Which series of a complete study go to which route: a pure function of attributes; knows no database and no pixels.

A route's condition is an expression of the `rule-engine` library (https://pypi.org/project/rule-engine): typed, without
side effects, and with no way to run code. It sees one series at a time, through the DICOM keywords in `SYMBOLS`.
A text that a study does not carry is empty, a list is empty, a number is null, and a condition that compares a null
number does not hold (`PatientAgeYears >= 18` leaves out a study without an age).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import rule_engine

from cam_core.errors import CamCoreError
from dicom_node.config import Route
from dicom_node.errors import ConfigurationError, DicomNodeError

_TEXT = rule_engine.DataType.STRING
_NUMBER = rule_engine.DataType.FLOAT
_TEXTS = rule_engine.DataType.ARRAY(rule_engine.DataType.STRING)

#: What a condition may name, by DICOM keyword, plus what the node knows about the study as a whole.
SYMBOLS: Mapping[str, Any] = {
    "Modality": _TEXT,
    "BodyPartExamined": _TEXT,
    "ViewPosition": _TEXT,
    "Laterality": _TEXT,
    "StudyDescription": _TEXT,
    "SeriesDescription": _TEXT,
    "ProtocolName": _TEXT,
    "Manufacturer": _TEXT,
    "ManufacturerModelName": _TEXT,
    "StationName": _TEXT,
    "InstitutionName": _TEXT,
    "PatientSex": _TEXT,
    "PatientAgeYears": _NUMBER,
    "PresentationIntentType": _TEXT,
    "PhotometricInterpretation": _TEXT,
    "RequestedProcedurePriority": _TEXT,
    "SOPClassUID": _TEXT,
    "ImageType": _TEXTS,
    "SeriesNumber": _NUMBER,
    "Rows": _NUMBER,
    "Columns": _NUMBER,
    "NumberOfInstances": _NUMBER,
    "CallingAETitle": _TEXT,
    "CalledAETitle": _TEXT,
    "ModalitiesInStudy": _TEXTS,
    "NumberOfStudyRelatedSeries": _NUMBER,
    "NumberOfStudyRelatedInstances": _NUMBER,
}
_DEFAULTS: Mapping[Any, Any] = {_TEXT: "", _NUMBER: None, _TEXTS: []}
_EXAMPLE = {name: {_TEXT: "", _NUMBER: 1.0, _TEXTS: [""]}[kind] for name, kind in SYMBOLS.items()}


class ConditionError(DicomNodeError):
    """A condition that does not hold as an expression: syntax, unknown name or wrong type."""

    def __init__(self, condition: str, reason: str) -> None:
        super().__init__(f"condition {condition!r}: {reason}")
        self.condition = condition
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class RoutedInstance:
    """What routing sees of one instance: its attributes by DICOM keyword, as read when it was received."""

    instance_id: int
    series_uid: str
    attributes: Mapping[str, Any]
    calling_ae: str
    called_ae: str


@dataclass(frozen=True, kw_only=True)
class Match:
    """A route that takes (part of) a study: which instances, how urgently, and why."""

    route: Route
    instance_ids: tuple[int, ...]
    stat: bool
    why: str


def check_routes(routes: Iterable[Route]) -> None:
    """Compile every condition, compare the methods; raises `ConfigurationError` with all that is wrong."""
    problems = []
    for route in routes:
        for key, condition in (("when", route.when), ("stat_when", route.stat_when)):
            try:
                _evaluate(condition, _EXAMPLE)
            except ConditionError as error:
                problems.append(f"routes.{route.name}.{key}: {error.reason}")
        problems += [f"routes.{route.name}.methods: {words}" for words in methods_named_twice(route.methods)]
    if problems:
        raise ConfigurationError(problems)


def methods_named_twice(names: Iterable[str]) -> Iterator[str]:
    """What is wrong with methods that are named more than once, also by a name with and without the variant.

    Two pictures of one finding by one method would be two objects of one identity. Unknown names are left to others.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(name.partition(":")[0], []).append(name)
    for alike in families.values():
        meant: dict[str, list[str]] = {}
        for name in alike:
            meant.setdefault(name if len(set(alike)) == 1 else _in_full(name), []).append(name)
        for full_name, given in meant.items():
            if len(given) > 1:
                yield f"the method {full_name!r} is named twice (as {', '.join(map(repr, given))})"


def _in_full(name: str) -> str:
    from cam_core.method import method_named  # noqa: PLC0415 - methods are loaded only where names may mean the same

    try:
        return method_named(name).full_name
    except CamCoreError:
        return name


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The routes that take a study, and which conditions could not be evaluated for it (these do not hold)."""

    matches: tuple[Match, ...]
    problems: tuple[str, ...]


def match(routes: Sequence[Route], instances: Sequence[RoutedInstance]) -> Routing:
    """The enabled routes that take this study, each with the instances of the series that its condition picks.

    A condition that fails on a series' values (an index out of its list, a division by zero) does not hold there: one
    odd study must not keep others, or itself, from being answered.
    """
    series: dict[str, list[RoutedInstance]] = {}
    for one in instances:
        series.setdefault(one.series_uid, []).append(one)
    views = {uid: series_symbols(members, instances) for uid, members in series.items()}
    found: list[Match] = []
    problems: list[str] = []

    def does_hold(route: Route, condition: str, uid: str) -> bool:
        try:
            return holds(condition, views[uid])
        except ConditionError as error:
            problems.append(f"route {route.name}: {error}")
            return False

    for route in (route for route in routes if route.enabled):
        chosen = [uid for uid in views if does_hold(route, route.when, uid)]
        if chosen:
            stat = route.priority == "stat" or any(does_hold(route, route.stat_when, uid) for uid in chosen)
            found.append(_match(route, chosen, series, stat=stat))
    return Routing(matches=tuple(found), problems=tuple(dict.fromkeys(problems)))


def _match(route: Route, chosen: list[str], series: Mapping[str, list[RoutedInstance]], *, stat: bool) -> Match:
    identifiers = tuple(sorted(one.instance_id for uid in chosen for one in series[uid]))
    why = f"{len(chosen)} of {len(series)} series match: {route.when}"
    return Match(route=route, instance_ids=identifiers, stat=stat, why=why)


def holds(condition: str, symbols: Mapping[str, Any]) -> bool:
    """Whether a condition holds for one series. Raises `ConditionError`."""
    try:
        return _evaluate(condition, symbols)
    except ConditionError:
        if None in symbols.values() and _evaluate(condition, _EXAMPLE) is not None:
            return False  # sound with numbers in place of the nulls: it compares one that this study does not carry
        raise


def _evaluate(condition: str, symbols: Mapping[str, Any]) -> bool:
    rule = _compiled(condition)
    try:
        return bool(rule.matches(dict(symbols)))
    except (rule_engine.errors.EngineError, TypeError, ValueError, ArithmeticError) as error:
        raise ConditionError(condition, _reason(error)) from error


@cache
def _compiled(condition: str) -> rule_engine.Rule:
    context = rule_engine.Context(type_resolver=rule_engine.type_resolver_from_dict(dict(SYMBOLS)))
    try:
        return rule_engine.Rule(condition, context=context)
    except rule_engine.errors.EngineError as error:
        raise ConditionError(condition, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, rule_engine.errors.SymbolResolutionError):
        hint = f"; did you mean {error.suggestion}?" if getattr(error, "suggestion", None) else ""
        return f"unknown name {error.symbol_name!r}{hint}"
    return str(getattr(error, "message", None) or error)


def series_symbols(members: Sequence[RoutedInstance], study: Sequence[RoutedInstance]) -> dict[str, Any]:
    """The symbols of one series; an attribute is taken from the first instance that carries it."""
    symbols = {name: _first(members, name, kind) for name, kind in SYMBOLS.items()}
    symbols["PatientAgeYears"] = _age_in_years(_first(members, "PatientAge", _TEXT))
    symbols["CallingAETitle"] = members[0].calling_ae if members else ""
    symbols["CalledAETitle"] = members[0].called_ae if members else ""
    symbols["ModalitiesInStudy"] = sorted({str(one.attributes.get("Modality", "")) for one in study})
    symbols["NumberOfInstances"] = float(len(members))
    symbols["NumberOfStudyRelatedInstances"] = float(len(study))
    symbols["NumberOfStudyRelatedSeries"] = float(len({one.series_uid for one in study}))
    return symbols


def _first(members: Sequence[RoutedInstance], name: str, kind: Any) -> Any:
    for one in members:
        value = one.attributes.get(name)
        if value not in (None, "", []):
            return _as(value, kind)
    return _DEFAULTS[kind]


def _as(value: Any, kind: Any) -> Any:
    if kind is _TEXTS:
        return [str(part) for part in value] if isinstance(value, list) else [str(value)]
    single = value[0] if isinstance(value, list) else value
    if kind is _NUMBER:
        return float(single) if isinstance(single, int | float) else None
    return str(single)


def _age_in_years(age: str) -> float | None:
    """Age String (PS3.5 table 6.2-1): 045Y, 006M, 002W, 010D."""
    units = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}
    if len(age) == 4 and age[:3].isdigit() and age[3] in units:
        return int(age[:3]) * units[age[3]]
    return None
