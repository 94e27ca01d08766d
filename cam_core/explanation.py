"""The one entry point: images and a classifier in, findings with their maps and regions out; draws nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cam_core.card import ModelCard
from cam_core.classifier import Capability, Capture, Classifier
from cam_core.equivalence import equivalent_groups
from cam_core.errors import CamCoreError, ExplanationFailed, MethodError, MethodNotApplicable
from cam_core.finding import Finding
from cam_core.image import Fit, Image, Volume
from cam_core.method import Evidence, Method, Perturbation, RawMaps
from cam_core.model_input import model_input
from cam_core.plan import ROUNDING, gather
from cam_core.region import Region, regions
from cam_core.registration import Registration, library_registration
from cam_core.saliency import SaliencyMap
from cam_core.threshold import Threshold
from cam_core.volume_region import VolumeRegion, volume_regions

Align = Literal["measured", "library"]

AnyRegion = Region | VolumeRegion
"""Of a picture's map, or of a volume's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """A finding with its maps and where they point.

    Attributes
    ----------
    finding : Finding
    maps : tuple of SaliencyMap
        One for each method that could explain, in the order asked.
    equivalent : tuple of tuple of str
        Groups of map names (`SaliencyMap.name`) whose maps are the same up to a positive factor: one piece of evidence
        shown several times. Blank maps are in no group.
    failures : tuple of (str, str)
        Method (`Method.full_name`) and reason, for those that could not.
    regions_of : callable
        From one of the maps to its regions.
    """

    finding: Finding
    maps: tuple[SaliencyMap, ...]
    equivalent: tuple[tuple[str, ...], ...]
    failures: tuple[tuple[str, str], ...]
    regions_of: Callable[[SaliencyMap], tuple[AnyRegion, ...]]

    @cached_property
    def regions(self) -> tuple[tuple[AnyRegion, ...], ...]:
        """The regions of each map, of a picture or of a volume as what was explained.

        They are found when they are first asked for: for a panel of small maps that takes longer than the model does.
        """
        return tuple(self.regions_of(one) for one in self.maps)

    @property
    def planar_regions(self) -> tuple[tuple[Region, ...], ...]:
        """The regions of each map of a picture; of a volume's maps none."""
        return tuple(tuple(one for one in found if isinstance(one, Region)) for found in self.regions)

    @property
    def solid_regions(self) -> tuple[tuple[VolumeRegion, ...], ...]:
        """The regions of each map of a volume; of a picture's maps none."""
        return tuple(tuple(one for one in found if isinstance(one, VolumeRegion)) for found in self.regions)


@dataclass(frozen=True, kw_only=True)
class ExplainOptions:
    """What a caller may choose about maps and regions.

    Attributes
    ----------
    align : ``measured`` or ``library``
        Where the cells of the feature layer lie on the image: where they were measured to look, or where a plain
        upsampling would put them (for comparison with other software only).
    region_threshold : Threshold or float
        A region is where the map reaches it; a number is a share (0..1 exclusive) of the map's maximum.
    regions_per_map : int
        The largest so many.
    """

    align: Align = "measured"
    region_threshold: Threshold | float = 0.5
    regions_per_map: int = 5


def explain(
    image: Image | Volume,
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

    The same image gives the same bits while the passes have the same size. That follows from free memory where nobody
    fixes it, and maps from passes of other sizes may differ in their last bits, by about 1e-5 of the maximum.

    Parameters
    ----------
    image : Image or Volume
    classifier : Classifier
    methods : sequence of Method
        One that comes twice (`Method.full_name`) is taken once, where it comes first.
    findings : sequence of Finding, each of a label of this classifier
    options : ExplainOptions, optional
    timed : callable, optional
        Told the name and seconds of each step: ``activations and gradients``, ``changed inputs``, then every method by
        its full name.

    Returns
    -------
    one Explanation for each finding in the order given

    Raises
    ------
    ImageError, ModelLoadError, UnknownTargetLayer, UnusableTargetLayer
    OutOfMemory
        When not even one input at a time fits.
    ExplanationFailed
        For a finding of a label that the model doesn't have.
    """
    return explain_batch([image], classifier, methods, [findings], options=options, timed=timed)[0]


def explain_batch(
    images: Sequence[Image | Volume],
    classifier: Classifier,
    methods: Sequence[Method],
    findings: Sequence[Sequence[Finding]],
    *,
    options: ExplainOptions | None = None,
    timed: Callable[[str, float], None] | None = None,
) -> tuple[tuple[Explanation, ...], ...]:
    """Explain findings of several images, perhaps of several studies, in passes that they share.

    Parameters
    ----------
    images : sequence of Image or Volume
    findings : sequence of sequence of Finding
        For each image the findings to be explained, which may differ and may be none.
    classifier, methods, options, timed
        As `explain` takes them.

    Returns
    -------
    for each image, one Explanation for each of its findings

    Raises
    ------
    ValueError
        When there are not as many lists of findings as images.
    ImageError, ModelLoadError, UnknownTargetLayer, UnusableTargetLayer, OutOfMemory, ExplanationFailed
        As in `explain`.
    """
    if len(images) != len(findings):
        raise ValueError(f"{len(images)} images, {len(findings)} lists of findings")
    options = options or ExplainOptions()
    methods = _each_once(methods)
    busy = [index for index, wanted in enumerate(findings) if wanted]
    if not busy:
        return ((),) * len(images)
    inputs = [model_input(images[index], classifier.card.input) for index in busy]
    batch = np.concatenate([one for one, _ in inputs])
    labels = tuple(dict.fromkeys(_index(classifier.card, finding) for index in busy for finding in findings[index]))
    lap = _Lap(timed)
    gathered = gather(
        classifier, batch, labels, methods, lambda capture: _registration(classifier, capture, options.align), lap
    )
    made = _all_maps(methods, classifier, gathered.evidence, gathered.no_gradient, lap)
    explained: list[tuple[Explanation, ...]] = [()] * len(images)
    for position, index in enumerate(busy):
        place = _Place(image=images[index], fit=inputs[position][1], options=options)
        evidence = gathered.evidence[position]
        explained[index] = tuple(
            _explanation(finding, labels.index(_index(classifier.card, finding)), made[position], evidence, place)
            for finding in findings[index]
        )
    return tuple(explained)


def _each_once(methods: Sequence[Method]) -> tuple[Method, ...]:
    named: dict[str, Method] = {}
    for method in methods:
        named.setdefault(method.full_name, method)
    return tuple(named.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class _Made:
    """What every method made of one image, and why some did not."""

    done: tuple[tuple[Method, RawMaps], ...]
    failures: tuple[tuple[str, str], ...]


def _all_maps(
    methods: Sequence[Method],
    classifier: Classifier,
    evidence: Sequence[Evidence],
    no_gradient: str,
    lap: Callable[[str], None],
) -> list[_Made]:
    done: list[list[tuple[Method, RawMaps]]] = [[] for _ in evidence]
    failures: list[list[tuple[str, str]]] = [[] for _ in evidence]
    for method in methods:
        for index, one in enumerate(evidence):
            try:
                done[index].append((method, _raw_maps(method, classifier, one, no_gradient)))
            except MethodError as error:
                failures[index].append((method.full_name, str(getattr(error, "reason", error))))
            except (CamCoreError, MemoryError):  # of the model or the machine, not of this method
                raise
            except Exception as error:  # noqa: BLE001 - methods of entry points are foreign code: it may raise anything
                failures[index].append((method.full_name, f"{type(error).__name__}: {error}"))
        lap(method.full_name)
    return [_Made(done=tuple(one), failures=tuple(why)) for one, why in zip(done, failures, strict=True)]


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
    image: Image | Volume
    fit: Fit
    options: ExplainOptions


def _index(card: ModelCard, finding: Finding) -> int:
    names = [label.name for label in card.labels]
    if finding.label.name not in names:
        raise ExplanationFailed("explain", f"the model has no label {finding.label.name!r}; it has {', '.join(names)}")
    return names.index(finding.label.name)


def _registration(classifier: Classifier, capture: Capture, align: Align) -> Registration:
    if align == "measured":
        return classifier.registration
    return library_registration(capture.activations.shape[2:], classifier.card.input.grid)


def _raw_maps(method: Method, classifier: Classifier, evidence: Evidence, no_gradient: str) -> RawMaps:
    """A method's maps, after checking what it needs and that what it made is what it had to make."""
    missing = sorted(need.value for need in method.needs - classifier.capabilities)
    if missing:
        raise MethodNotApplicable(method.full_name, f"the model gives no {', '.join(missing)}")
    if Capability.GRADIENTS in method.needs and evidence.gradients is None:
        raise MethodNotApplicable(method.full_name, no_gradient)
    raw = method.maps(evidence)
    if not (isinstance(raw, RawMaps) and isinstance(raw.values, np.ndarray)):
        raise ExplanationFailed(method.full_name, "it made no RawMaps that hold an array")
    cells = raw.values.shape[1:] if raw.registration is not None else evidence.activations.shape[1:]
    expected = (len(evidence.labels), *cells)
    if raw.values.shape != expected or len(cells) != len(evidence.grid):
        raise ExplanationFailed(method.full_name, f"it made maps of shape {raw.values.shape}, not {expected}")
    if not np.isfinite(raw.values).all():
        raise ExplanationFailed(method.full_name, "the map holds values that are not finite numbers")
    return raw


def _explanation(finding: Finding, index: int, made: _Made, evidence: Evidence, place: _Place) -> Explanation:
    maps = tuple(
        SaliencyMap(
            values=np.ascontiguousarray(raw.values[index], dtype=np.float32),
            method=method.name,
            variant=method.variant,
            title=method.title,
            label=finding.label.name,
            fit=place.fit,
            registration=raw.registration or evidence.registration,
            baseline=raw.baseline,
            unit=method.scale.unit,
            class_evidence=not (method.class_specific and _nil(method, evidence, index)),
        )
        for method, raw in made.done
    )
    return Explanation(
        finding=finding,
        maps=maps,
        equivalent=equivalent_groups(maps),
        failures=made.failures,
        regions_of=_regions_on(place.image, place.options),
    )


def _regions_on(image: Image | Volume, options: ExplainOptions) -> Callable[[SaliencyMap], tuple[AnyRegion, ...]]:
    """How the regions of a map of this image are found; it keeps the spacing, not the image."""
    threshold, limit = options.region_threshold, options.regions_per_map
    if isinstance(image, Volume):
        return partial(volume_regions, threshold=threshold, spacing_mm=image.spacing_mm, limit=limit)
    return partial(regions, threshold=threshold, spacing_mm=image.spacing_mm, limit=limit)


def _nil(method: Method, evidence: Evidence, index: int) -> bool:
    """Whether nothing that the method reads of the model depends on what it looks at.

    Such a map is no evidence even where it isn't zero: a softmax over equal scores weighs all channels alike. What
    stays within `ROUNDING` of the logit is none either: the last bits of a sum that is constant.
    """
    label = evidence.labels[index]
    if evidence.gradients is not None and Capability.GRADIENTS in method.needs:
        return _still(evidence.gradients[index], evidence.activations, float(evidence.logits[label]))
    if Capability.HEAD in method.needs:
        return bool((evidence.ablated()[:, label] == evidence.logits[label]).all())
    if method.asks:
        return all(_constant(_read(method, evidence, ask)[:, label]) for ask in method.asks)
    return evidence.head_weights is not None and not evidence.head_weights[label].any()


def _still(gradients: NDArray[np.float32], activations: NDArray[np.float32], logit: float) -> bool:
    """Whether a logit with these gradients does not move: ``0 < sum |dy/dA * A|``, the most it could, is rounding.

    Where that sum is 0 but the gradients are not, the layer is silent, which says nothing of the finding.
    """
    if not gradients.any():
        return True
    reach = float(np.abs(gradients.astype(np.float64) * activations).sum())
    return 0 < reach <= ROUNDING * abs(logit)


def _read(method: Method, evidence: Evidence, ask: Perturbation) -> NDArray[np.floating]:
    answers = evidence.answers(ask)
    return evidence.probabilities(answers) if method.reads == "probability" else answers


def _constant(answers: NDArray[np.floating]) -> bool:
    return float(np.ptp(answers)) <= ROUNDING * float(np.abs(answers).max())
