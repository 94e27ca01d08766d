"""Every kind of object from every kind of source passes the validators (acceptance case 27)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from pydicom import dcmread

from dicom_node.objects import part10, secondary_capture, summary_report
from dicom_node.objects.answer import StudyAnswer
from dicom_node.pipeline.identity import header_of
from dicom_node.provenance import ClinicalStatus, Provenance, Reason
from dicom_node.reading import read_header

RealImage = Callable[[str], Path]
Component = Callable[[str], str]

SOURCES = {
    "chest film, MONOCHROME1, zero spacing, odd size": ("RG1_UNCR.dcm", {}),
    "CT with Frame of Reference": ("CT_small.dcm", {}),
    "CT without Frame of Reference": ("693_UNCR.dcm", {}),
    "CT without body part": ("CT_small.dcm", {"BodyPartExamined": None, "Laterality": None}),
    "MR": ("MR_small.dcm", {}),
    "enhanced CT": ("eCT_Supplemental.dcm", {}),
    "enhanced MR": ("emri_small.dcm", {}),
    "ISO 2022 names": ("J2K_pixelrep_mismatch.dcm", {}),
    "de-identified without a method": ("CT_small.dcm", {"PatientIdentityRemoved": "YES"}),
    "no weight": ("CT_small.dcm", {"PatientWeight": "0"}),
    "lossy ultrasound": ("US1_J2KI.dcm", {}),
    "two frames in a single-frame class": ("OBXXXX1A_2frame.dcm", {}),
    "a paired body part": ("JPGExtended.dcm", {}),
}
ALLOWED_WARNINGS = (
    "(0x0018,0x1002) UI Device UID",  # in the current standard, not yet in the validator's table
    "Standard Extended SOP Class",  # the consequence of the former
    "needed to build DICOMDIR",  # the source lacks it
    "Retired Person Name form",  # as the source has it
    "Retired attribute - (0x0010,0x1000) LO Other Patient IDs",  # copied from the source
    "(0x0010,0x1000) LO Other Patient IDs",
    "contains retired attributes",
    "Value dubious for this VR",  # copied from the source
    "of attribute <Body Part Examined>",  # copied from the source
)


@pytest.fixture(scope="module", params=SOURCES)
def written(
    request: pytest.FixtureRequest,
    real_image: RealImage,
    results: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """One file of every kind of result for a source."""
    name, changes = SOURCES[request.param]
    folder = tmp_path_factory.mktemp("objects")
    source = real_image(name)
    if changes:
        ds = dcmread(source)
        for keyword, value in changes.items():
            if value is None and keyword in ds:
                delattr(ds, keyword)
            elif value is not None:
                setattr(ds, keyword, value)
        source = folder / "source.dcm"
        ds.save_as(source)
    paths = {}
    for kind, result in results.every_kind(source).items():
        paths[kind] = folder / f"{kind}.dcm"
        part10.write(result, paths[kind])
    return paths


def lines(*command: str) -> tuple[int, list[str]]:
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()


def check_with_dciodvfy(dciodvfy: str, path: Path) -> None:
    code, said = lines(dciodvfy, str(path))
    assert code == 0, [line for line in said if line.startswith("Error")]
    assert not [line for line in said if line.startswith("Error")]
    warnings = [line for line in said if line.startswith("Warning")]
    assert not [line for line in warnings if not any(allowed in line for allowed in ALLOWED_WARNINGS)]


def test_dciodvfy_finds_no_error(written: dict[str, Path], require_component: Component) -> None:
    dciodvfy = require_component("dciodvfy")
    assert len(written) == 7
    for path in written.values():
        check_with_dciodvfy(dciodvfy, path)


def test_dciodvfy_is_able_to_find_errors(written: dict[str, Path], require_component: Component) -> None:
    ds = dcmread(written["overlay"])
    del ds.ConversionType
    broken = written["overlay"].with_name("broken.dcm")
    ds.save_as(broken)
    code, said = lines(require_component("dciodvfy"), str(broken))
    assert code != 0
    assert any("ConversionType" in line for line in said if line.startswith("Error"))


def reports(written: dict[str, Path]) -> Iterator[Path]:
    yield from (path for kind, path in written.items() if kind not in ("overlay", "panel", "notice"))


@pytest.mark.component
def test_dsrdump_reads_every_report(written: dict[str, Path], require_component: Component) -> None:
    dsrdump = require_component("dsrdump")
    for path in reports(written):
        code, said = lines(dsrdump, str(path))
        assert code == 0, said
        assert not [line for line in said if re.match(r"[EF]:", line)]
        assert any("chest-demo" in line for line in said)


@pytest.mark.component
def test_dsr2html_renders_every_report(written: dict[str, Path], require_component: Component, tmp_path: Path) -> None:
    dsr2html = require_component("dsr2html")
    for path in reports(written):
        page = tmp_path / f"{path.stem}.html"
        code, said = lines(dsr2html, "--charset-require", str(path), str(page))
        if code != 0 and any("Specific Character Set" in line for line in said):
            code, said = lines(dsr2html, "--charset-assume", "latin-1", str(path), str(page))
        assert code == 0, said
        assert not [line for line in said if re.match(r"[EF]:", line)]
        assert "chest-demo" in page.read_text(encoding="utf-8", errors="replace")


STATUSES = [
    (ClinicalStatus.NOT_INDICATED, "modality", None),
    (ClinicalStatus.UNUSABLE, "blank", "quality failure"),
    (ClinicalStatus.INCOMPLETE, "missing", None),
    (ClinicalStatus.UNSUPPORTED, "undecodable", "incorrectly formatted"),
    (ClinicalStatus.FAILED, "memory", "resource inadequate"),
]


@pytest.mark.parametrize(("status", "kind", "concept"), STATUSES)
@pytest.mark.parametrize("name", ["MR_truncated.dcm", "liver_1frame.dcm", "test-SR.dcm"])
def test_every_status_report_is_valid_from_any_header(
    status: ClinicalStatus,
    kind: str,
    concept: str | None,
    name: str,
    real_image: RealImage,
    results: ModuleType,
    require_component: Component,
    tmp_path: Path,
) -> None:
    header = read_header(real_image(name))
    made_by = results.provenance(header)
    answer = StudyAnswer(
        status=status,
        header=header,
        card=results.CARD,
        reasons=(Reason(words="The reason in words", kind=kind, concept=concept),),
    )
    check_answer(answer, made_by, results, require_component("dciodvfy"), tmp_path)


IDENTITY = {
    "StudyInstanceUID": "1.2.3",
    "SeriesInstanceUID": "1.2.3.4",
    "SOPInstanceUID": "1.2.3.4.5",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1",
    "Modality": "CR",
    "PatientName": "Yamada^Tarou=山田^太郎",
    "PatientID": "P1",
    "StudyDate": "20260101",
}


@pytest.mark.parametrize("known", [IDENTITY, {key: IDENTITY[key] for key in list(IDENTITY)[:4]}])
@pytest.mark.parametrize("with_card", [True, False])
@pytest.mark.parametrize("status", [ClinicalStatus.UNSUPPORTED, ClinicalStatus.FAILED])
def test_an_answer_without_a_file_or_a_card_is_valid(
    status: ClinicalStatus,
    with_card: bool,
    known: dict[str, str],
    results: ModuleType,
    require_component: Component,
    tmp_path: Path,
) -> None:
    header = header_of(known)
    card = results.CARD if with_card else None
    answer = StudyAnswer(status=status, header=header, card=card, reasons=(Reason(words="Why", kind="why"),))
    check_answer(answer, results.provenance(header), results, require_component("dciodvfy"), tmp_path)


def check_answer(answer: StudyAnswer, made_by: Provenance, results: ModuleType, dciodvfy: str, tmp_path: Path) -> None:
    """The report and the notice of an answer without a map."""
    report, notice = tmp_path / "report.dcm", tmp_path / "notice.dcm"
    part10.write(summary_report.build(answer, made_by), report)
    capture = secondary_capture.Capture(header=answer.header, card=answer.card, kind="notice", title="AI not performed")
    pixels = results.picture(results.Image(pixels=results.np.zeros((64, 64), "f4"), spacing_mm=None))
    part10.write(secondary_capture.build(pixels, replace(capture, title="AI not performed: x"), made_by), notice)
    for path in (report, notice):
        code, said = lines(dciodvfy, str(path))
        assert code == 0, [line for line in said if line.startswith("Error")]
