"""What every method says of itself, the random control, and the panel."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from small_evidence import evidence

from cam_core.classifier import Capability
from cam_core.method import Method, known_methods, method_named, variants_of
from cam_core.panel import DEFAULT_PANEL

METHODS = [method for name in known_methods() for method in variants_of(name)]


def test_the_methods_are_these() -> None:
    assert sorted(method.full_name for method in METHODS) == [
        "ablation-cam",
        "cam",
        "eigen-cam",
        "eigen-grad-cam",
        "finer-cam",
        "grad-cam",
        "grad-cam++:original",
        "grad-cam++:paper",
        "hirescam",
        "is-cam",
        "layercam",
        "occlusion:mean",
        "occlusion:zero",
        "random",
        "score-cam:clustered",
        "score-cam:delta",
        "score-cam:original",
        "score-cam:paper",
        "shapley-cam",
        "ss-cam",
        "xgrad-cam",
    ]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.full_name)
def test_every_method_declares_itself(method: Method) -> None:
    assert method_named(method.full_name) is method
    assert method.title
    assert method.scale.unit
    assert method.maps.__doc__
    assert method.class_specific == (method.name != "eigen-cam")
    assert bool(method.asks) == (Capability.SCORES in method.needs)
    for ask in method.asks:
        again = replace(ask)  # type: ignore[type-var]
        assert again is not ask
        assert (again, hash(again)) == (ask, hash(ask))
    assert (Capability.GRADIENTS in method.needs) >= (Capability.CURVATURES in method.needs)
    if method.family != "control":
        assert re.search(r"\b(19|20)\d\d\b", method.reference)
    assert method.family in (
        "ablation",
        "contrast",
        "control",
        "linear",
        "masking",
        "occlusion",
        "positive gradient",
        "principal component",
    )


def test_what_is_asked_by_several_methods_is_one_question() -> None:
    asked = [
        ask for name in ("score-cam:delta", "score-cam:paper", "score-cam:original") for ask in method_named(name).asks
    ]
    assert len(set(asked)) == 1
    assert len({ask for method in METHODS for ask in method.asks}) == 6


def test_the_random_map_is_that_of_the_picture_and_the_label() -> None:
    one = method_named("random").maps(evidence(labels=(0, 2), seed=1)).values
    again = method_named("random").maps(evidence(labels=(2,), seed=1)).values
    other = method_named("random").maps(evidence(labels=(0, 2), seed=2)).values
    assert np.array_equal(one[1], again[0])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, other)
    assert 0 <= one.min() < 0.3
    assert 0.7 < one.max() < 1


def test_the_panel_takes_one_method_of_each_family() -> None:
    assert len(DEFAULT_PANEL) == len({method_named(name).family for name in DEFAULT_PANEL}) == 4
