"""The regions of the maps as measurements that viewers draw (TID 1500); holds nothing that has no region.

Every measurement group has a closed outline: a group without coordinates makes some viewers fail, so the scores of the
whole image and everything in words are in the summary report. The activation inside a region is given in percent of the
map's own maximum: a raw value has no meaning across methods, models or patients.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import numpy as np
from highdicom.sr import (
    FindingSite,
    GraphicTypeValues,
    ImageRegion,
    Measurement,
    MeasurementReport,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    SourceImageForRegion,
    TrackingIdentifier,
)
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage

from cam_core.explanation import Explanation
from cam_core.finding import percent
from cam_core.region import Region
from cam_core.saliency import SaliencyMap
from dicom_node.objects.answer import ImageAnswer, Picture, Reference, StudyAnswer, reference_to
from dicom_node.objects.content import algorithm, concept, image, observation_context, procedure
from dicom_node.objects.document import DocumentKind, document, document_reference
from dicom_node.objects.header import plain
from dicom_node.provenance import CONCEPTS, Provenance, tracking_uid, visual_explanation

REPORT: Final = DocumentKind(kind="measurement-report", sop_class_uid=Comprehensive3DSRStorage, title="AI regions")
FALLBACK: Final = DocumentKind(
    kind="measurement-report-fallback", sop_class_uid=ComprehensiveSRStorage, title="AI regions"
)
"""The same content for a peer that refuses Comprehensive 3D SR."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Place:
    """One region of one map of one finding of one image, with the numbers that tell it from the others."""

    image: ImageAnswer
    image_number: int
    explanation: Explanation
    map: SaliencyMap
    map_maximum: float
    region: Region
    region_number: int


def reference(answer: StudyAnswer, provenance: Provenance, *, fallback: bool = False) -> Reference | None:
    """How the summary refers to this report; None when there is none."""
    if not any(True for _ in _places(answer)):
        return None
    return document_reference(FALLBACK if fallback else REPORT, answer, provenance)


def build(
    answer: StudyAnswer, provenance: Provenance, *, summary: Reference | None = None, fallback: bool = False
) -> Dataset | None:
    """A TID 1500 report with one measurement group for each region; None when no map has a region.

    Parameters
    ----------
    answer : StudyAnswer
    provenance : Provenance
    summary : Reference or None
        The summary report of the same job, named as evidence.
    fallback : bool
        Comprehensive SR with a UID of its own instead of Comprehensive 3D SR.
    """
    places = list(_places(answer))
    if not places:
        return None
    if fallback:
        first_form = build(answer, provenance, summary=summary)
        return as_fallback(first_form, answer, provenance) if first_form is not None else None
    report = MeasurementReport(
        observation_context=observation_context(provenance),
        procedure_reported=concept(procedure(str(answer.header.get("Modality", "")))),
        imaging_measurements=[_group(place, answer, provenance) for place in places],
        referenced_images=_library(answer),
    )
    root = report[0]
    measurements = root.ContentSequence[-1]
    for position, item in enumerate(algorithm(answer.card, provenance, answer.parameters)):
        measurements.ContentSequence.insert(position, item)
    evidence = [reference_to(one.header) for one in answer.images]
    evidence += [picture.reference for one in answer.images for picture in one.pictures]
    evidence += [summary] if summary is not None else []
    return document(root, REPORT, evidence, answer, provenance)


def as_fallback(report: Dataset, answer: StudyAnswer, provenance: Provenance) -> Dataset:
    """The same content as Comprehensive SR, another instance in a series of its own; nothing is built again."""
    itself = document_reference(FALLBACK, answer, provenance)
    result = Dataset()
    for tag in report.keys():  # noqa: SIM118 - iterating would decode the texts that have to leave as they came
        result[tag] = report.get_item(tag)
    # new elements, not new values: the old ones still belong to `report`
    result.add_new("SOPClassUID", "UI", itself.sop_class_uid)
    result.add_new("SOPInstanceUID", "UI", itself.sop_instance_uid)
    result.add_new("SeriesInstanceUID", "UI", itself.series_instance_uid)
    return result


def _places(answer: StudyAnswer) -> Iterator[_Place]:
    for image_number, one in enumerate(answer.images, 1):
        for explanation in one.explanations:
            for saliency, found in zip(explanation.maps, explanation.planar_regions, strict=True):
                maximum = max((region.peak_value for region in found), default=0.0)
                for region_number, region in enumerate(found, 1):
                    yield _Place(
                        image=one,
                        image_number=image_number,
                        explanation=explanation,
                        map=saliency,
                        map_maximum=maximum,
                        region=region,
                        region_number=region_number,
                    )


def _group(
    place: _Place, answer: StudyAnswer, provenance: Provenance
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """One region with its finding, certainty, area and activation (PS3.16 TID 1410)."""
    label = place.explanation.finding.label
    source = reference_to(place.image.header, place.image.frame)
    site = answer.card.intended_use.finding_site if answer.card else None
    group = PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(place, answer),
        referenced_region=ImageRegion(
            graphic_type=GraphicTypeValues.POLYLINE,
            graphic_data=_outline(place),
            source_image=SourceImageForRegion(
                referenced_sop_class_uid=source.sop_class_uid,
                referenced_sop_instance_uid=source.sop_instance_uid,
                referenced_frame_numbers=[source.frame] if source.frame is not None else None,
            ),
        ),
        finding_type=concept(label.code),
        finding_category=concept(CONCEPTS["abnormal structure"]),
        finding_sites=[FindingSite(anatomic_location=concept(site))] if site is not None else None,
        measurements=list(_measurements(place)),
        geometric_purpose=concept(CONCEPTS["outline"]),
    )
    for picture in _illustrations(place):
        group[0].ContentSequence.append(image(picture.reference, "illustration"))
    return group


def _outline(place: _Place) -> NDArray[np.float64]:
    """The closed outline, (N, 2) column and row; the centre of pixel ``i`` is ``i + 0.5`` (PS3.3 C.18.6.1.2)."""
    rows, columns = int(place.image.header.Rows), int(place.image.header.Columns)
    points = np.clip(place.region.contour, 0.0, (columns, rows)).round(2)
    points[-1] = points[0]
    return points


def _tracking(place: _Place, answer: StudyAnswer) -> TrackingIdentifier:
    label, header = place.explanation.finding.label, answer.header
    patient = (str(header.get("IssuerOfPatientID") or ""), str(header.get("PatientID") or header.StudyInstanceUID))
    code = Code(label.code.value, label.code.scheme, label.code.meaning)
    numbers = (place.map.name, str(place.image_number), str(place.region_number))
    several = f", image {place.image_number}" if len(answer.images) > 1 else ""
    words = f"{label.name}, {place.map.full_title}, region {place.region_number}{several}"
    return TrackingIdentifier(uid=tracking_uid(patient, code, *numbers), identifier=plain(words, 128))


def _measurements(place: _Place) -> Iterator[Measurement]:
    region, finding = place.region, place.explanation.finding
    yield _measurement("certainty", percent(finding.probability, finding.label.threshold), "percent")
    if finding.uncertainty is not None:
        yield Measurement(
            name=concept(CONCEPTS["certainty"]),
            value=percent(finding.uncertainty.sd),
            unit=concept(CONCEPTS["percent"]),
            derivation=concept(CONCEPTS["standard deviation"]),
        )
    if region.area_mm2 is not None and region.area_mm2 > 0:
        yield _measurement("area", round(region.area_mm2, 1), "square millimetre")
    else:
        yield _measurement("area", round(region.area_pixels), "pixels")
    if place.map_maximum > 0:
        kind = visual_explanation(place.map.method)
        for value, derivation in ((region.peak_value, "maximum"), (region.mean_value, "mean")):
            yield Measurement(
                name=concept(kind),
                value=round(100 * value / place.map_maximum),
                unit=concept(CONCEPTS["percent"]),
                derivation=concept(CONCEPTS[derivation]),
            )


def _measurement(name: str, value: float, unit: str) -> Measurement:
    return Measurement(name=concept(CONCEPTS[name]), value=value, unit=concept(CONCEPTS[unit]))


def _illustrations(place: _Place) -> Iterator[Picture]:
    """The overlay of this map, if it was made."""
    label = place.explanation.finding.label.name
    for picture in place.image.pictures:
        if picture.kind == "overlay" and (picture.finding, picture.method) == (label, place.map.name):
            yield picture


def _library(answer: StudyAnswer) -> list[Dataset]:
    """The images with a region, as the image library describes them.

    The descriptors of projection and sectional images need attributes that real images lack (Imager Pixel Spacing,
    Slice Thickness): only class, rows and columns are described, by a copy whose modality asks for no more.
    """
    described = {}
    for place in _places(answer):
        header = place.image.header
        stub = Dataset()
        for keyword in ("SOPClassUID", "SOPInstanceUID", "Rows", "Columns"):
            setattr(stub, keyword, deepcopy(header[keyword].value))
        stub.Modality = "OT"
        described[str(header.SOPInstanceUID)] = stub
    return list(described.values())
