"""Findings, maps and pictures of the images that were read; knows no file and no database."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard, load_card
from cam_core.classifier import Classifier, open_classifier
from cam_core.explanation import ExplainOptions, Explanation, explain, predict
from cam_core.method import method_named
from cam_core.overlay import render_notice, render_overlay, render_panel
from dicom_node.objects.answer import ImageAnswer, StudyAnswer, headline
from dicom_node.objects.secondary_capture import Capture, picture_of
from dicom_node.pipeline.clock import Clock
from dicom_node.pipeline.reading import ReadImage
from dicom_node.pipeline.request import JobRequest
from dicom_node.provenance import ClinicalStatus, Provenance


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A picture with everything that its Secondary Capture needs."""

    pixels: NDArray[np.uint8]
    capture: Capture


@cache
def classifier_of(card_path: Path, card_modified: float, weights_modified: float, device: str) -> Classifier:
    """A classifier that stays loaded in this process; a changed card or weights file is loaded, and verified, anew."""
    del card_modified, weights_modified  # they are there to be part of the cache's key
    return open_classifier(load_card(card_path), device)


def opened(card: ModelCard, device: str) -> Classifier:
    """The classifier of a card."""
    return classifier_of(card.path, card.path.stat().st_mtime, card.weights.stat().st_mtime, device)


def explain_image(
    read: ReadImage, classifier: Classifier, request: JobRequest, provenance: Provenance, clock: Clock
) -> tuple[ImageAnswer, list[Drawn]]:
    """Scores of all labels; maps, regions and pictures of the findings over their threshold."""
    methods = [method_named(name) for name in request.methods]
    with clock.step("predict"):
        prediction = predict(read.image, classifier)
    present = [finding for finding in prediction.findings if finding.present]
    explanations = explain(
        read.image,
        classifier,
        methods,
        present,
        options=ExplainOptions(
            region_threshold=request.output.region_threshold, regions_per_map=request.output.regions_per_map
        ),
        timed=lambda method, seconds: clock.add(f"explain: {method}", seconds),
    )
    with clock.step("draw overlays"):
        drawn = [one for each in explanations for one in _draw(read, each, classifier.card, request)]
    numbered = [_numbered(one, number) for number, one in enumerate(drawn, 1)]
    answer = ImageAnswer(
        header=read.header,
        spacing_mm=read.image.spacing_mm,
        prediction=prediction,
        explanations=explanations,
        pictures=tuple(picture_of(one.capture, provenance) for one in numbered),
        warnings=(*read.warnings, *_map_warnings(explanations)),
    )
    return answer, numbered


def _numbered(one: Drawn, number: int) -> Drawn:
    return replace(one, capture=replace(one.capture, instance_number=number))


def _draw(read: ReadImage, explanation: Explanation, card: ModelCard, request: JobRequest) -> Iterator[Drawn]:
    """The panel of all methods first, then one picture a method."""
    style, model = request.output.style(card), f"{card.name} {card.version}"
    finding = explanation.finding
    derivation = (
        f"palette {style.palette}, opacity {style.opacity:.0%}, regions at {request.output.region_threshold:.0%}"
    )
    if len(explanation.maps) > 1:
        panel = render_panel(read.image, explanation, model=model, style=style)
        title = "Methods side by side"
        capture = Capture(
            header=read.header, card=card, kind="panel", title=title, finding=finding, derivation=derivation
        )
        yield Drawn(pixels=panel.pixels, capture=capture)
    for saliency, found in zip(explanation.maps, explanation.regions, strict=True):
        overlay = render_overlay(read.image, saliency, finding, model=model, style=style, found=found)
        capture = Capture(
            header=read.header,
            card=card,
            kind="overlay",
            title=saliency.full_title,
            method=saliency.name,
            finding=finding,
            derivation=derivation,
            anatomy=overlay.anatomy,
            scale=overlay.scale,
        )
        yield Drawn(pixels=overlay.pixels, capture=capture)


def _map_warnings(explanations: tuple[Explanation, ...]) -> Iterator[str]:
    for each in explanations:
        finding = each.finding.label.name
        for saliency in each.maps:
            if saliency.is_blank:
                yield f"{saliency.title} shows no positive evidence for {finding}: its map is empty"
        for method, reason in each.failures:
            yield f"No {method} map for {finding}: {reason}"
        for group in each.equivalent:
            yield f"For {finding}, {' and '.join(group)} are one and the same map: count them as one piece of evidence"


def draw_notice(answer: StudyAnswer, request: JobRequest) -> Drawn:
    """A picture that says in words why there is no map, for whoever looks at pictures only."""
    words = headline(answer)
    title = "AI failed" if answer.status is ClinicalStatus.FAILED else "AI not performed"
    picture = render_notice(None, title, [words], style=request.output.style(answer.card))
    capture = Capture(header=answer.header, card=answer.card, kind="notice", title=title, derivation=words)
    return Drawn(pixels=picture.pixels, capture=capture)
