"""The measures of several methods over a set of images, each with its interval; draws no picture and reads no file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import combinations

from cam_core.quality.bootstrap import DRAWS, LEVEL, Interval, interval, paired_interval
from cam_core.quality.case import Case, Settings, family_figure, method_figures, pair_figures
from cam_core.quality.catalogue import MEASURES, measure_named
from cam_core.quality.measure import Figure
from cam_core.quality.sanity import Verdict, pass_line, verdict

ALL_FINDINGS = "all"
FAMILIES = "independent families"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measure of one method, or of a pair of methods, over one finding or all.

    Attributes
    ----------
    measure, method, finding : str
    value, low, high : float
        Mean and interval; NaN where there are none.
    n, missing, patients : int
        Images with a number, images without, patients with one.
    level : float, 0..1
    draws, seed : int
        Of the bootstrap.
    reason : str or None
        The commonest reason for a missing number.
    """

    measure: str
    method: str
    finding: str
    value: float
    low: float
    high: float
    n: int
    missing: int
    patients: int
    level: float
    draws: int
    seed: int
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One figure and where it was taken."""

    case: str
    patient: str
    finding: str
    method: str
    figure: Figure


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was measured, as numbers.

    Attributes
    ----------
    rows : tuple of Row
        In the order of the catalogue, then of the methods, then of the findings.
    taken : tuple of Taken
        The single figures under the means.
    verdicts : mapping of method to Verdict
        Under weight randomisation, where cascades were given.
    settings : Settings
    """

    rows: tuple[Row, ...]
    taken: tuple[Taken, ...]
    verdicts: Mapping[str, Verdict]
    settings: Settings

    def to_rows(self) -> list[dict[str, str | float | int | None]]:
        """The rows as plain mappings, with each measure's title and which way is good."""
        return [
            {**asdict(row), "title": MEASURES[row.measure].title, "better": MEASURES[row.measure].better}
            for row in self.rows
        ]


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How the intervals are drawn."""

    draws: int = DRAWS
    level: float = LEVEL
    seed: int = 0


def assess(
    cases: Sequence[Case],
    methods: Sequence[str],
    *,
    families: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    bootstrap: Bootstrap | None = None,
) -> Report:
    """Take every measure that the cases allow, for every method, and the methods' agreement in pairs.

    Parameters
    ----------
    cases : sequence of Case
    methods : sequence of str
        Each must have a map in every case. Controls (`cam_core.quality.controls`) go in as methods.
    families : mapping of method to family, optional
        The first method of each family stands for it in the disagreement of families; controls belong to none.
    """
    chosen, draw = settings or Settings(), bootstrap or Bootstrap()
    if not cases:
        raise ValueError("there are no cases to assess")
    for case in cases:
        absent = [method for method in methods if method not in case.maps]
        if absent:
            raise ValueError(f"case {case.name!r} has no map of {', '.join(absent)}")
    stand = _stand_ins(methods, families or {})
    taken = tuple(one for case in cases for one in _taken(case, methods, stand, chosen))
    verdicts, lines = _sanity(cases, methods, chosen.seed)
    return Report(rows=(*_rows(taken, draw), *lines), taken=taken, verdicts=verdicts, settings=chosen)


def _stand_ins(methods: Sequence[str], families: Mapping[str, str]) -> list[str]:
    """The first method of each family."""
    first: dict[str, str] = {}
    for method in methods:
        if method in families:
            first.setdefault(families[method], method)
    return list(first.values())


def _taken(case: Case, methods: Sequence[str], stand: Sequence[str], settings: Settings) -> list[Taken]:
    def of(method: str, figures: Sequence[Figure]) -> list[Taken]:
        return [
            Taken(case=case.name, patient=case.patient, finding=case.finding, method=method, figure=one)
            for one in figures
        ]

    found = [one for method in methods for one in of(method, method_figures(case, method, settings))]
    for first, second in combinations(methods, 2):
        found.extend(of(f"{first} / {second}", pair_figures(case, first, second, settings)))
    if len(stand) > 1:
        found.extend(of(FAMILIES, [family_figure(case, stand)]))
    return found


def _rows(taken: Sequence[Taken], draw: Bootstrap) -> list[Row]:
    """Means with intervals, of each finding and of all together where there are several."""
    methods = list(dict.fromkeys(one.method for one in taken))
    findings = list(dict.fromkeys(one.finding for one in taken))
    groups: dict[tuple[str, str, str], list[Taken]] = {}
    for one in taken:
        for finding in {one.finding, ALL_FINDINGS} if len(findings) > 1 else {one.finding}:
            groups.setdefault((one.figure.measure, one.method, finding), []).append(one)
    order = list(MEASURES)
    places = [ALL_FINDINGS, *findings]
    keys = sorted(groups, key=lambda key: (order.index(key[0]), methods.index(key[1]), places.index(key[2])))
    return [_row(key, groups[key], draw) for key in keys]


def _row(key: tuple[str, str, str], group: Sequence[Taken], draw: Bootstrap) -> Row:
    found = interval(
        [one.figure.value for one in group],
        [one.patient for one in group],
        draws=draw.draws,
        level=draw.level,
        seed=draw.seed,
    )
    reasons = Counter(one.figure.reason for one in group if one.figure.reason)
    reason = reasons.most_common(1)[0][0] if reasons else None
    measured = {one.name: getattr(found, one.name) for one in fields(found)}
    return Row(measure=key[0], method=key[1], finding=key[2], reason=reason, **measured)


def _sanity(cases: Sequence[Case], methods: Sequence[str], seed: int) -> tuple[dict[str, Verdict], list[Row]]:
    """The verdict of each method with cascades, and its pass line, which is a mean over pairs and has no interval."""
    verdicts: dict[str, Verdict] = {}
    rows = []
    for method in methods:
        cascades = [case.cascades[method] for case in cases if method in case.cascades]
        if not cascades:
            continue
        line = pass_line([case.maps[method] for case in cases], [case.name for case in cases], seed=seed)
        verdicts[method] = verdict(cascades, line)
        rows.append(_line_row(method, line, cases, seed))
    return verdicts, rows


def _line_row(method: str, line: Figure, cases: Sequence[Case], seed: int) -> Row:
    return Row(
        measure="pass-line",
        method=method,
        finding=ALL_FINDINGS,
        value=line.value,
        low=math.nan,
        high=math.nan,
        n=len(cases) if line.reason is None else 0,
        missing=0 if line.reason is None else len(cases),
        patients=len({case.patient for case in cases}),
        level=LEVEL,
        draws=0,
        seed=seed,
        reason=line.reason,
    )


def compared(
    report: Report,
    measure: str,
    first: str,
    second: str,
    *,
    finding: str | None = None,
    bootstrap: Bootstrap | None = None,
) -> Interval:
    """Mean difference of two methods in one measure, image by image, with its interval.

    Parameters
    ----------
    measure : str
    first, second : str
        Methods; the difference is first minus second.
    finding : str, optional
        Only images of it.
    """
    measure_named(measure)
    draw = bootstrap or Bootstrap()
    chosen = {
        method: {
            (one.case, one.finding): one
            for one in report.taken
            if one.method == method and one.figure.measure == measure and finding in (None, one.finding)
        }
        for method in (first, second)
    }
    both = [key for key in chosen[first] if key in chosen[second]]
    return paired_interval(
        [chosen[first][key].figure.value for key in both],
        [chosen[second][key].figure.value for key in both],
        [chosen[first][key].patient for key in both],
        draws=draw.draws,
        level=draw.level,
        seed=draw.seed,
    )


def to_markdown(report: Report) -> str:
    """The report as tables, a measure each, with definitions, settings and the verdicts of weight randomisation."""
    parts = ["# Quality of saliency maps", ""]
    parts += [f"- {name}: {value}" for name, value in asdict(report.settings).items()]
    parts.append("")
    for name in dict.fromkeys(row.measure for row in report.rows):
        measure = MEASURES[name]
        low, high = measure.range
        parts += [
            f"## {measure.title}",
            "",
            f"{measure.definition}. {measure.source}. Range {low:g} to {high:g}, better: {measure.better}. "
            f"No number where: {measure.undefined}.",
            "",
            "| method | finding | n | missing | patients | value | interval | seed |",
            "|---|---|---:|---:|---:|---:|---|---:|",
        ]
        parts += [_line(row) for row in report.rows if row.measure == name]
        parts.append("")
    parts += [_verdict_line(method, found) for method, found in report.verdicts.items()]
    return "\n".join(parts).rstrip() + "\n"


def _line(row: Row) -> str:
    value = "–" if math.isnan(row.value) else f"{row.value:.3f}"
    ends = "–" if math.isnan(row.low) else f"{row.low:.3f} to {row.high:.3f} ({100 * row.level:g} %)"
    missing = f"{row.missing} ({row.reason})" if row.reason else str(row.missing)
    return f"| {row.method} | {row.finding} | {row.n} | {missing} | {row.patients} | {value} | {ends} | {row.seed} |"


def _verdict_line(method: str, found: Verdict) -> str:
    outcome = {True: "passes", False: "does not pass", None: "can't be judged under"}[found.passed]
    steps = ", ".join(f"{layer} {figure.value:.3f}" for layer, figure in zip(found.layers, found.ssim, strict=True))
    return f"- {method} {outcome} weight randomisation: pass line {found.pass_line.value:.3f}; SSIM by layer: {steps}"
