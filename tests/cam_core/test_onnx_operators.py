"""Tests of ONNX operators run in torch: each gives what onnxruntime gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from cam_core.runtimes.onnx_replay import replay

source = np.random.default_rng(8)
MATRIX = source.normal(size=(5, 3)).astype(np.float32)


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
