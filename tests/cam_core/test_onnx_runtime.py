"""Tests of the ONNX runtime: a bare file gives what its torch twin gives, and what can't be done is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_architectures import ARCHITECTURES, by_onnx, by_torch
from torch import nn

from cam_core.card import ModelCard
from cam_core.classifier import Capability, open_classifier
from cam_core.errors import DigestMismatch, MethodNotApplicable, ModelLoadError, OutOfMemory, UnknownTargetLayer
from cam_core.runtimes.onnx_call import UnsupportedOperator
from cam_core.runtimes.onnx_graph import plan
from cam_core.runtimes.onnx_replay import OPERATORS, replay
from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

SIDE = 32
source = np.random.default_rng(8)
KERNEL = source.normal(size=(5, 1, 3, 3)).astype(np.float32)
MATRIX = source.normal(size=(5, 3)).astype(np.float32)


def graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    *,
    batch: Any = "n",
    output: str = "scores",
) -> bytes:
    """A model of a strided convolution with ReLU (tensor ``planes``) and the given nodes after it."""
    front = [
        helper.make_node("Conv", ["image", "kernel"], ["raw"], strides=[2, 2], pads=[1, 1, 1, 1], name="conv"),
        helper.make_node("Relu", ["raw"], ["planes"], name="relu"),
    ]
    held = {"kernel": KERNEL, "matrix": MATRIX, **(constants or {})}
    model = helper.make_model(
        helper.make_graph(
            [*front, *nodes],
            "small",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 1, SIDE, SIDE])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, None])],
            [numpy_helper.from_array(value, name) for name, value in held.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 9
    encoded: bytes = model.SerializeToString()
    return encoded


POOL = [
    helper.make_node("GlobalAveragePool", ["planes"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
]
LINEAR = [*POOL, helper.make_node("MatMul", ["flat", "matrix"], ["scores"])]


def opened(write_card: Callable[..., ModelCard], weights: bytes, target: str | None = None) -> OnnxClassifier:
    return open_onnx(write_card(weights, runtime="onnx", target=target), weights, "cpu")


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


def node(operator: str, inputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), ["y"], **attributes)


WHOLE = {"starts": np.array([-2, 1]), "ends": np.array([-(2**62), 2**62]), "axes": np.array([2, 3])}
KERNELS = {
    "k1": source.normal(size=(4, 6, 3)).astype(np.float32),
    "k2": source.normal(size=(4, 6, 3, 2)).astype(np.float32),
    "k3": source.normal(size=(6, 2, 2, 3, 3)).astype(np.float32),
}
HALF = {"s": np.linspace(0.5, 1.5, 6).astype(np.float32), "t": np.linspace(-1, 1, 6).astype(np.float32)}
EMPTY = np.array([], np.float32)
WINDOWS = {"kernel_shape": [3, 3], "strides": [2, 2]}
CASES: dict[str, tuple[onnx.NodeProto, tuple[int, ...], dict[str, np.ndarray]]] = {
    "Conv 1D": (node("Conv", "x k1", pads=[2, 1], dilations=[2]), (2, 6, 11), KERNELS),
    "Conv 2D same lower": (node("Conv", "x k2", auto_pad="SAME_LOWER", strides=[2, 3]), (1, 6, 9, 10), KERNELS),
    "Conv 3D grouped": (
        node("Conv", "x k3", group=3, strides=[1, 2, 2], pads=[1, 0, 2, 0, 1, 1]),
        (2, 6, 4, 7, 8),
        KERNELS,
    ),
    "MaxPool ceil": (node("MaxPool", "x", **WINDOWS, ceil_mode=1), (1, 2, 8, 7), {}),
    "MaxPool ceil padded": (node("MaxPool", "x", **WINDOWS, ceil_mode=1, pads=[1, 0, 1, 1]), (1, 2, 8, 9), {}),
    "MaxPool 3D dilated": (
        node("MaxPool", "x", kernel_shape=[2, 2, 2], dilations=[1, 2, 2], pads=[0, 1, 0, 1, 0, 1]),
        (1, 2, 5, 6, 7),
        {},
    ),
    "AveragePool ceil": (node("AveragePool", "x", **WINDOWS, ceil_mode=1, pads=[1, 1, 1, 1]), (1, 2, 8, 8), {}),
    "AveragePool counting the padding": (
        node("AveragePool", "x", **WINDOWS, pads=[1, 1, 1, 1], count_include_pad=1),
        (1, 2, 8, 7),
        {},
    ),
    "AveragePool 3D same": (
        node("AveragePool", "x", kernel_shape=[2, 3, 3], strides=[1, 2, 2], auto_pad="SAME_UPPER"),
        (1, 2, 4, 7, 8),
        {},
    ),
    "Slice backwards": (node("Slice", "x starts ends axes steps"), (1, 2, 5, 6), {**WHOLE, "steps": np.array([-1, 2])}),
    "Split by number": (node("Split", "x", axis=1), (1, 6, 3), {}),
    "Expand": (node("Expand", "x sizes"), (2, 1, 3), {"sizes": np.array([4, 3])}),
    "Pad": (node("Pad", "x pads"), (1, 2, 3, 4), {"pads": np.array([0, 0, 1, 2, 0, 1, 0, -1])}),
    "Pad reflect": (node("Pad", "x pads", mode="reflect"), (1, 2, 3, 4), {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 1])}),
    "Tile": (node("Tile", "x times"), (2, 3), {"times": np.array([2, 3])}),
    "Gather scalar": (node("Gather", "x at", axis=1), (2, 3, 4), {"at": np.array(-1)}),
    "Gather many": (node("Gather", "x at", axis=-1), (2, 3, 4), {"at": np.array([[0, -1], [2, 2]])}),
    "GatherElements": (node("GatherElements", "x at", axis=1), (2, 3), {"at": np.array([[0, -1], [2, 2]])}),
    "ScatterND": (
        node("ScatterND", "x at new"),
        (3, 2),
        {"at": np.array([[1], [0]]), "new": np.float32([[5, 6], [7, 8]])},
    ),
    "Trilu": (node("Trilu", "x k", upper=0), (2, 4, 4), {"k": np.array(-1)}),
    "LayerNormalization": (node("LayerNormalization", "x s t"), (2, 3, 6), HALF),
    "InstanceNormalization": (node("InstanceNormalization", "x s t"), (2, 6, 4, 5), HALF),
    "ReduceMean": (node("ReduceMean", "x", axes=[-1, 1], keepdims=0), (2, 3, 4), {}),
    "ReduceL2": (node("ReduceL2", "x", axes=[1]), (2, 3, 4), {}),
    "ReduceLogSumExp": (node("ReduceLogSumExp", "x", axes=[2]), (2, 3, 4), {}),
    "ReduceSum of nothing": (node("ReduceSum", "x", noop_with_empty_axes=1), (2, 3), {}),
    "Softmax": (node("Softmax", "x", axis=1), (2, 3, 4), {}),
    "Selu": (node("Selu", "x"), (3, 4), {}),
    "PRelu": (node("PRelu", "x s"), (2, 6), {"s": HALF["s"]}),
    "HardSwish": (node("HardSwish", "x"), (3, 4), {}),
    "HardSigmoid": (node("HardSigmoid", "x", alpha=0.3), (3, 4), {}),
    "Erf": (node("Erf", "x"), (3, 4), {}),
    "Softplus": (node("Softplus", "x"), (3, 4), {}),
    "Clip both": (node("Clip", "x low high"), (3, 4), {"low": np.float32(-0.5), "high": np.float32(0.25)}),
    "Max of several": (node("Max", "x s low"), (2, 6), {**HALF, "low": np.float32(0)}),
    "Mean of several": (node("Mean", "x s t"), (2, 6), HALF),
    "Mod": (node("Mod", "x s", fmod=1), (2, 6), HALF),
    "Einsum": (node("Einsum", "x m", equation="bij,jk->bik"), (2, 3, 5), {"m": MATRIX}),
    "Gemm": (node("Gemm", "x m c", alpha=0.5, beta=2.0), (2, 5), {"m": MATRIX, "c": np.float32([1, 2, 3])}),
    "Where": (node("Where", "when x t"), (2, 6), {"when": np.array([True, False] * 3), **HALF}),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_in_torch_is_the_runtime_s_own(name: str) -> None:
    operator, shape, constants = CASES[name]
    if name == "Split by number":
        operator = helper.make_node("Split", ["x"], ["y", "z"], axis=1)
    used = {one: value for one, value in constants.items() if one in operator.input}
    model = helper.make_model(
        helper.make_graph(
            [operator],
            "one",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(value, one) for one, value in used.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 9
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    (expected,) = session.run(["y"], {"x": given})
    found = replay([operator], {"x": torch.from_numpy(given)}, dict(used), "y").numpy()
    assert found.shape == expected.shape
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_whole_numbers_are_divided_as_whole_numbers() -> None:
    given = {"x": torch.tensor([7, -7])}
    found = replay([node("Div", "x two")], given, {"two": np.array(2)}, "y")
    assert found.tolist() == [3, -3]
