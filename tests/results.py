"""Answers made by hand from real images, for tests of the objects: no model, a map with two known regions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from cam_core.card import InputSpecification, IntendedUse, ModelCard, Training
from cam_core.explanation import Explanation
from cam_core.finding import Code, Finding, Label, Prediction, Uncertainty
from cam_core.image import Image, fit_to, grey
from cam_core.region import regions
from cam_core.registration import Registration
from cam_core.saliency import SaliencyMap
from dicom_node.objects import measurement_report, secondary_capture, summary_report
from dicom_node.objects.answer import ImageAnswer, StudyAnswer
from dicom_node.objects.secondary_capture import Capture
from dicom_node.provenance import ClinicalStatus, Equipment, Provenance, derived_uid
from dicom_node.reading import read_header, read_image

NODULE = Label(name="Nodule", code=Code(value="27925004", scheme="SCT", meaning="Nodule"), threshold=0.5)
EFFUSION = Label(name="Effusion", code=Code(value="60046008", scheme="SCT", meaning="Pleural effusion"), threshold=0.5)
SPREAD = Uncertainty(kind="test-time-augmentation", passes=16, mean=0.861, sd=0.024, low=0.793, high=0.912, level=0.95)
FOUND = Finding(label=NODULE, logit=1.93, probability=0.873, uncertainty=SPREAD)
NOT_FOUND = Finding(label=EFFUSION, logit=-2.2, probability=0.1)

CARD = ModelCard(
    path=Path("/models/chest-demo/model.toml"),
    digest="ba" * 32,
    name="chest-demo",
    version="1.0.0",
    manufacturer="camnode project",
    description="A small network",
    demonstration_only=True,
    runtime="torch",
    weights=Path("/models/chest-demo/weights.safetensors"),
    sha256="ab" * 32,
    architecture="residual-gap",
    architecture_options={},
    target_layer="stages",
    license="Apache-2.0",
    input=InputSpecification(
        rows=256, columns=256, channels=1, fit="pad", pad_value=0.0, normalisation="per-image", mean=(), sd=()
    ),
    labels=(NODULE, EFFUSION),
    activation="sigmoid",
    intended_use=IntendedUse(
        statement="Demonstration only, not for clinical use.",
        modalities=("CR", "DX"),
        body_parts=("CHEST",),
        views=("PA", "AP"),
        minimum_age_years=18,
        maximum_age_years=None,
        finding_site=Code(value="39607008", scheme="SCT", meaning="Lung"),
    ),
    training=Training(data="Simulated films", summary=""),
)

EQUIPMENT = Equipment(
    software_version="0.1.0", device_serial_number="1", station_name="CAMNODE", device_uid=derived_uid("test node")
)


def provenance(header: Dataset, **changes: object) -> Provenance:
    """A job on the study of `header`."""
    made = Provenance(
        study_uid=str(header.StudyInstanceUID),
        route="chest",
        job_id="job-1",
        model_name=CARD.name,
        model_version=CARD.version,
        model_sha256=CARD.sha256,
        card_digest=CARD.digest,
        pipeline_version="0.1.0",
        settings_digest="cd" * 32,
        source_digest="ef" * 32,
        created=datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC),
        equipment=EQUIPMENT,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def saliency(image: Image, method: str = "grad-cam", title: str = "Grad-CAM") -> SaliencyMap:
    """A 16 x 16 map with a strong and a weaker spot."""
    values = np.zeros((16, 16), dtype=np.float32)
    values[4:7, 5:8] = 1.0
    values[10:12, 10:12] = 0.8
    return SaliencyMap(
        values=values,
        method=method,
        variant="",
        title=title,
        label=NODULE.name,
        fit=fit_to(image.shape, (256, 256), "pad"),
        registration=Registration(start=(8.0, 8.0), step=(16.0, 16.0), measured=False),
    )


def explanation(image: Image) -> Explanation:
    """A nodule explained by two methods."""
    maps = (saliency(image), saliency(image, "score-cam", "Score-CAM"))
    return Explanation(
        finding=FOUND,
        maps=maps,
        equivalent=(("grad-cam", "score-cam"),),
        failures=(("grad-cam++", "no gradients"),),
        regions_of=partial(regions, spacing_mm=image.spacing_mm),
    )


def picture(image: Image) -> NDArray[np.uint8]:
    """The image as an even-sized RGB picture, larger by a strip on the right."""
    rows, columns = image.shape
    canvas = np.zeros((rows + rows % 2, columns + columns % 2 + 40, 3), dtype=np.uint8)
    canvas[:rows, :columns] = (grey(image.pixels) * 255).astype(np.uint8)[..., None]
    return canvas


def capture(header: Dataset, image: Image, each: SaliencyMap, number: int = 1) -> Capture:
    """What is said about the overlay of a map."""
    return Capture(
        header=header,
        card=CARD,
        kind="overlay",
        title=each.full_title,
        method=each.name,
        finding=FOUND,
        instance_number=number,
        derivation="palette cividis, opacity 0.40",
        anatomy=(0, 0, image.shape[1], image.shape[0]),
    )


def answer(header: Dataset, image: Image, made_by: Provenance) -> StudyAnswer:
    """A processed study of one image with a finding."""
    explained = explanation(image)
    captures = [capture(header, image, each, number) for number, each in enumerate(explained.maps, 1)]
    one = ImageAnswer(
        header=header,
        prediction=Prediction(findings=(FOUND, NOT_FOUND)),
        spacing_mm=image.spacing_mm,
        explanations=(explained,),
        pictures=tuple(secondary_capture.picture_of(each, made_by) for each in captures),
        warnings=("The map reaches the border",),
    )
    return StudyAnswer(
        status=ClinicalStatus.PROCESSED,
        header=header,
        card=CARD,
        images=(one,),
        parameters=("threshold_fraction=0.5",),
    )


def every_kind(path: Path) -> dict[str, Dataset]:
    """One object of every kind for a source file."""
    header, image = read_header(path), read_image(path)
    made_by = provenance(header)
    processed = answer(header, image, made_by)
    refused = replace(processed, status=ClinicalStatus.NOT_INDICATED, images=())
    overlay = capture(header, image, processed.images[0].explanations[0].maps[0])
    panel = replace(overlay, kind="panel", title="methods compared", method="", finding=None, instance_number=3)
    notice = replace(panel, kind="notice", title="AI not performed: modality", instance_number=1)
    summary = summary_report.reference(processed, made_by)
    measured = measurement_report.reference(processed, made_by)
    pixels = picture(image)
    built = {
        "overlay": secondary_capture.build(pixels, overlay, made_by),
        "panel": secondary_capture.build(pixels, panel, made_by),
        "notice": secondary_capture.build(pixels, notice, made_by),
        "measurements": measurement_report.build(processed, made_by, summary=summary),
        "measurements-fallback": measurement_report.build(processed, made_by, summary=summary, fallback=True),
        "summary": summary_report.build(processed, made_by, measurements=measured),
        "refused": summary_report.build(refused, made_by),
    }
    return {kind: result for kind, result in built.items() if result is not None}
