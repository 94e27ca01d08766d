"""Tests of what an ONNX classifier is asked: derivatives, heads, fixed batches, volumes, and what it can't do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import helper
from small_architectures import ARCHITECTURES, by_onnx, by_torch
from small_graphs import LINEAR, MATRIX, POOL, SIDE, graph, opened

from cam_core.card import ModelCard
from cam_core.classifier import Capability
from cam_core.errors import MethodNotApplicable, ModelLoadError, OutOfMemory, UnknownTargetLayer
from cam_core.explanation import explain
from cam_core.finding import Finding
from cam_core.image import Image
from cam_core.method import method_named
from cam_core.runtimes.onnx_graph import plan


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_gives_what_its_torch_twin_does(name: str) -> None:
    """Three dimensions, tokens with a class token before them, channels last; a head may be anything."""
    one, other = by_torch(name), by_onnx(name)
    assert other.capabilities == frozenset(Capability)
    source = np.random.default_rng(0)
    batch = source.standard_normal((3, 1, *ARCHITECTURES[name].grid)).astype(np.float32)
    expected, found = (model.gradients(batch, [4, 0], curvature=True) for model in (one, other))
    for part in ("scores", "activations", "gradients", "curvatures"):
        own, twin = getattr(expected, part), getattr(found, part)
        assert own.shape == twin.shape
        assert np.abs(own - twin).max() <= 1e-4 * np.abs(own).max()
    planes = source.standard_normal((5, *expected.activations.shape[1:])).astype(np.float32)
    own, twin = one.head_scores(batch[:1], planes), other.head_scores(batch[:1], planes)
    assert np.abs(own - twin).max() <= 1e-4 * np.abs(own).max()
    itself = other.head_scores(batch[1:2], found.activations[1:2])
    assert np.abs(itself - found.scores[1:2]).max() <= 1e-4 * np.abs(found.scores).max()
    assert (one.head_weights() is None) == (other.head_weights() is None)


def test_curvature_is_the_second_difference_of_the_runtime_itself(write_card: Callable[..., ModelCard]) -> None:
    """``A . (H A)`` is the second derivative along A: the head is run on A, a little more and a little less of it."""
    nodes = [
        *POOL,
        helper.make_node("MatMul", ["flat", "matrix"], ["s"]),
        helper.make_node("Sigmoid", ["s"], ["t"]),
        helper.make_node("Mul", ["t", "s"], ["scores"]),
    ]
    classifier = opened(write_card, graph(nodes), target="planes")
    batch = 0.3 * np.random.default_rng(1).standard_normal((2, 1, SIDE, SIDE)).astype(np.float32)
    capture = classifier.gradients(batch, [0, 1, 2], curvature=True)
    assert capture.curvatures is not None
    assert capture.curvatures.shape == (2, 3, 5, 16, 16)
    for index in (0, 1):
        planes = capture.activations[index].astype(np.float64)
        along = (capture.curvatures[index] * planes).sum(axis=(1, 2, 3))
        size = 1e-2
        logits = [(1 + shift * size) * planes.mean(axis=(1, 2)) @ MATRIX for shift in (1, 0, -1)]
        values = [logit / (1 + np.exp(-logit)) for logit in logits]
        assert along == pytest.approx((values[0] - 2 * values[1] + values[2]) / size**2, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("name", ["residual", "residual 3D"])
def test_a_fixed_batch_serves_every_question(name: str) -> None:
    free, fixed = by_onnx(name), by_onnx(name, batch=2)
    batch = np.random.default_rng(0).standard_normal((3, 1, *ARCHITECTURES[name].grid)).astype(np.float32)
    expected, found = free.gradients(batch, [1]), fixed.gradients(batch, [1])
    for part in ("scores", "activations", "gradients"):
        assert getattr(found, part) == pytest.approx(getattr(expected, part), abs=1e-5)
    planes = expected.activations[[2, 1, 0]]
    assert fixed.head_scores(batch[:1], planes) == pytest.approx(free.head_scores(batch[:1], planes), abs=1e-5)
    assert fixed.registration.step == free.registration.step
    assert fixed.registration.start == pytest.approx(free.registration.start, abs=1e-4)
    assert fixed.micro_batch == 16


def test_derivatives_of_a_fixed_batch_whose_head_is_no_linear_layer(write_card: Callable[..., ModelCard]) -> None:
    nodes = [
        *POOL,
        helper.make_node("MatMul", ["flat", "matrix"], ["s"]),
        helper.make_node("Tanh", ["s"], ["scores"]),
    ]
    batch = np.random.default_rng(0).standard_normal((5, 1, SIDE, SIDE)).astype(np.float32)
    free, fixed = (opened(write_card, graph(nodes, batch=size)) for size in ("n", 2))
    expected, found = (one.gradients(batch, [2, 0], curvature=True) for one in (free, fixed))
    assert found.gradients == pytest.approx(expected.gradients, abs=1e-7)
    assert found.curvatures == pytest.approx(expected.curvatures, abs=1e-7)


def test_a_volume_s_shape_is_the_card_s(write_card: Callable[..., ModelCard]) -> None:
    from dataclasses import replace

    from small_architectures import paper

    other = paper("residual 3D", "onnx", None)
    weights = graph(LINEAR)
    with pytest.raises(ModelLoadError, match=r"not float32 \(N, 1, 16, 64, 48\)"):
        plan(other, weights)
    with pytest.raises(ModelLoadError, match="its input is not"):
        plan(replace(other, input=replace(other.input, slices=None)), weights)


def test_an_unknown_tensor_is_told_with_near_names(write_card: Callable[..., ModelCard]) -> None:
    weights = graph(LINEAR)
    with pytest.raises(UnknownTargetLayer, match="did you mean planes"):
        plan(write_card(weights, runtime="onnx", target="plane"), weights)


def test_a_target_that_is_no_planes_says_so(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    from cam_core.errors import UnusableTargetLayer

    with pytest.raises(UnusableTargetLayer, match="'flat' gives 2 dimensions, not 4"):
        opened(write_card, graph(LINEAR), target="flat").activations(batch)


def test_a_head_that_cannot_be_cut_out_says_so(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    classifier = opened(write_card, graph(LINEAR))
    from cam_core.runtimes.once import Once
    from cam_core.runtimes.onnx_session import Session

    classifier._once_head_session = Once(lambda: Session(b"nonsense", "cpu", classifier.card.weights))
    with pytest.raises(MethodNotApplicable, match="the head alone"):
        classifier.head_scores(batch, np.zeros((1, 5, 16, 16), np.float32))


def test_a_head_that_reads_one_part_of_a_split_target(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    """The target is one output of a node whose other output the head reads, too."""
    nodes = [
        helper.make_node("Split", ["planes", "sizes"], ["left", "right"], axis=1),
        helper.make_node("GlobalAveragePool", ["left"], ["l"]),
        helper.make_node("GlobalAveragePool", ["right"], ["r"]),
        helper.make_node("Concat", ["l", "r"], ["both"], axis=1),
        helper.make_node("Flatten", ["both"], ["f"]),
        helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
    ]
    classifier = opened(write_card, graph(nodes, {"sizes": np.array([2, 3])}), target="left")
    capture = classifier.gradients(batch, [1])
    assert capture.gradients is not None
    assert capture.gradients[0, 0, :, 0, 0] == pytest.approx(MATRIX[:2, 1] / 256, rel=1e-4)
    silent = classifier.head_scores(batch, np.zeros((1, 2, 16, 16), np.float32))
    drop = capture.activations[0].mean(axis=(1, 2)) @ MATRIX[:2]
    assert silent == pytest.approx(capture.scores - drop, abs=1e-5)


def test_no_dropout_to_be_sampled(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    with pytest.raises(MethodNotApplicable, match="no dropout"):
        opened(write_card, graph(LINEAR)).sampled_scores(batch, 0)


def test_running_out_of_memory_is_told(
    write_card: Callable[..., ModelCard], batch: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException

    classifier = opened(write_card, graph(LINEAR))
    head = classifier._once_head_session()

    class Dry:
        def run(self, names: object, inputs: object) -> None:
            raise RuntimeException("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 1")

    monkeypatch.setattr(classifier._session, "_session", Dry())
    monkeypatch.setattr(head, "_session", Dry())
    for ask in (classifier.scores, classifier.perturbed_scores, classifier.activations):
        with pytest.raises(OutOfMemory, match="1 input"):
            ask(batch)
    with pytest.raises(OutOfMemory, match="3 input"):
        classifier.head_scores(batch, np.zeros((3, 5, 16, 16), np.float32))


def test_a_batch_of_one_that_was_baked_in_is_kept_to(write_card: Callable[..., ModelCard], image: Image) -> None:
    """The graph says that it takes any number, and makes one row of them all."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "row"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["scores"]),
    ]
    classifier = opened(write_card, graph(nodes, {"row": np.array([1, 5])}), target="planes")
    free = opened(write_card, graph(LINEAR), target="planes")
    assert classifier.micro_batch == classifier.head_batch == 1
    assert free.micro_batch == free.head_batch == 16
    methods = [method_named(name) for name in ("grad-cam", "score-cam", "ablation-cam", "occlusion")]
    findings = [Finding(label=classifier.card.labels[0], logit=0.0, probability=0.5)]
    (found,), (expected,) = (explain(image, one, methods, findings) for one in (classifier, free))
    assert found.failures == ()
    for one, other in zip(found.maps, expected.maps, strict=True):
        assert np.abs(one.values - other.values).max() <= 1e-4 * np.abs(other.values).max(), one.name
