"""A report as a page: everything said is there, nothing in it can run."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_node.console.sr_page import page

RealImage = Callable[[str], Path]


class Reader(HTMLParser):
    """Texts and tags of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    @property
    def words(self) -> str:
        return " ".join(text for text in self.texts if text)


def test_a_summary_reads_from_top_to_bottom(real_image: RealImage, results: ModuleType) -> None:
    read = Reader(page(results.every_kind(real_image("RG1_UNCR.dcm"))["summary"]))
    wanted = [
        "AI report: chest-demo 1.0.0",
        "complete, unverified, preliminary",
        "CompressedSamples RG1",
        "2004-08-26",
        "AI suggests: Nodule (87.3 %).",
        "Demonstration model, not for clinical use.",
        "Nodule: Present",
        "87.3 %",
        "Pleural effusion: Absent",
        "model_sha256=",
    ]
    at = 0
    for words in wanted:
        found = read.words.find(words, at)
        assert found >= 0, f"{words!r} is missing or out of order"
        at = found


def test_measurements_are_readable(real_image: RealImage, results: ModuleType) -> None:
    words = Reader(page(results.every_kind(real_image("CT_small.dcm"))["measurements"])).words
    assert "Nodule, Grad-CAM, region 1" in words
    assert "Certainty of Finding: 87.3 % " in words
    assert "Certainty of Finding (standard deviation): 2.4 %" in words
    assert "Derivation" not in words
    assert "mm²" in words
    assert "polyline of" in words


def test_a_page_is_self_contained(real_image: RealImage, results: ModuleType) -> None:
    read = Reader(page(results.every_kind(real_image("CT_small.dcm"))["summary"]))
    assert read.links == []
    assert "script" not in read.tags


@pytest.mark.parametrize("keyword", ["PatientName", "StudyDescription", "SeriesDescription"])
def test_markup_in_a_header_stays_text(keyword: str) -> None:
    report = Dataset()
    setattr(report, keyword, "<script>alert(1)</script>")
    read = Reader(page(report))
    assert "script" not in read.tags
    assert "<script>alert(1)</script>" in read.words


def item(value_type: str, **attributes: object) -> Dataset:
    made = Dataset()
    made.ValueType = value_type
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def test_markup_in_the_content_stays_text() -> None:
    name = Dataset()
    name.CodeMeaning = "<b>name</b>"
    report = Dataset()
    text = item("TEXT", TextValue="<img src=x onerror=alert(1)>", ConceptNameCodeSequence=Sequence([name]))
    report.ContentSequence = Sequence([item("CONTAINER", ContentSequence=Sequence([text]))])
    read = Reader(page(report))
    assert {"img", "b"}.isdisjoint(read.tags)
    assert "onerror" in read.words


def test_a_report_with_nothing_in_its_items_is_still_shown() -> None:
    report = Dataset()
    kinds = ("TEXT", "CODE", "NUM", "IMAGE", "COMPOSITE", "SCOORD", "UIDREF", "WAVEFORM", "CONTAINER", "PNAME")
    report.ContentSequence = Sequence([item(kind) for kind in kinds])
    assert "no value" in Reader(page(report)).words


def test_endless_nesting_ends() -> None:
    inner = item("CONTAINER")
    for _ in range(200):
        inner = item("CONTAINER", ContentSequence=Sequence([inner]))
    report = Dataset()
    report.ContentSequence = Sequence([inner])
    assert Reader(page(report)).tags.count("ul") < 40
