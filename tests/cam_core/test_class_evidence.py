"""When a map is no evidence although it is not zero: what the method read of the model did not move."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cam_core.explanation import explain
from cam_core.finding import Finding
from cam_core.image import Image
from cam_core.method import method_named
from cam_core.runtimes.torch_runtime import TorchClassifier
from cam_core.saliency import MapCondition


@pytest.mark.parametrize("scale", [1e-10, 1.0, 1e10])
def test_rounding_is_no_evidence(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding], scale: float
) -> None:
    """The first logit is a bias and the sum of normalised features, 0 but for rounding; the second one is real."""
    classifier = torch_classifier("layers")
    last = torch.nn.Linear(8, 3)
    last.weight.data = torch.randn(3, 8, generator=torch.Generator().manual_seed(1)) * scale
    last.weight.data[0] = scale
    last.bias.data[:] = 2 * scale
    classifier._module.head = torch.nn.Sequential(torch.nn.LayerNorm(8, elementwise_affine=False), last)
    methods = [method_named(name) for name in ("grad-cam", "hirescam", "ablation-cam", "score-cam", "occlusion")]
    nothing, real = explain(image, classifier, methods, [finding(0), finding(1)])
    assert nothing.failures == real.failures == ()
    assert {one.condition for one in nothing.maps} == {MapCondition.NO_CLASS_EVIDENCE}
    assert all(one.condition is not MapCondition.NO_CLASS_EVIDENCE for one in real.maps)


def test_equal_probabilities_are_no_evidence_though_their_logits_differ(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    classifier = torch_classifier("layers")
    classifier._module.head[2].bias.data[0] = 60.0  # the sigmoid is 1 whatever the input
    methods = [method_named("score-cam"), method_named("score-cam:original")]
    saturated, real = explain(image, classifier, methods, [finding(0), finding(1)])
    assert [one.class_evidence for one in saturated.maps] == [True, False]
    assert [one.class_evidence for one in real.maps] == [True, True]
