"""Tests of what is shared: passes of several images, perturbations of several methods, and ablated heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from cam_core.classifier import Capability, Classifier
from cam_core.errors import ExplanationFailed, ModelError, ModelLoadError, OutOfMemory
from cam_core.explanation import explain, explain_batch
from cam_core.finding import Finding
from cam_core.image import Image
from cam_core.method import Evidence, RawMaps, Subject, method_named
from cam_core.plan import ablated_scores
from cam_core.runtimes.torch_runtime import TorchClassifier
from cam_core.saliency import MapCondition

METHODS = tuple(method_named(name) for name in ("grad-cam", "grad-cam++", "score-cam", "score-cam:paper"))


class Counting:
    """A classifier that notes the size of every pass over changed inputs."""

    def __init__(self, inner: Classifier) -> None:
        self.inner = inner
        self.sizes: list[int] = []
        self.captures = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def gradients(self, batch: np.ndarray, labels: list[int], *, curvature: bool = False) -> object:
        self.captures += 1
        return self.inner.gradients(batch, labels, curvature=curvature)

    def perturbed_scores(self, batch: np.ndarray) -> np.ndarray:
        self.sizes.append(len(batch))
        return self.inner.perturbed_scores(batch)


def turned(image: Image) -> Image:
    return Image(pixels=image.pixels[::-1, ::-1].copy(), spacing_mm=None)


def test_images_of_several_jobs_share_passes(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    counting = Counting(torch_classifier("layers"))
    images = [image, turned(image), image]
    findings = [[finding(0)], [], [finding(2), finding(0)]]
    together = explain_batch(images, counting, METHODS, findings)  # type: ignore[arg-type]
    assert counting.captures == 1
    # eight channels and a baseline an image, in passes of sixteen
    assert counting.sizes == [16, 2]
    assert together[1] == ()
    for one, wanted, found in zip(images, findings, together, strict=True):
        alone = explain(one, torch_classifier("layers"), METHODS, wanted)
        assert [each.finding for each in found] == wanted
        for single, shared in zip(alone, found, strict=True):
            for by_itself, in_company in zip(single.maps, shared.maps, strict=True):
                assert in_company.name == by_itself.name
                scale = float(np.abs(by_itself.values).max())
                assert np.abs(in_company.values - by_itself.values).max() <= 1e-5 * scale


def test_a_capture_that_does_not_fit_in_memory_is_halved(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    class Small(Counting):
        def gradients(self, batch: np.ndarray, labels: list[int], *, curvature: bool = False) -> object:
            if len(batch) > 2:
                raise OutOfMemory(len(batch), "cpu")
            return super().gradients(batch, labels, curvature=curvature)

    small = Small(torch_classifier("layers"))
    images = [image, turned(image), image, turned(image), image]
    found = explain_batch(images, small, METHODS, [[finding(0)]] * 5)  # type: ignore[arg-type]
    assert small.captures == 3
    for one, (explanation,) in zip(images, found, strict=True):
        (alone,) = explain(one, torch_classifier("layers"), METHODS, [finding(0)])
        for by_itself, in_company in zip(alone.maps, explanation.maps, strict=True):
            scale = float(np.abs(by_itself.values).max())
            assert np.abs(in_company.values - by_itself.values).max() <= 1e-5 * scale


def test_as_many_lists_of_findings_as_images(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    with pytest.raises(ValueError, match="1 images, 2 lists"):
        explain_batch([image], torch_classifier("layers"), METHODS, [[finding(0)], []])
    assert explain_batch([], torch_classifier("layers"), METHODS, []) == ()


@dataclass(frozen=True)
class Shifted:
    """The input moved by some pixels; images darker than average can't be moved."""

    step: int

    def inputs(self, subject: Subject, most: int) -> Iterator[np.ndarray]:
        yield np.roll(subject.input, self.step, axis=-1)[None]
        if subject.input[0, 0, 0] < 0:
            raise ExplanationFailed("shifted", "too dark to be moved")
        yield np.roll(subject.input, -self.step, axis=-1)[None]


def test_a_perturbation_that_fails_on_one_image_leaves_the_others_their_answers(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    bright = Image(pixels=np.where(np.arange(64)[:, None] < 8, 1.0, image.pixels).astype(np.float32), spacing_mm=None)
    dark = Image(pixels=np.where(np.arange(64)[:, None] < 8, 0.0, image.pixels).astype(np.float32), spacing_mm=None)
    ask = Shifted(3)
    seen: list[np.ndarray] = []

    def maps(evidence: Evidence) -> RawMaps:
        seen.append(evidence.answers(Shifted(3)))
        return RawMaps(values=np.ones((len(evidence.labels), 8, 8), np.float32))

    method = replace(method_named("cam"), name="shifted", maps=maps, asks=(ask,))
    classifier = torch_classifier("layers")
    wanted = [[finding(0)]] * 3
    first, second, third = explain_batch([bright, dark, bright], classifier, [method], wanted)
    assert second[0].maps == ()
    assert second[0].failures == (("shifted", "too dark to be moved"),)
    assert [len(one[0].maps) for one in (first, third)] == [1, 1]
    assert first[0].maps[0].condition is MapCondition.FLAT
    assert first[0].regions == ((),)
    assert np.array_equal(seen[0], seen[1])
    alone = explain_batch([bright], classifier, [method], [[finding(0)]])
    assert np.allclose(seen[2], seen[0], atol=1e-5)
    assert alone[0][0].maps


@pytest.mark.parametrize("model", ["linear", "layers", "flat", "in-place"])
def test_ablated_scores_are_those_of_the_head_without_a_channel(
    model: str, batch: np.ndarray, torch_classifier: Callable[..., TorchClassifier]
) -> None:
    classifier = torch_classifier(model)
    capture = classifier.activations(batch)
    subject = Subject(input=batch[0], activations=capture.activations[0], registration=classifier.registration)
    found = ablated_scores(classifier, subject, capture.scores[0])
    module = classifier.module_copy()
    layer = dict(module.named_modules())[classifier.card.target_layer or ""]
    import torch

    for channel in range(8):

        def silence(module: object, inputs: object, output: torch.Tensor, channel: int = channel) -> torch.Tensor:
            changed = output.clone()
            changed[:, channel] = 0
            return changed

        handle = layer.register_forward_hook(silence)
        slow = module(torch.from_numpy(batch)).detach().numpy()[0]
        handle.remove()
        assert found[channel] == pytest.approx(slow, rel=1e-4, abs=1e-4), channel


def test_a_score_that_does_not_depend_on_the_layer_is_told(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    classifier = torch_classifier("layers")
    classifier._module.head[2].weight.data = classifier._module.head[2].weight.data.clone()
    classifier._module.head[2].weight.data[1] = 0
    nothing, something = explain(image, classifier, METHODS, [finding(1), finding(0)])
    assert {one.condition for one in nothing.maps} == {MapCondition.NO_CLASS_EVIDENCE}
    assert all(one.is_blank for one in nothing.maps)
    assert nothing.regions == ((),) * len(METHODS)
    assert any(one.condition is MapCondition.POSITIVE_EVIDENCE for one in something.maps)


def test_a_method_that_needs_what_the_model_lacks_costs_no_pass(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    class Poor(Counting):
        capabilities = frozenset({Capability.ACTIVATIONS})

    poor = Poor(torch_classifier("layers"))
    (one,) = explain(image, poor, METHODS, [finding(0)])  # type: ignore[arg-type]
    assert poor.captures == 0
    assert poor.sizes == []
    assert len(one.failures) == len(METHODS)


@pytest.mark.parametrize("error", [OutOfMemory(1, "cpu"), ModelLoadError(Path("weights"), "it takes one input")])
def test_passes_that_the_model_can_not_run_fail_their_own_methods_alone(
    error: ModelError,
    image: Image,
    torch_classifier: Callable[..., TorchClassifier],
    finding: Callable[..., Finding],
) -> None:
    class Broken(Counting):
        def perturbed_scores(self, batch: np.ndarray) -> np.ndarray:
            raise error

        def head_scores(self, batch: np.ndarray, activations: np.ndarray) -> np.ndarray:
            raise error

    methods = [*METHODS, method_named("ablation-cam")]
    (one,) = explain(image, Broken(torch_classifier("layers")), methods, [finding(0)])  # type: ignore[arg-type]
    (whole,) = explain(image, torch_classifier("layers"), methods, [finding(0)])
    kept = [saliency for saliency in whole.maps if saliency.name.startswith("grad-cam")]
    for saliency, expected in zip(one.maps, kept, strict=True):
        assert saliency.name == expected.name
        assert np.array_equal(saliency.values, expected.values)
    assert [name for name, _ in one.failures] == ["score-cam:delta", "score-cam:paper", "ablation-cam"]
    assert {reason for _, reason in one.failures} == {str(error)}
