"""The one entry point: an image and a classifier in, findings with their maps and regions out; draws nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard
from cam_core.classifier import Capability, Capture, Classifier
from cam_core.errors import ExplanationFailed, MethodError, MethodNotApplicable
from cam_core.finding import Finding, Prediction
from cam_core.image import Fit, Image
from cam_core.method import Evidence, MaskedScores, Method, RawMaps
from cam_core.methods.score_cam import masked_scores
from cam_core.model_input import model_input
from cam_core.registration import Registration, library_registration
from cam_core.saliency import Region, SaliencyMap, by_map_maximum, regions

Align = Literal["measured", "library"]

EQUIVALENCE_TOLERANCE = 1e-4
"""Greatest difference of two maps, each divided by its maximum, that count as the same evidence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """A finding with its maps and where they point.

    Attributes
    ----------
    finding : Finding
    maps : tuple of SaliencyMap
        One for each method that could explain, in the order asked.
    regions : tuple of tuple of Region
        One tuple for each map.
    equivalent : tuple of tuple of str
        Groups of map names (`SaliencyMap.name`) whose maps are the same up to a positive factor: one piece of evidence
        shown several times. Blank maps are in no group.
    failures : tuple of (str, str)
        Method (`Method.full_name`) and reason, for those that could not.
    """

    finding: Finding
    maps: tuple[SaliencyMap, ...]
    regions: tuple[tuple[Region, ...], ...]
    equivalent: tuple[tuple[str, ...], ...]
    failures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What a caller may choose about maps and regions.

    Attributes
    ----------
    align : ``measured`` or ``library``
        Where the cells of the feature layer lie on the image: where they were measured to look, or where a plain
        upsampling would put them (for comparison with other software only).
    region_threshold : float, 0..1 exclusive
        A region is where the map is at least this share of its maximum.
    regions_per_map : int
        The largest so many.
    """

    align: Align = "measured"
    region_threshold: float = 0.5
    regions_per_map: int = 5


def predict(image: Image, classifier: Classifier) -> Prediction:
    """Ask a classifier about an image.

    Raises
    ------
    ImageError, ModelLoadError
    ExplanationFailed
        When the model answers something that is not a number.
    """
    batch, _ = model_input(image, classifier.card.input)
    logits = classifier.scores(batch)[0].astype(np.float64)
    if not np.isfinite(logits).all():
        raise ExplanationFailed("classifier", "the model's scores are not finite numbers")
    probabilities = _probabilities(logits, classifier.card)
    return Prediction(
        findings=tuple(
            Finding(label=label, logit=float(logit), probability=float(probability))
            for label, logit, probability in zip(classifier.card.labels, logits, probabilities, strict=True)
        )
    )


def _probabilities(logits: NDArray[np.float64], card: ModelCard) -> NDArray[np.float64]:
    """Sigmoid of each logit, or the softmax of all."""
    if card.activation == "sigmoid":
        halves: NDArray[np.float64] = 0.5 * (1 + np.tanh(logits / 2))
        return halves
    powers = np.exp(logits - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def explain(
    image: Image,
    classifier: Classifier,
    methods: Sequence[Method],
    findings: Sequence[Finding],
    *,
    options: ExplainOptions | None = None,
    timed: Callable[[str, float], None] | None = None,
) -> tuple[Explanation, ...]:
    """Explain findings of an image by several methods.

    All methods share one pass for activations and gradients, and all findings share one set of masked passes. A method
    that can't explain is listed with its reason while the others go on.

    Parameters
    ----------
    image, classifier : Image, Classifier
    methods : sequence of Method
    findings : sequence of Finding, each of a label of this classifier
    options : ExplainOptions, optional
    timed : callable, optional
        Told the name and seconds of each step: ``activations and gradients``, then every method by its full name.

    Returns
    -------
    one Explanation for each finding in the order given

    Raises
    ------
    ImageError, ModelLoadError, UnknownTargetLayer
    """
    if not findings:
        return ()
    options = options or ExplainOptions()
    batch, fit = model_input(image, classifier.card.input)
    labels = tuple(_index(classifier.card, finding) for finding in findings)
    lap = _Lap(timed)
    capture, no_gradient = _captured(classifier, batch, labels, methods)
    registration = _registration(classifier, capture, options.align)
    lap("activations and gradients")
    evidence = _evidence(classifier, batch, labels, capture, registration)
    done, failures = _all_maps(methods, classifier, evidence, no_gradient, lap)
    place = _Place(fit=fit, registration=registration, options=options)
    return tuple(
        _explanation(
            image, finding, [(method, raw.values[index], raw.baseline) for method, raw in done], failures, place
        )
        for index, finding in enumerate(findings)
    )


def _all_maps(
    methods: Sequence[Method], classifier: Classifier, evidence: Evidence, no_gradient: str, lap: _Lap
) -> tuple[list[tuple[Method, RawMaps]], tuple[tuple[str, str], ...]]:
    """What every method made, and why some did not."""
    done: list[tuple[Method, RawMaps]] = []
    failures: list[tuple[str, str]] = []
    for method in methods:
        try:
            done.append((method, _raw_maps(method, classifier, evidence, no_gradient)))
        except MethodError as error:
            failures.append((method.full_name, str(getattr(error, "reason", error))))
        lap(method.full_name)
    return done, tuple(failures)


class _Lap:
    """Tells how long it is since the last call."""

    def __init__(self, timed: Callable[[str, float], None] | None) -> None:
        self._timed = timed
        self._last = time.perf_counter()

    def __call__(self, step: str) -> None:
        now = time.perf_counter()
        if self._timed is not None:
            self._timed(step, now - self._last)
        self._last = now


@dataclass(frozen=True, kw_only=True)
class _Place:
    fit: Fit
    registration: Registration
    options: ExplainOptions


def _index(card: ModelCard, finding: Finding) -> int:
    names = [label.name for label in card.labels]
    if finding.label.name not in names:
        raise ExplanationFailed("explain", f"the model has no label {finding.label.name!r}")
    return names.index(finding.label.name)


def _captured(
    classifier: Classifier, batch: NDArray[np.float32], labels: Sequence[int], methods: Sequence[Method]
) -> tuple[Capture, str]:
    """One pass with gradients when a method needs them; without, and why, when the model can't give them."""
    wanted = any(Capability.GRADIENTS in method.needs for method in methods)
    if not wanted or Capability.GRADIENTS not in classifier.capabilities:
        return classifier.activations(batch), "the model gives no gradients"
    try:
        return classifier.gradients(batch, labels), ""
    except MethodNotApplicable as error:
        return classifier.activations(batch), error.reason


def _registration(classifier: Classifier, capture: Capture, align: Align) -> Registration:
    if align == "measured":
        return classifier.registration
    size = classifier.card.input
    cells = capture.activations.shape[2:]
    return library_registration((cells[0], cells[1]), (size.rows, size.columns))


def _evidence(
    classifier: Classifier,
    batch: NDArray[np.float32],
    labels: tuple[int, ...],
    capture: Capture,
    registration: Registration,
) -> Evidence:
    activations = capture.activations[0]

    @cache
    def masked() -> MaskedScores:
        return masked_scores(classifier, batch, activations, registration)

    return Evidence(
        activations=activations,
        labels=labels,
        gradients=capture.gradients[0] if capture.gradients is not None else None,
        head_weights=classifier.head_weights(),
        masked_scores=masked,
    )


def _raw_maps(method: Method, classifier: Classifier, evidence: Evidence, no_gradient: str) -> RawMaps:
    """A method's maps, after checking what it needs and that what it made is what it had to make."""
    missing = sorted(need.value for need in method.needs - classifier.capabilities)
    if missing:
        raise MethodNotApplicable(method.full_name, f"the model gives no {', '.join(missing)}")
    if Capability.GRADIENTS in method.needs and evidence.gradients is None:
        raise MethodNotApplicable(method.full_name, no_gradient)
    raw = method.maps(evidence)
    expected = (len(evidence.labels), *evidence.activations.shape[1:])
    if raw.values.shape != expected:
        raise ExplanationFailed(method.full_name, f"it made maps of shape {raw.values.shape}, not {expected}")
    if not np.isfinite(raw.values).all():
        raise ExplanationFailed(method.full_name, "the map holds values that are not finite numbers")
    return raw


def _explanation(
    image: Image,
    finding: Finding,
    done: Sequence[tuple[Method, NDArray[np.float32], str | None]],
    failures: tuple[tuple[str, str], ...],
    place: _Place,
) -> Explanation:
    maps = tuple(
        SaliencyMap(
            values=np.ascontiguousarray(values, dtype=np.float32),
            method=method.name,
            variant=method.variant,
            title=method.title,
            label=finding.label.name,
            fit=place.fit,
            registration=place.registration,
            baseline=baseline,
        )
        for method, values, baseline in done
    )
    return Explanation(
        finding=finding,
        maps=maps,
        regions=tuple(
            regions(
                one,
                threshold_fraction=place.options.region_threshold,
                spacing_mm=image.spacing_mm,
                limit=place.options.regions_per_map,
            )
            for one in maps
        ),
        equivalent=equivalent_groups(maps),
        failures=failures,
    )


def equivalent_groups(maps: Sequence[SaliencyMap]) -> tuple[tuple[str, ...], ...]:
    """Names of maps that are the same up to a positive factor, in groups of two or more.

    Compared is what is shown: the positive part divided by its maximum. So a CAM and a Grad-CAM of a linear head fall
    together although only one of them keeps its negative values.
    """
    waiting = [(one.name, by_map_maximum(one.values)) for one in maps if not one.is_blank]
    groups: list[tuple[str, ...]] = []
    while waiting:
        first = waiting[0][1]
        same = [other for other, values in waiting if np.abs(values - first).max() <= EQUIVALENCE_TOLERANCE]
        waiting = [one for one in waiting if one[0] not in same]
        if len(same) > 1:
            groups.append(tuple(same))
    return tuple(groups)
