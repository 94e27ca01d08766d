"""The one entry point: an image and a classifier in, findings with their maps and regions out; draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cam_core.classifier import Classifier
from cam_core.finding import Finding, Prediction
from cam_core.image import Image
from cam_core.method import Method
from cam_core.saliency import Region, SaliencyMap


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
        Groups of map names (``grad-cam``, ``score-cam:delta``) whose maps are the same up to a positive factor.
    failures : tuple of (str, str)
        Method and reason, for those that could not.
    """

    finding: Finding
    maps: tuple[SaliencyMap, ...]
    regions: tuple[tuple[Region, ...], ...]
    equivalent: tuple[tuple[str, ...], ...]
    failures: tuple[tuple[str, str], ...]


def predict(image: Image, classifier: Classifier) -> Prediction:
    """Ask a classifier about an image."""
    raise NotImplementedError


def explain(image: Image, classifier: Classifier, methods: Sequence[Method], findings: Sequence[Finding],
            ) -> tuple[Explanation, ...]:
    """Explain findings of an image by several methods."""
    raise NotImplementedError
