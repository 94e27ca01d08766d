"""Runs of every method on the small models of `law_models`, and how two runs are compared; tests only."""

from collections.abc import Sequence
from functools import cache

import numpy as np
from law_models import KINDS, classifier_of, image_of

from cam_core.classifier import Classifier
from cam_core.explanation import ExplainOptions, Explanation, explain
from cam_core.finding import Finding
from cam_core.image import Image, Volume
from cam_core.method import Method, known_methods, variants_of
from cam_core.prediction import predict

METHODS: tuple[Method, ...] = tuple(method for name in known_methods() for method in variants_of(name))
NAMES = tuple(method.full_name for method in METHODS)
CHOSEN = (0, 3)
"""The labels that are explained."""

WITHOUT_REGIONS = ExplainOptions(regions_per_map=0)
"""Regions have tests of their own."""

FEW = ("smooth head", "in-place relu", "vision transformer", "volume smooth head", "onnx several layers")
"""Kinds for the laws that take several runs each."""


def findings_of(classifier: Classifier, image: Image | Volume) -> list[Finding]:
    found = predict(image, classifier).findings
    return [found[label] for label in CHOSEN]


def run(classifier: Classifier, image: Image | Volume, methods: Sequence[Method] = METHODS) -> tuple[Explanation, ...]:
    return explain(image, classifier, methods, findings_of(classifier, image), options=WITHOUT_REGIONS)


@cache
def explained(name: str, seed: int = 5) -> tuple[Explanation, ...]:
    return run(classifier_of(name), image_of(KINDS[name], seed))


def values(explanations: Sequence[Explanation]) -> list[dict[str, np.ndarray]]:
    return [{one.name: one.values for one in explanation.maps} for explanation in explanations]


def same(found: Sequence[Explanation], expected: Sequence[Explanation]) -> bool:
    """Whether two runs gave the same maps to the bit, and the same failures."""
    pairs = list(zip(values(found), values(expected), strict=True))
    return all(
        one.keys() == other.keys() and all(one[key].tobytes() == other[key].tobytes() for key in one)
        for one, other in pairs
    ) and [one.failures for one in found] == [one.failures for one in expected]


def assert_near(found: Sequence[Explanation], expected: Sequence[Explanation], tolerance: float = 1e-4) -> None:
    """The same methods, the same maps but for rounding, relative to each map's own size."""
    for one, other in zip(values(found), values(expected), strict=True):
        assert one.keys() == other.keys()
        for key, slow in other.items():
            size = float(np.abs(slow).max())
            assert np.abs(one[key] - slow).max() <= tolerance * size + 1e-7 * float(size == 0), key
    for one, other in zip(found, expected, strict=True):
        assert [name for name, _ in one.failures] == [name for name, _ in other.failures]


class Around:
    """A classifier with some of its answers changed; the rest is the inner one's."""

    def __init__(self, inner: Classifier, **changes: object) -> None:
        self._inner = inner
        self.__dict__.update(changes)

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)
