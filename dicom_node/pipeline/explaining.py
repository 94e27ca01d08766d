"""Findings, maps and pictures of the images that were read; knows no file and no database."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard, load_card
from cam_core.classifier import EXACT, Classifier, ForwardOptions, open_classifier
from cam_core.errors import ModelLoadError
from cam_core.explanation import ExplainOptions, Explanation, explain_batch
from cam_core.method import method_named
from cam_core.overlay import render_notice, render_overlay, render_panel
from cam_core.prediction import predict
from dicom_node.objects.answer import ImageAnswer, StudyAnswer, headline
from dicom_node.objects.secondary_capture import Capture, picture_of
from dicom_node.pipeline.clock import Clock
from dicom_node.pipeline.reading import ReadImage
from dicom_node.pipeline.request import JobRequest
from dicom_node.provenance import ClinicalStatus, Provenance

#: pictures drawn at once; most of a picture's time numpy and Pillow let other threads run
DRAWERS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A picture with everything that its Secondary Capture needs."""

    pixels: NDArray[np.uint8]
    capture: Capture


@lru_cache(maxsize=4)
def classifier_of(
    card_path: Path, card_modified: float, weights_modified: tuple[float, ...], device: str, forward: ForwardOptions
) -> Classifier:
    """A classifier that stays loaded in this process; a changed card or weights file is loaded, and verified, anew.

    A model that the site's engine or precision can't run is run as it is: slower and exact. What ran is recorded.
    """
    del card_modified, weights_modified  # they are there to be part of the cache's key
    card = load_card(card_path)
    if forward != EXACT:
        with suppress(ModelLoadError):
            return open_classifier(card, device, forward)
    return open_classifier(card, device)


def opened(card: ModelCard, device: str, forward: ForwardOptions = EXACT) -> Classifier:
    """The classifier of a card.

    Raises
    ------
    CamCoreError
        When it can't be opened, or takes volumes: the node reads single images.
    """
    if card.input.slices is not None:
        raise ModelLoadError(card.weights, "takes volumes; the node reads single images only")
    weights = tuple(one.stat().st_mtime for one in card.weights_files)
    return classifier_of(card.path, card.path.stat().st_mtime, weights, device, forward)


def explain_images(
    reads: Sequence[ReadImage], classifier: Classifier, request: JobRequest, provenance: Provenance, clock: Clock
) -> tuple[tuple[ImageAnswer, ...], list[Drawn]]:
    """Scores of all labels; maps, regions and pictures of the findings over their threshold, image by image.

    All images of the study share the model's passes.
    """
    with clock.step("predict"):
        predictions = [predict(read.image, classifier) for read in reads]
    explanations = explain_batch(
        [read.image for read in reads],
        classifier,
        [method_named(name) for name in request.methods],
        [[finding for finding in prediction.findings if finding.present] for prediction in predictions],
        options=ExplainOptions(
            region_threshold=request.output.region_threshold, regions_per_map=request.output.regions_per_map
        ),
        timed=lambda method, seconds: clock.add(f"explain: {method}", seconds),
    )
    answers: list[ImageAnswer] = []
    pictures: list[Drawn] = []
    for read, prediction, explained in zip(reads, predictions, explanations, strict=True):
        with clock.step("find regions"):
            for each in explained:
                _ = each.regions  # found once, before several threads draw them and reports list them
        drawn = _drawn(read, explained, classifier.card, request, clock)
        answers.append(
            ImageAnswer(
                header=read.header,
                spacing_mm=read.image.spacing_mm,
                prediction=prediction,
                explanations=explained,
                pictures=tuple(picture_of(one.capture, provenance) for one in drawn),
                warnings=(*read.warnings, *_map_warnings(explained)),
            )
        )
        pictures += drawn
    return tuple(answers), pictures


def _drawn(
    read: ReadImage, explanations: Sequence[Explanation], card: ModelCard, request: JobRequest, clock: Clock
) -> list[Drawn]:
    with clock.step("draw overlays"), ThreadPoolExecutor(DRAWERS, thread_name_prefix="draw") as threads:
        pictures = [one for each in explanations for one in _pictures(read, each, card, request)]
        return list(threads.map(lambda draw: draw(), pictures))


def numbered(drawn: Sequence[Drawn]) -> list[Drawn]:
    """The pictures of a study in one series, counted from 1."""
    return [replace(one, capture=replace(one.capture, instance_number=number)) for number, one in enumerate(drawn, 1)]


def _pictures(
    read: ReadImage, explanation: Explanation, card: ModelCard, request: JobRequest
) -> Iterator[Callable[[], Drawn]]:
    """The drawing of the panel of all methods first, then of one picture a method."""
    derivation = (
        f"palette {request.output.palette}, opacity {request.output.opacity:.0%}, "
        f"regions at {request.output.region_threshold:.0%} of the map's maximum"
    )
    task = _Task(read=read, explanation=explanation, card=card, request=request, derivation=derivation)
    if len(explanation.maps) > 1:
        yield partial(_draw_panel, task)
    for number in range(len(explanation.maps)):
        yield partial(_draw_overlay, task, number)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """What the pictures of one explanation have in common."""

    read: ReadImage
    explanation: Explanation
    card: ModelCard
    request: JobRequest
    derivation: str

    @property
    def model(self) -> str:
        return f"{self.card.name} {self.card.version}"


def _draw_panel(task: _Task) -> Drawn:
    style = task.request.output.style(task.card)
    panel = render_panel(task.read.image, task.explanation, model=task.model, style=style)
    capture = Capture(
        header=task.read.header,
        card=task.card,
        kind="panel",
        title="Methods side by side",
        finding=task.explanation.finding,
        derivation=task.derivation,
    )
    return Drawn(pixels=panel.pixels, capture=capture)


def _draw_overlay(task: _Task, number: int) -> Drawn:
    style, finding = task.request.output.style(task.card), task.explanation.finding
    saliency, found = task.explanation.maps[number], task.explanation.planar_regions[number]
    overlay = render_overlay(task.read.image, saliency, finding, model=task.model, style=style, found=found)
    capture = Capture(
        header=task.read.header,
        card=task.card,
        kind="overlay",
        title=saliency.full_title,
        method=saliency.name,
        finding=finding,
        derivation=task.derivation,
        anatomy=overlay.anatomy,
        scale=overlay.scale,
    )
    return Drawn(pixels=overlay.pixels, capture=capture)


def _map_warnings(explanations: tuple[Explanation, ...]) -> Iterator[str]:
    for each in explanations:
        finding = each.finding.label.name
        for saliency in each.maps:
            if saliency.is_blank:
                yield f"The {saliency.full_title} map of {finding} shows nothing: {saliency.condition.value}"
        for method, reason in each.failures:
            yield f"No {method} map for {finding}: {reason}"
        for group in each.equivalent:
            yield f"For {finding}, {' and '.join(group)} are one and the same map: count them as one piece of evidence"


def draw_notice(answer: StudyAnswer, request: JobRequest, provenance: Provenance) -> Drawn:
    """A picture that says in words why there is no map, for whoever looks at pictures only."""
    title = "AI failed" if answer.status is ClinicalStatus.FAILED else "AI not performed"
    lines = [
        *(f"{reason.words}." for reason in answer.reasons),
        "This is not a negative result: the model gave no answer for these images.",
        f"Model {provenance.model}",
    ]
    picture = render_notice(None, title, lines, style=request.output.style(answer.card))
    capture = Capture(header=answer.header, card=answer.card, kind="notice", title=title, derivation=headline(answer))
    return Drawn(pixels=picture.pixels, capture=capture)
