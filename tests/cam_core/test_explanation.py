"""Tests of predicting and explaining, and the laws that hold for every method on every small model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from cam_core.card import InputSpecification
from cam_core.classifier import Capability, Capture, Classifier
from cam_core.equivalence import equivalent_groups
from cam_core.errors import ExplanationFailed, MethodNotApplicable, OutOfMemory
from cam_core.explanation import ExplainOptions, Explanation, explain
from cam_core.finding import Finding
from cam_core.image import Image
from cam_core.method import Evidence, Method, RawMaps, method_named
from cam_core.model_input import model_input
from cam_core.normalisation import by_map_maximum
from cam_core.prediction import predict
from cam_core.region import Region, regions
from cam_core.runtimes.onnx_runtime import OnnxClassifier
from cam_core.runtimes.torch_runtime import TorchClassifier
from cam_core.saliency import SaliencyMap

ALL = ("cam", "grad-cam", "grad-cam++", "grad-cam++:original", "score-cam", "score-cam:paper")
METHODS = tuple(method_named(name) for name in ALL)
MODELS = ("linear", "layers", "flat", "in-place", "colour")


def summary(explanations: tuple[Explanation, ...]) -> list[bytes]:
    return [one.values.tobytes() for explanation in explanations for one in explanation.maps]


def test_the_probability_is_that_of_the_logit(image: Image, torch_classifier: Callable[..., TorchClassifier]) -> None:
    classifier = torch_classifier("layers")
    batch, _ = model_input(image, classifier.card.input)
    logits = classifier.scores(batch)[0]
    found = predict(image, classifier).findings
    assert [one.logit for one in found] == pytest.approx(logits.tolist())
    assert [one.probability for one in found] == pytest.approx((1 / (1 + np.exp(-logits))).tolist())
    assert [one.present for one in found] == [logit >= 0 for logit in logits]
    classifier.card = replace(classifier.card, activation="softmax")
    shares = [one.probability for one in predict(image, classifier).findings]
    assert shares == pytest.approx((np.exp(logits) / np.exp(logits).sum()).tolist())


def test_per_image_and_fixed_normalisation(image: Image) -> None:
    wanted = InputSpecification(
        rows=32, columns=16, channels=1, fit="stretch", pad_value=0, normalisation="per-image", mean=(), sd=()
    )
    batch, fit = model_input(image, wanted)
    assert batch.shape == (1, 1, 32, 16)
    assert batch.dtype == np.float32
    assert fit.scale == (0.5, 0.25)
    assert batch.mean() == pytest.approx(0, abs=1e-5)
    assert batch.std() == pytest.approx(1, abs=1e-4)
    flat = Image(pixels=np.full((8, 8), 0.3, np.float32), spacing_mm=None)
    assert np.abs(model_input(flat, wanted)[0]).max() < 1e-3
    fixed = replace(wanted, channels=3, normalisation="fixed", mean=(0.1, 0.2, 0.3), sd=(0.5, 1.0, 2.0))
    batch, _ = model_input(flat, fixed)
    assert batch[0, :, 0, 0] == pytest.approx([0.4, 0.1, 0.0], abs=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_laws_of_every_method_on_every_model(
    model: str, image: Image, torch_classifier: Callable[..., TorchClassifier]
) -> None:
    classifier = torch_classifier(model)
    findings = predict(image, classifier).findings
    first = explain(image, classifier, METHODS, findings)
    again = explain(image, classifier, METHODS, findings)
    assert summary(first) == summary(again)
    for finding, explanation in zip(findings, first, strict=True):
        assert explanation.finding is finding
        named = [one.name for one in explanation.maps] + [name for name, _ in explanation.failures]
        assert sorted(named) == sorted(method.full_name for method in METHODS)
        assert ("cam" in dict(explanation.failures)) == (model != "linear")
        for saliency, found in zip(explanation.maps, explanation.regions, strict=True):
            assert saliency.values.dtype == np.float32
            assert saliency.values.shape == (8, 8)
            assert np.isfinite(saliency.values).all()
            assert saliency.label == finding.label.name
            assert saliency.registration.measured
            assert bool(found) == (not saliency.is_blank)
            assert saliency.is_blank == (not (saliency.values > 0).any())
            assert (saliency.baseline is not None) == (saliency.method == "score-cam")
            assert saliency.on_image().shape == image.shape
            if saliency.method != "cam":
                assert saliency.values.min() >= 0
    assert any(not one.is_blank for explanation in first for one in explanation.maps)


@pytest.mark.parametrize("model", ["linear", "layers", "flat", "colour"])
def test_onnx_and_torch_show_the_same(
    model: str,
    image: Image,
    torch_classifier: Callable[..., TorchClassifier],
    onnx_classifier: Callable[..., OnnxClassifier],
) -> None:
    findings = predict(image, torch_classifier(model)).findings
    for one, other in zip(
        explain(image, torch_classifier(model), METHODS, findings),
        explain(image, onnx_classifier(model), METHODS, findings),
        strict=True,
    ):
        assert [method for method, _ in one.failures] == [method for method, _ in other.failures]
        assert one.equivalent == other.equivalent
        for by_torch, by_onnx in zip(one.maps, other.maps, strict=True):
            assert by_torch.name == by_onnx.name
            difference = by_map_maximum(by_torch.on_image()) - by_map_maximum(by_onnx.on_image())
            assert np.abs(difference).max() <= 5e-5
            values = by_map_maximum(by_torch.values) - by_map_maximum(by_onnx.values)
            assert np.abs(values).max() <= 5e-5


def test_eight_threads_explain_as_one_does(
    image: Image, torch_classifier: Callable[..., TorchClassifier], onnx_classifier: Callable[..., OnnxClassifier]
) -> None:
    other = Image(pixels=image.pixels[::-1, ::-1].copy(), spacing_mm=None)
    for classifier in (torch_classifier("layers"), onnx_classifier("layers")):
        findings = predict(image, classifier).findings[:1]
        expected = [summary(explain(one, classifier, METHODS, findings)) for one in (image, other)]

        def ask(
            number: int,
            classifier: Classifier = classifier,
            findings: tuple[Finding, ...] = findings,
            expected: list[list[bytes]] = expected,
        ) -> bool:
            one = number % 2
            return summary(explain((image, other)[one], classifier, METHODS, findings)) == expected[one]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(24)))


def test_the_same_evidence_is_named_once(image: Image, torch_classifier: Callable[..., TorchClassifier]) -> None:
    classifier = torch_classifier("linear")
    findings = predict(image, classifier).findings
    shown = [one for one in explain(image, classifier, METHODS, findings) if not one.maps[0].is_blank]
    assert shown
    for one in shown:
        assert ("cam", "grad-cam") in one.equivalent
        assert all("score-cam:delta" not in group for group in one.equivalent)
    (one,) = explain(
        image, torch_classifier("layers"), [method_named("grad-cam"), method_named("score-cam")], findings[:1]
    )
    assert one.equivalent == ()


def test_equivalence_is_up_to_a_positive_factor(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    (one,) = explain(image, torch_classifier("layers"), [method_named("grad-cam++")], [finding(1)])
    base = one.maps[0]
    assert not base.is_blank
    scaled = replace(base, values=base.values * np.float32(7.5), method="scaled", variant="")
    turned = replace(base, values=-base.values, method="turned", variant="")
    bent = replace(base, values=base.values**2, method="bent", variant="")
    assert equivalent_groups([base, turned, bent, scaled]) == (("grad-cam++:paper", "scaled"),)
    assert equivalent_groups([turned, turned]) == ()


def test_measured_and_library_alignment_differ_in_place_and_masks(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    classifier = torch_classifier("layers")
    methods = [method_named("grad-cam++"), method_named("score-cam")]
    measured = explain(image, classifier, methods, [finding(0)])[0]
    library = explain(image, classifier, methods, [finding(0)], options=ExplainOptions(align="library"))[0]
    assert not library.maps[0].registration.measured
    assert library.maps[0].registration.start == (1.5, 1.5)
    assert np.array_equal(measured.maps[0].values, library.maps[0].values)
    assert not np.array_equal(measured.maps[0].on_image(), library.maps[0].on_image())
    assert not np.array_equal(measured.maps[1].values, library.maps[1].values)


class Counting:
    """A classifier that counts what it is asked."""

    def __init__(self, inner: Classifier) -> None:
        self.inner = inner
        self.passes: list[str] = []
        self.masked = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def perturbed_scores(self, batch: np.ndarray) -> np.ndarray:
        self.masked += len(batch)
        self.passes.append("perturbed")
        return self.inner.perturbed_scores(batch)

    def activations(self, batch: np.ndarray) -> Capture:
        self.passes.append("activations")
        return self.inner.activations(batch)

    def gradients(self, batch: np.ndarray, labels: list[int], *, curvature: bool = False) -> Capture:
        self.passes.append("gradients")
        return self.inner.gradients(batch, labels, curvature=curvature)


def test_one_pass_and_one_set_of_masks_serve_all(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    counting = Counting(torch_classifier("layers"))
    explain(image, counting, METHODS, [finding(0), finding(1), finding(2)])  # type: ignore[arg-type]
    assert counting.passes == ["gradients", "perturbed"]
    assert counting.masked <= 8 + 1
    counting.passes.clear()
    explain(image, counting, [method_named("score-cam")], [finding(0)])  # type: ignore[arg-type]
    assert counting.passes == ["activations", "perturbed"]
    assert explain(image, counting, METHODS, []) == ()  # type: ignore[arg-type]


def test_a_caller_chooses_regions_and_is_told_the_times(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    told: dict[str, float] = {}
    methods = [method_named("grad-cam++"), method_named("score-cam")]
    (one,) = explain(
        image,
        torch_classifier("layers"),
        methods,
        [finding(1)],
        options=ExplainOptions(region_threshold=0.2, regions_per_map=1),
        timed=told.__setitem__,
    )
    assert all(len(found) == 1 and found[0].threshold_fraction == 0.2 for found in one.regions)
    assert list(told) == ["activations and gradients", "changed inputs", "grad-cam++:paper", "score-cam:delta"]
    assert min(told.values()) > 0


def failing(name: str, maps: Callable[[Evidence], RawMaps], needs: frozenset[Capability] = frozenset()) -> Method:
    return replace(method_named("cam"), name=name, variant="", maps=maps, needs=needs)


def test_a_method_that_fails_is_listed_and_the_others_go_on(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    def not_numbers(evidence: Evidence) -> RawMaps:
        return RawMaps(values=np.full((1, 8, 8), np.nan, np.float32))

    def misshapen(evidence: Evidence) -> RawMaps:
        return RawMaps(values=np.zeros((2, 3, 3), np.float32))

    methods = [failing("nan", not_numbers), failing("shape", misshapen), method_named("cam"), method_named("grad-cam")]
    (one,) = explain(image, torch_classifier("layers"), methods, [finding(0)])
    assert [saliency.name for saliency in one.maps] == ["grad-cam"]
    reasons = dict(one.failures)
    assert "not finite" in reasons["nan"]
    assert "shape (2, 3, 3)" in reasons["shape"]
    assert "global average pooling" in reasons["cam"]


def test_a_model_without_gradients_is_explained_by_what_needs_none(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    class Without(Counting):
        def gradients(self, batch: np.ndarray, labels: list[int], *, curvature: bool = False) -> Capture:
            raise MethodNotApplicable("gradient", "in the model's head, operator Odd can't be differentiated here")

    (one,) = explain(image, Without(torch_classifier("layers")), METHODS, [finding(0)])  # type: ignore[arg-type]
    assert [saliency.name for saliency in one.maps] == ["score-cam:delta", "score-cam:paper"]
    assert "operator Odd" in dict(one.failures)["grad-cam"]

    class Poor(Counting):
        capabilities = frozenset({Capability.SCORES, Capability.ACTIVATIONS})

    (one,) = explain(image, Poor(torch_classifier("layers")), METHODS, [finding(0)])  # type: ignore[arg-type]
    assert "gives no gradients" in dict(one.failures)["grad-cam++:paper"]


def test_scores_that_are_no_numbers_and_foreign_labels_are_errors(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    class Broken(Counting):
        def scores(self, batch: np.ndarray) -> np.ndarray:
            return np.full((len(batch), 3), np.nan, np.float32)

    with pytest.raises(ExplanationFailed, match="not finite"):
        predict(image, Broken(torch_classifier("layers")))  # type: ignore[arg-type]
    with pytest.raises(ExplanationFailed, match="no label 'finding 7'"):
        explain(image, torch_classifier("layers"), METHODS, [finding(7)])


def test_a_method_of_foreign_code_fails_alone_whatever_it_raises_or_returns(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    def raising(error: Exception) -> Callable[[Evidence], RawMaps]:
        def maps(evidence: Evidence) -> RawMaps:
            raise error

        return maps

    def no_raw_maps(evidence: Evidence) -> RawMaps:
        return np.zeros((1, 8, 8), np.float32)  # type: ignore[return-value]

    def no_array(evidence: Evidence) -> RawMaps:
        return RawMaps(values=[[0.0]])  # type: ignore[arg-type]

    methods = [
        failing("value", raising(ValueError("odd number"))),
        failing("floating", raising(FloatingPointError("overflow"))),
        failing("algebra", raising(np.linalg.LinAlgError("singular"))),
        failing("bare", no_raw_maps),
        failing("list", no_array),
        method_named("grad-cam"),
    ]
    (one,) = explain(image, torch_classifier("layers"), methods, [finding(0)])
    assert [saliency.name for saliency in one.maps] == ["grad-cam"]
    reasons = dict(one.failures)
    assert set(reasons) == {"value", "floating", "algebra", "bare", "list"}
    assert reasons["value"] == "ValueError: odd number"
    assert "RawMaps" in reasons["bare"]
    assert "RawMaps" in reasons["list"]
    for stopping in (OutOfMemory(4, "cpu"), MemoryError()):  # trouble of the machine or the model, not of one method
        with pytest.raises(type(stopping)):
            explain(image, torch_classifier("layers"), [failing("full", raising(stopping))], [finding(0)])


def test_activations_that_are_no_numbers_stop_no_method_but_those_that_read_them(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    class Odd(Counting):
        def activations(self, batch: np.ndarray) -> Capture:
            whole = self.inner.activations(batch)
            return replace(whole, activations=whole.activations * np.float32(np.nan))

        def gradients(self, batch: np.ndarray, labels: list[int], *, curvature: bool = False) -> Capture:
            whole = self.inner.gradients(batch, labels, curvature=curvature)
            return replace(whole, activations=whole.activations * np.float32(np.nan))

    methods = [method_named(name) for name in ("eigen-cam", "eigen-grad-cam", "random")]
    (one,) = explain(image, Odd(torch_classifier("layers")), methods, [finding(0)])  # type: ignore[arg-type]
    assert [saliency.name for saliency in one.maps] == ["random"]
    assert all("not finite numbers" in reason for _, reason in one.failures)


def test_a_method_asked_for_twice_is_one_method(
    image: Image, torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    names = ("score-cam", "grad-cam", "score-cam:delta", "grad-cam")
    (one,) = explain(image, torch_classifier("layers"), [method_named(name) for name in names], [finding(0)])
    assert [saliency.name for saliency in one.maps] == ["score-cam:delta", "grad-cam"]
    assert one.equivalent == ()


def test_regions_are_looked_for_when_they_are_asked_for(
    image: Image,
    torch_classifier: Callable[..., TorchClassifier],
    finding: Callable[..., Finding],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []

    def noting(saliency: SaliencyMap, **options: object) -> tuple[Region, ...]:
        looked.append(saliency.name)
        return regions(saliency, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("cam_core.explanation.regions", noting)
    methods = [method_named("grad-cam"), method_named("score-cam")]
    (one,) = explain(image, torch_classifier("layers"), methods, [finding(0)])
    assert looked == []
    assert one.regions is one.regions
    assert looked == ["grad-cam", "score-cam:delta"]
    turned = replace(one, maps=one.maps[::-1])
    assert [len(found) for found in turned.regions] == [len(found) for found in one.regions[::-1]]


def test_a_planted_spot_is_found_where_it_is(
    torch_classifier: Callable[..., TorchClassifier], finding: Callable[..., Finding]
) -> None:
    """A model that answers brightness: the map of every method peaks on the one bright spot, whatever the shape."""
    classifier = torch_classifier("layers")
    module = classifier._module
    for parameter in module.parameters():
        parameter.data.zero_()
    module.first.weight.data[0, 0] = 0.1
    module.first.bias.data[0] = -0.6
    module.second.weight.data[0, 0] = 0.1
    module.head[0].weight.data[0, 0] = 3.0
    module.head[2].weight.data[0, 0] = 2.0
    pixels = np.full((96, 64), 0.2, np.float32)
    pixels[60:66, 20:26] = 1.0
    image = Image(pixels=pixels, spacing_mm=None)
    (one,) = explain(image, classifier, METHODS, [finding(0)])
    assert len(one.maps) == 5
    for saliency in one.maps:
        placed = saliency.on_image()
        row, column = np.unravel_index(placed.argmax(), placed.shape)
        assert (row, column) == pytest.approx((62.5, 22.5), abs=7)
