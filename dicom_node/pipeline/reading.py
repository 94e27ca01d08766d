"""Which images of a study the model may see, and those images read; makes no finding and no object."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from cam_core.card import ModelCard
from cam_core.image import Image
from dicom_node.errors import NoHeader, ReadingError
from dicom_node.pipeline.clock import Clock
from dicom_node.provenance import ClinicalStatus, Reason
from dicom_node.reading import indication, read_header, read_image
from dicom_node.reading.codecs import number_of_frames
from dicom_node.reading.selection import LeftOut, left_out_entry, reason_for, select

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
        Of the first instance that could be parsed.
    refusal : (ClinicalStatus, tuple of Reason) or None
        Given exactly when `images` is empty.
    """

    header: Dataset
    images: tuple[ReadImage, ...]
    left_out: tuple[LeftOut, ...]
    refusal: tuple[ClinicalStatus, tuple[Reason, ...]] | None


def read_study(files: Sequence[Path], card: ModelCard, clock: Clock) -> StudyReading:
    """Parse all headers, leave out what is no image for this model, decode the rest.

    Raises
    ------
    NoHeader
        None of the files can be parsed.
    """
    with clock.step("read headers"):
        headers, paths, unreadable = _headers(files)
        if not headers:
            raise NoHeader(len(files))
        selection = select(headers)
        indicated, outside = _indicated(selection.images, card)
    left_out = [*unreadable, *selection.left_out, *outside]
    images: list[ReadImage] = []
    undecodable: list[LeftOut] = []
    with clock.step("decode"):
        for header, warnings in indicated[:MAXIMUM_IMAGES]:
            try:
                image = read_image(paths[str(header.SOPInstanceUID)])
            except ReadingError as error:
                undecodable.append(left_out_entry(header, reason_for(error)))
            else:
                images.append(ReadImage(header=header, image=image, warnings=warnings))
    undecodable += [left_out_entry(header, _too_many()) for header, _ in indicated[MAXIMUM_IMAGES:]]
    return StudyReading(
        header=headers[0],
        images=tuple(images),
        left_out=(*left_out, *undecodable),
        refusal=None if images else _refusal(outside, undecodable, left_out),
    )


def _headers(files: Sequence[Path]) -> tuple[list[Dataset], dict[str, Path], list[LeftOut]]:
    headers: list[Dataset] = []
    paths: dict[str, Path] = {}
    unreadable: list[LeftOut] = []
    for path in files:
        try:
            header = read_header(path)
        except ReadingError as error:
            unreadable.append(
                LeftOut(sop_instance_uid="", sop_class_uid="", series_instance_uid="", reason=reason_for(error))
            )
        else:
            headers.append(header)
            paths[str(header.get("SOPInstanceUID", ""))] = path
    return headers, paths, unreadable


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
    frames = number_of_frames(header)
    return (f"Only the first of {frames} frames was read",) if frames > 1 else ()


def _too_many() -> Reason:
    return Reason(kind="limit", words=f"Only the first {MAXIMUM_IMAGES} images of a study are read")


def _refusal(
    outside: Sequence[LeftOut], undecodable: Sequence[LeftOut], left_out: Sequence[LeftOut]
) -> tuple[ClinicalStatus, tuple[Reason, ...]]:
    """The clinical status of a study without a readable image: the most telling reason first, each once."""
    if undecodable:
        return ClinicalStatus.UNSUPPORTED, _once(undecodable)
    if outside:
        return ClinicalStatus.NOT_INDICATED, _once(outside)
    nothing = Reason(kind="no-image", words="The study holds no image that the model could read", concept="no image")
    return ClinicalStatus.UNSUPPORTED, (nothing, *_once(left_out))


def _once(left_out: Sequence[LeftOut]) -> tuple[Reason, ...]:
    return tuple(dict.fromkeys(one.reason for one in left_out))
