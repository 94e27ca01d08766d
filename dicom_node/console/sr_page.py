"""A structured report as one self-contained web page; every text of it is escaped, none is interpreted or fetched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment
from pydicom.dataset import Dataset
from pydicom.uid import UID

DEEPEST: Final = 16
DERIVATION: Final = "Derivation"
"""What a number is of others (mean, maximum): shown with its name, or a reader would take it for the thing itself."""

IDENTITY: Final = (
    ("Patient", "PatientName"),
    ("ID", "PatientID"),
    ("Born", "PatientBirthDate"),
    ("Sex", "PatientSex"),
    ("Study", "StudyDescription"),
    ("Study date", "StudyDate"),
    ("Accession", "AccessionNumber"),
    ("Reported", "ContentDate"),
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One content item as shown: what it is called, what it says, its type and UID, and the lines below it."""

    name: str
    value: str
    uid: str
    kind: str
    lines: tuple[Line, ...]


_PAGE: Final = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
body { font: 16px/1.45 system-ui, sans-serif; color: #16202a; background: #eef1f4; margin: 0; }
main { max-width: 52rem; margin: 1.5rem auto; background: #fff; padding: 1.25rem 2rem 2rem; border: 1px solid #cfd6dd; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; border-bottom: 2px solid #35506b; padding-bottom: .15rem; }
table { border-collapse: collapse; margin: .6rem 0; }
td, th { text-align: left; vertical-align: top; padding: .1rem 1.2rem .1rem 0; }
th { font-weight: 600; color: #44525f; white-space: nowrap; }
.state { color: #7a4b00; font-weight: 600; margin: 0; }
.conclusion { font-size: 1.15rem; font-weight: 650; background: #f3f6f9; border-left: 5px solid #35506b;
  padding: .6rem .8rem; margin: .3rem 0; }
ul { list-style: none; margin: 0; padding: 0 0 0 1.1rem; }
main > ul { padding: 0; }
li { margin: .2rem 0; overflow-wrap: anywhere; }
.name { color: #44525f; }
.present { font-weight: 700; }
.uid { font: .82rem/1.4 ui-monospace, monospace; color: #5a6673; }
details > summary { cursor: pointer; color: #35506b; }
</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<p class="state">{{ state }}</p>
<table>
{% for name, value in identity %}
<tr><th>{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table>
{% macro tree(lines) %}
<ul>
{% for line in lines %}
<li>
{%- if line.kind == "CONTAINER" %}<strong>{{ line.name }}</strong>{% if line.value %} {{ line.value }}{% endif %}
{%- elif line.name == "Conclusion" %}<p class="conclusion">{{ line.value }}</p>
{%- else %}<span class="name">{{ line.name }}:</span>
 <span class="{{ 'present' if line.value == 'Present' else 'value' }}">{{ line.value }}</span>
{%- if line.uid %} <span class="uid">{{ line.uid }}</span>{% endif %}
{%- endif %}
{% if line.lines %}{{ tree(line.lines) }}{% endif %}
</li>
{% endfor %}
</ul>
{% endmacro %}
{% for section in sections %}
<h2>{{ section.name }}</h2>
{{ tree(section.lines) }}
{% endfor %}
{% if details %}
<h2>Observer and document</h2>
<details><summary>Show</summary>
{{ tree(details) }}
</details>
{% endif %}
</main>
</body>
</html>
"""
)


def page(report: Dataset) -> str:
    """HTML of a report.

    Parameters
    ----------
    report : Dataset
        Any structured report; only its own texts are used, nothing is fetched.
    """
    lines = tuple(_lines(report.get("ContentSequence") or [], DEEPEST))
    flags = (report.get("CompletionFlag"), report.get("VerificationFlag"), report.get("PreliminaryFlag"))
    description = str(report.get("SeriesDescription") or "").strip()
    return _PAGE.render(
        title=description or _meaning(report, "ConceptNameCodeSequence") or "Structured report",
        state=", ".join(str(flag).lower() for flag in flags if flag),
        identity=[(name, value) for name, keyword in IDENTITY if (value := _shown(report.get(keyword)))],
        sections=[line for line in lines if line.kind == "CONTAINER"],
        details=[line for line in lines if line.kind != "CONTAINER"],
    )


def _lines(items: Iterable[Dataset], depth: int) -> Iterator[Line]:
    if depth == 0:
        return
    for item in items:
        referenced = item.get("ReferencedSOPSequence") or [Dataset()]
        below = tuple(_lines(item.get("ContentSequence") or [], depth - 1))
        derived = [line.value.lower() for line in below if line.name == DERIVATION]
        name = _meaning(item, "ConceptNameCodeSequence") or str(item.get("ValueType", "")).title()
        yield Line(
            name=f"{name} ({', '.join(derived)})" if derived else name,
            value=_value(item),
            uid=_shown(item.get("UID") or referenced[0].get("ReferencedSOPInstanceUID")),
            kind=str(item.get("ValueType", "")),
            lines=tuple(line for line in below if line.name != DERIVATION),
        )


def _value(item: Dataset) -> str:
    readers = {"NUM": _number, "CODE": _code, "SCOORD": _coordinates, "IMAGE": _instance, "COMPOSITE": _instance}
    kind = str(item.get("ValueType", ""))
    if kind in readers:
        return readers[kind](item)
    keyword = {"TEXT": "TextValue", "PNAME": "PersonName", "DATE": "Date", "TIME": "Time"}.get(kind)
    return _shown(item.get(keyword)) if keyword else ""


def _number(item: Dataset) -> str:
    measured = item.get("MeasuredValueSequence") or []
    if not measured:
        return "no value"
    amount = float(measured[0].NumericValue)
    value = f"{amount:g}" if abs(amount) < 1e5 else f"{amount:,.0f}".replace(",", " ")
    unit = (measured[0].get("MeasurementUnitsCodeSequence") or [Dataset()])[0].get("CodeValue", "")
    words = {"{pixels}": "pixels", "mm2": "mm²", "1": ""}.get(str(unit), str(unit))
    return f"{value} {words}".strip()


def _code(item: Dataset) -> str:
    return _meaning(item, "ConceptCodeSequence")


def _coordinates(item: Dataset) -> str:
    values = [float(value) for value in item.get("GraphicData") or []]
    columns, rows = values[0::2], values[1::2]
    if not columns or not rows:
        return str(item.get("GraphicType", ""))
    outline = str(item.get("GraphicType", "")).lower()
    return (
        f"{outline} of {len(columns)} points, columns {min(columns):.0f} to {max(columns):.0f}, "
        f"rows {min(rows):.0f} to {max(rows):.0f}"
    )


def _instance(item: Dataset) -> str:
    referenced = item.get("ReferencedSOPSequence") or []
    if not referenced:
        return ""
    kind = UID(str(referenced[0].get("ReferencedSOPClassUID", ""))).name
    frame = referenced[0].get("ReferencedFrameNumber")
    return f"{kind}, frame {frame}" if frame else kind


def _meaning(item: Dataset, keyword: str) -> str:
    codes = item.get(keyword) or []
    return str(codes[0].get("CodeMeaning", "")) if codes else ""


def _shown(value: object) -> str:
    text = "" if value is None else str(value)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 and text.isdigit() else text.replace("^", " ").strip()
