"""ONNX models of a strided convolution with ReLU and any head, built node by node; nothing here is a measurement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cam_core.card import ModelCard
from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx

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
