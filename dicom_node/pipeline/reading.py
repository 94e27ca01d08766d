"""Which images of a study the model may see, and those images read; makes no finding and no object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from cam_core.card import ModelCard
from cam_core.image import Image
from dicom_node.errors import NoHeader, ReadingError
from dicom_node.pipeline.clock import Clock
from dicom_node.pipeline.identity import header_of
from dicom_node.pipeline.request import SourceFile
from dicom_node.provenance import ClinicalStatus, Reason
from dicom_node.reading import indication, read_header, read_image
from dicom_node.reading.groups import frame_count
from dicom_node.reading.quality import why_unusable
from dicom_node.reading.selection import LeftOut, left_out_entry, may_be_image, reason_for, select

#: a study with more indicated images is answered on the first ones, and says so
MAXIMUM_IMAGES = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadImage:
    """An image that the model may see, with its header and what could not be checked about it."""

    header: Dataset
    image: Image
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyReading:
    """A study's images, or why there are none.

    Attributes
    ----------
    header : Dataset
        Of the first instance that could be parsed; else what reception kept of one.
    left_out : tuple of LeftOut
        What is not for the model.
    unread : tuple of LeftOut
        What was, or may have been, for the model and could not be read: an answer without it is no whole answer.
    refusal : (ClinicalStatus, tuple of Reason) or None
        Given exactly when `images` is empty.
    """

    header: Dataset
    images: tuple[ReadImage, ...]
    left_out: tuple[LeftOut, ...]
    unread: tuple[LeftOut, ...]
    refusal: tuple[ClinicalStatus, tuple[Reason, ...]] | None


def read_study(
    files: Sequence[SourceFile], card: ModelCard, clock: Clock, identity: Mapping[str, Any] | None = None
) -> StudyReading:
    """Parse all headers, leave out what is no image for this model, decode the rest.

    Raises
    ------
    NoHeader
        None of the files can be parsed, and nothing was kept of the study when it was received.
    """
    with clock.step("read headers"):
        headers, paths, unparsed = _headers(files)
        if not headers and not identity:
            raise NoHeader(len(files))
        selection = select(headers)
        indicated, outside = _indicated(selection.images, card)
    with clock.step("decode"):
        images, undecodable = _decoded(indicated, paths)
    unread = [*(one for one in unparsed if may_be_image(one.sop_class_uid)), *undecodable]
    no_images = [one for one in unparsed if not may_be_image(one.sop_class_uid)]
    left_out = [*no_images, *selection.left_out, *outside]
    broken = undecodable if headers else unparsed
    refusal = None if images else _refusal(outside, broken, [*unread, *left_out])
    return StudyReading(
        header=headers[0] if headers else header_of(identity or {}),
        images=tuple(images),
        left_out=tuple(left_out),
        unread=tuple(unread),
        refusal=refusal,
    )


def _decoded(
    indicated: Sequence[tuple[Dataset, tuple[str, ...]]], paths: Mapping[str, Path]
) -> tuple[list[ReadImage], list[LeftOut]]:
    """The first so many images that can be decoded and show something, and why each other one is not among them."""
    images: list[ReadImage] = []
    unread: list[LeftOut] = []
    for header, warnings in indicated[:MAXIMUM_IMAGES]:
        try:
            image = read_image(paths[str(header.SOPInstanceUID)])
        except ReadingError as error:
            unread.append(left_out_entry(header, reason_for(error)))
            continue
        blank = why_unusable(image)
        if blank is None:
            images.append(ReadImage(header=header, image=image, warnings=warnings))
        else:
            unread.append(left_out_entry(header, blank))
    unread += [left_out_entry(header, _too_many()) for header, _ in indicated[MAXIMUM_IMAGES:]]
    return images, unread


def _headers(files: Sequence[SourceFile]) -> tuple[list[Dataset], dict[str, Path], list[LeftOut]]:
    headers: list[Dataset] = []
    paths: dict[str, Path] = {}
    unparsed: list[LeftOut] = []
    for file in files:
        try:
            header = read_header(file.path)
        except ReadingError as error:
            unparsed.append(_unparsed(file, error))
        else:
            headers.append(header)
            paths[str(header.get("SOPInstanceUID", ""))] = file.path
    return headers, paths, unparsed


def _unparsed(file: SourceFile, error: ReadingError) -> LeftOut:
    return LeftOut(
        sop_instance_uid=file.sop_instance_uid,
        sop_class_uid=file.sop_class_uid,
        series_instance_uid="",
        reason=reason_for(error),
    )


def _indicated(
    images: Sequence[Dataset], card: ModelCard
) -> tuple[list[tuple[Dataset, tuple[str, ...]]], list[LeftOut]]:
    within, outside = [], []
    for header in images:
        found = indication.check(card, header)
        if found.within:
            within.append((header, (*found.warnings, *_frames_warning(header))))
        else:
            outside += [left_out_entry(header, reason) for reason in found.reasons[:1]]
    return within, outside


def _frames_warning(header: Dataset) -> tuple[str, ...]:
    frames = frame_count(header)
    return (f"Only the first of {frames} frames was read",) if frames > 1 else ()


def _too_many() -> Reason:
    return Reason(kind="limit", words=f"Only the first {MAXIMUM_IMAGES} images of a study are read")


def _refusal(
    outside: Sequence[LeftOut], broken: Sequence[LeftOut], left_out: Sequence[LeftOut]
) -> tuple[ClinicalStatus, tuple[Reason, ...]]:
    """The clinical status of a study without a readable image: the most telling reason first, each once."""
    if broken:
        blank = all(one.reason.kind == "blank" for one in broken)
        return ClinicalStatus.UNUSABLE if blank else ClinicalStatus.UNSUPPORTED, _once(broken)
    if outside:
        return ClinicalStatus.NOT_INDICATED, _once(outside)
    nothing = Reason(kind="no-image", words="The study holds no image that the model could read", concept="no image")
    return ClinicalStatus.UNSUPPORTED, (nothing, *_once(left_out))


def _once(left_out: Sequence[LeftOut]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(one.reason for one in left_out))
