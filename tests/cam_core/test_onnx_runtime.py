"""Tests of the ONNX runtime: a bare file gives what its torch twin gives, and what can't be done is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from small_graphs import LINEAR, MATRIX, POOL, SIDE, graph, opened, source
from torch import nn

from cam_core.card import ModelCard
from cam_core.classifier import Capability, open_classifier
from cam_core.errors import DigestMismatch, MethodNotApplicable, ModelLoadError, UnknownTargetLayer
from cam_core.runtimes.onnx_call import UnsupportedOperator
from cam_core.runtimes.onnx_graph import plan
from cam_core.runtimes.onnx_replay import OPERATORS, replay
from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier


@pytest.mark.parametrize("name", ["linear", "layers", "flat", "colour"])
def test_an_exported_model_captures_what_its_twin_does(
    name: str, torch_classifier: Callable[..., TorchClassifier], onnx_classifier: Callable[..., OnnxClassifier]
) -> None:
    batch = np.random.default_rng(1).standard_normal((2, 3 if name == "colour" else 1, SIDE, SIDE)).astype(np.float32)
    by_torch, by_onnx = torch_classifier(name).gradients(batch, [2, 1]), onnx_classifier(name).gradients(batch, [2, 1])
    assert by_onnx.scores == pytest.approx(by_torch.scores, abs=1e-5)
    assert by_onnx.activations == pytest.approx(by_torch.activations, abs=1e-5)
    assert by_onnx.gradients == pytest.approx(by_torch.gradients, rel=1e-4, abs=1e-7)


def test_head_weights_are_the_exact_matrix(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    classifier = opened(write_card, graph(LINEAR))
    found = classifier.head_weights()
    assert found is not None
    assert np.array_equal(found, MATRIX.T)
    gradients = classifier.gradients(batch, [1]).gradients
    assert gradients is not None
    assert np.array_equal(gradients[0, 0, :, 3, 3], MATRIX.T[1] / np.float32(16 * 16))


@pytest.mark.parametrize("last", ["Sigmoid", "Softmax", "LogSoftmax"])
def test_logits_are_taken_from_before_the_final_activation(
    last: str, write_card: Callable[..., ModelCard], batch: np.ndarray
) -> None:
    expected = opened(write_card, graph(LINEAR)).scores(batch)
    nodes = [*LINEAR, helper.make_node(last, ["scores"], ["end"]), helper.make_node("Identity", ["end"], ["out"])]
    assert np.array_equal(opened(write_card, graph(nodes, output="out")).scores(batch), expected)


HEADS = {
    "ReduceMean": (
        [
            helper.make_node("ReduceMean", ["planes"], ["flat"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["flat", "matrix"], ["scores"], alpha=2.0),
        ],
        {},
        True,
    ),
    "GlobalMaxPool": (
        [
            helper.make_node("GlobalMaxPool", ["planes"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
        ],
        {},
        False,
    ),
    "MaxPool, AveragePool, Reshape": (
        [
            helper.make_node("MaxPool", ["planes"], ["m"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("AveragePool", ["m"], ["a"], kernel_shape=[8, 8]),
            helper.make_node("Reshape", ["a", "shape"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
        ],
        {"shape": np.array([0, -1])},
        False,
    ),
    "Squeeze, Mul, Add, Clip, Sub, Tanh": (
        [
            helper.make_node("GlobalAveragePool", ["planes"], ["p"]),
            helper.make_node("Squeeze", ["p", "axes"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["s"]),
            helper.make_node("Mul", ["s", "three"], ["t"]),
            helper.make_node("Add", ["t", "one"], ["u"]),
            helper.make_node("Sub", ["u", "three"], ["v"]),
            helper.make_node("Tanh", ["v"], ["w"]),
            helper.make_node("Clip", ["w", "low"], ["scores"]),
        ],
        {"axes": np.array([2, 3]), "three": np.float32([3, 1, 2]), "one": np.float32(1), "low": np.float32(-2)},
        False,
    ),
    "gate by Sigmoid": (
        [
            helper.make_node("GlobalAveragePool", ["planes"], ["p"]),
            helper.make_node("Sigmoid", ["p"], ["g"]),
            helper.make_node("Mul", ["planes", "g"], ["gated"]),
            helper.make_node("GlobalAveragePool", ["gated"], ["q"]),
            helper.make_node("Flatten", ["q"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
        ],
        {},
        False,
    ),
    "Shape, Gather, Concat": (
        [
            helper.make_node("GlobalAveragePool", ["planes"], ["p"]),
            helper.make_node("Shape", ["p"], ["shape"]),
            helper.make_node("Gather", ["shape", "first"], ["n"]),
            helper.make_node("Concat", ["n", "minus"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["p", "wanted"], ["f"]),
            helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
        ],
        {"first": np.array([0]), "minus": np.array([-1])},
        True,
    ),
    "Conv, BatchNormalization, Transpose": (
        [
            helper.make_node(
                "Conv", ["planes", "k2"], ["c"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", strides=[2, 2]
            ),
            helper.make_node("BatchNormalization", ["c", "one5", "half5", "half5", "one5"], ["b"]),
            helper.make_node("LeakyRelu", ["b"], ["l"]),
            helper.make_node("Transpose", ["l"], ["t"], perm=[0, 2, 3, 1]),
            helper.make_node("ReduceMean", ["t"], ["f"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
        ],
        {
            "k2": source.normal(size=(5, 5, 3, 3)).astype(np.float32),
            "one5": np.ones(5, np.float32),
            "half5": np.full(5, 0.5, np.float32),
        },
        False,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_head_gradients_match_finite_differences_of_the_runtime_itself(
    name: str, write_card: Callable[..., ModelCard], batch: np.ndarray
) -> None:
    """The head is run by onnxruntime on changed planes; its slope along random directions is the gradient's."""
    nodes, constants, linear = HEADS[name]
    weights = graph(nodes, constants)
    classifier = opened(write_card, weights, target="planes")
    assert (classifier.head_weights() is not None) == linear
    capture = classifier.gradients(batch, [0, 1, 2])
    assert capture.gradients is not None
    extracted = onnx.utils.Extractor(onnx.load_model_from_string(_with_planes(weights)))
    head = extracted.extract_model(["planes"], ["scores"])
    import onnxruntime

    session = onnxruntime.InferenceSession(head.SerializeToString(), providers=["CPUExecutionProvider"])
    direction = np.random.default_rng(3).standard_normal(capture.activations.shape).astype(np.float32)
    size = np.float32(1e-3)
    both = [session.run(["scores"], {"planes": capture.activations + sign * size * direction})[0] for sign in (1, -1)]
    slopes = (both[0] - both[1])[0] / (2 * size)
    found = (capture.gradients[0] * direction).sum(axis=(1, 2, 3))
    assert found == pytest.approx(slopes, rel=0.02, abs=0.02 * float(np.abs(slopes).max()))


def _with_planes(weights: bytes) -> bytes:
    model = onnx.load_model_from_string(weights)
    model.graph.value_info.append(helper.make_tensor_value_info("planes", TensorProto.FLOAT, ["n", 5, 16, 16]))
    encoded: bytes = model.SerializeToString()
    return encoded


def test_the_target_is_found_or_named(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    weights = graph(LINEAR)
    assert plan(write_card(weights, runtime="onnx", target=None), weights).target == "planes"
    assert plan(write_card(weights, runtime="onnx", target="raw"), weights).target == "raw"
    assert plan(write_card(weights, runtime="onnx", target="conv"), weights).target == "raw"
    assert opened(write_card, weights, "raw").activations(batch).activations.min() < 0
    with pytest.raises(UnknownTargetLayer, match="planes"):
        plan(write_card(weights, runtime="onnx", target="layer4"), weights)
    no_planes = graph(
        [helper.make_node("Flatten", ["image"], ["f"]), helper.make_node("ReduceMean", ["f"], ["scores"], axes=[1])]
    )
    with pytest.raises(UnknownTargetLayer):
        plan(write_card(no_planes, runtime="onnx", target=None), no_planes)


def test_a_way_past_the_target_is_followed(write_card: Callable[..., ModelCard]) -> None:
    """The logits are gated by the input itself: derivatives and head passes are those of that very input."""
    nodes = [
        *POOL,
        helper.make_node("MatMul", ["flat", "matrix"], ["s"]),
        helper.make_node("ReduceMean", ["image"], ["m"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["m", "one"], ["c"]),
        helper.make_node("Mul", ["s", "c"], ["scores"]),
    ]
    classifier = opened(write_card, graph(nodes, {"one": np.array([1])}), target="planes")
    assert classifier.head_weights() is None
    batch = np.random.default_rng(2).standard_normal((2, 1, SIDE, SIDE)).astype(np.float32)
    capture = classifier.gradients(batch, [2])
    assert capture.gradients is not None
    for index in (0, 1):
        gate = batch[index].mean()
        assert capture.gradients[index, 0, :, 3, 3] == pytest.approx(gate * MATRIX[:, 2] / 256, rel=1e-3)
        others = np.random.default_rng(index).standard_normal((4, 5, 16, 16)).astype(np.float32)
        expected = gate * (others.mean(axis=(2, 3)) @ MATRIX)
        assert classifier.head_scores(batch[index : index + 1], others) == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_an_unknown_head_operator_is_named(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    assert "Celu" not in OPERATORS
    nodes = [*POOL, helper.make_node("Celu", ["flat"], ["c"]), helper.make_node("MatMul", ["c", "matrix"], ["scores"])]
    classifier = opened(write_card, graph(nodes))
    assert classifier.activations(batch).activations.shape == (1, 5, 16, 16)
    assert classifier.head_weights() is None
    assert classifier.capabilities == frozenset(Capability) - {Capability.CURVATURES}
    with pytest.raises(MethodNotApplicable, match="Celu"):
        classifier.gradients(batch, [0])
    others = np.random.default_rng(0).standard_normal((3, 5, 16, 16)).astype(np.float32)
    means = others.mean(axis=(2, 3))
    expected = np.where(means > 0, means, np.expm1(means)) @ MATRIX
    assert classifier.head_scores(batch, others) == pytest.approx(expected, abs=1e-5)


def test_an_unknown_trunk_operator_is_measured_by_differences(write_card: Callable[..., ModelCard]) -> None:
    nodes = [
        helper.make_node("Celu", ["planes"], ["bent"]),
        helper.make_node("GlobalAveragePool", ["bent"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "matrix"], ["scores"]),
    ]
    found = opened(write_card, graph(nodes), target="bent").registration
    assert found.measured
    assert found.step == (2, 2)
    assert found.start == pytest.approx((0, 0), abs=0.5)


def test_a_fixed_batch_size_is_served_in_pieces(write_card: Callable[..., ModelCard]) -> None:
    batch = np.random.default_rng(0).standard_normal((5, 1, SIDE, SIDE)).astype(np.float32)
    free, fixed = opened(write_card, graph(LINEAR)), opened(write_card, graph(LINEAR, batch=2))
    assert fixed.scores(batch) == pytest.approx(free.scores(batch), abs=1e-6)
    assert fixed.activations(batch).activations.shape == (5, 5, 16, 16)


def test_files_that_are_refused(write_card: Callable[..., ModelCard], batch: np.ndarray) -> None:
    with pytest.raises(ModelLoadError, match="not a valid ONNX model"):
        opened(write_card, b"nonsense")
    model = onnx.load_model_from_string(graph(LINEAR))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelLoadError, match="the digest doesn't cover"):
        opened(write_card, model.SerializeToString())
    weights = graph(LINEAR)
    with pytest.raises(ModelLoadError, match="its input is not"):
        open_onnx(write_card(weights, runtime="onnx", target=None, side=64), weights, "cpu")
    with pytest.raises(ModelLoadError, match="the card has 2 labels"):
        open_onnx(write_card(weights, runtime="onnx", target=None, labels=2), weights, "cpu").scores(batch)
    with pytest.raises(ModelLoadError, match="no CUDA here"):
        open_onnx(write_card(weights, runtime="onnx", target=None), weights, "cuda:0")


def test_it_is_opened_by_its_card_and_never_with_changed_weights(
    write_card: Callable[..., ModelCard], batch: np.ndarray
) -> None:
    card = write_card(graph(LINEAR), runtime="onnx", target=None)
    classifier = open_classifier(card)
    assert classifier.scores(batch).shape == (1, 3)
    assert classifier.runtime.startswith("onnxruntime")
    assert classifier.device == "cpu"
    card.weights.write_bytes(graph([*POOL, helper.make_node("MatMul", ["flat", "matrix"], ["other"])], output="other"))
    with pytest.raises(DigestMismatch):
        open_classifier(card)


def test_replay_knows_no_foreign_domain() -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.microsoft")
    with pytest.raises(UnsupportedOperator):
        replay([node], {"x": torch.zeros(1)}, {}, "y")


def test_the_new_exporter_of_torch_is_understood(
    write_card: Callable[..., ModelCard],
    modules: dict[str, Callable[[], nn.Module]],
    batch: np.ndarray,
    tmp_path: Any,
    torch_classifier: Callable[..., TorchClassifier],
) -> None:
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        modules["layers"](), (torch.zeros(1, 1, SIDE, SIDE),), path, dynamo=True, external_data=False, verbose=False
    )
    found = opened(write_card, path.read_bytes()).gradients(batch, [0])
    expected = torch_classifier("layers").gradients(batch, [0])
    assert found.gradients == pytest.approx(expected.gradients, rel=1e-4, abs=1e-7)
    assert found.activations == pytest.approx(expected.activations, abs=1e-5)
