"""Cascades of random weights: which layers change, that signals live on, and that the model given stays as it was."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from cam_core.errors import MethodNotApplicable
from cam_core.runtimes.randomisation import groups_from_top, onnx_cascade, torch_cascade

SIDE = 16


class Block(nn.Module):
    """Two normed convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(x + self.norms[1](self.second(inner)))


class Net(nn.Module):
    """Layers are declared in an order that is not that of their use."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)
        self.blocks = nn.Sequential(*(Block(12) for _ in range(6)))
        self.stem = nn.Conv2d(1, 12, 3, 2, 1)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(torch.relu(self.stem(x))).mean(dim=(2, 3)))


@pytest.fixture
def example():
    return np.random.default_rng(0).standard_normal((4, 1, SIDE, SIDE)).astype(np.float32)


@pytest.fixture
def net(example):
    torch.manual_seed(5)
    module = Net().train()
    with torch.no_grad():
        for _ in range(5):
            module(torch.from_numpy(example))
    return module.eval()


def changed(before, after):
    return {name for name, value in after.items() if not torch.equal(before[name], value)}


def test_groups_begin_with_the_output_alone():
    assert groups_from_top(list("abcdef"), 3) == [["f"], ["e", "d", "c"], ["b", "a"]]
    assert groups_from_top(list("abc"), 10) == [["c"], ["b"], ["a"]]
    assert groups_from_top(list("abc"), 1) == [["c", "b", "a"]]
    with pytest.raises(ValueError, match="0 steps"):
        groups_from_top(list("abc"), 0)


def test_layers_become_random_from_the_output_down(net, example):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    steps = list(torch_cascade(net, example, steps=100, seed=1))
    assert [layer for layer, _ in steps][:4] == ["head", "blocks.5.norms.1", "blocks.5.second", "blocks.5.norms.0"]
    assert [layer for layer, _ in steps][-2:] == ["stem", "the module itself"]  # where the layer stays that never runs
    found = set()
    for _, module in steps:
        now = {one for one in changed(before, module.state_dict()) if one.endswith("weight")}
        assert found <= now
        found = now
    touched = {one.rpartition(".")[0] for one in changed(before, steps[0][1].state_dict())}
    assert touched == {"head"}
    convolutions = {name for name in before if name.endswith(("first.weight", "second.weight", "stem.weight"))}
    assert convolutions <= found
    assert not changed(before, net.state_dict())  # the module given is as it was


def test_signals_live_on_through_random_layers(net, example):
    batch = torch.from_numpy(example)
    for layer, module in torch_cascade(net, example, seed=3):
        assert not module.training
        assert not any(one.training for one in module.modules())
        with torch.no_grad():
            planes = module.blocks(torch.relu(module.stem(batch)))
            logits = module(batch)
        assert torch.isfinite(logits).all(), layer
        assert 0.1 < planes.std() < 30, layer
        assert logits.std(dim=0).min() > 1e-4, layer  # inputs are still told apart


def test_statistics_of_random_norms_are_those_of_the_example(net, example):
    *_, (_, module) = torch_cascade(net, example, seed=3)
    with torch.no_grad():
        arriving = module.blocks[0].first(torch.relu(module.stem(torch.from_numpy(example))))
    norm = module.blocks[0].norms[0]
    assert norm.running_mean.numpy() == pytest.approx(arriving.mean(dim=(0, 2, 3)).numpy(), abs=1e-5)
    assert norm.running_var.numpy() == pytest.approx(arriving.var(dim=(0, 2, 3)).numpy(), rel=1e-4)
    assert norm.momentum == 0.1


def test_the_seed_decides_and_the_global_generator_is_left_alone(net, example):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first, again, other = ([*torch_cascade(net, example, seed=seed)][-1][1] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.stem.weight, again.stem.weight)
    assert not torch.equal(first.stem.weight, other.stem.weight)


def test_the_mode_of_the_caller_is_its_own_between_steps(net, example):
    for _ in torch_cascade(net, example, steps=3):
        assert torch.is_grad_enabled()
    with torch.inference_mode():
        assert len(list(torch_cascade(net, example, steps=3))) == 3


def test_parameters_that_no_layer_of_their_own_runs_are_their_parent_s(example):
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Parameter(torch.linspace(-1, 1, SIDE * SIDE).reshape(SIDE, SIDE))
            self.attend = nn.MultiheadAttention(SIDE, 2, batch_first=True)
            self.head = nn.Linear(SIDE, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = x[:, 0] + self.place
            return self.head(self.attend(rows, rows, rows)[0].mean(dim=1))

    torch.manual_seed(2)
    module = Attention().eval()
    steps = list(torch_cascade(module, example, steps=10))
    assert [layer for layer, _ in steps] == ["head", "attend", "the module itself"]
    assert changed(module.state_dict(), steps[1][1].state_dict()) >= {"attend.in_proj_weight", "attend.out_proj.weight"}
    place = steps[2][1].place
    assert place.std().item() == pytest.approx(module.place.std().item(), rel=0.2)
    assert torch.equal(steps[1][1].place, module.place)


# ----------------------------------------------------------------------------------------------------------------- ONNX


def run(weights, batch):
    return onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"]).run(None, {"image": batch})[0]


def exported(module):
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        (torch.zeros(1, 1, SIDE, SIDE),),
        buffer,
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
        dynamo=False,
        opset_version=17,
    )
    return buffer.getvalue()


def initialisers(weights):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load_model_from_string(weights).graph.initializer}


def test_an_exported_model_becomes_random_from_the_output_down(net, example):
    """The exporter folds the batch norms into the convolutions."""
    weights = exported(net)
    before = initialisers(weights)
    steps = list(onnx_cascade(weights, example, steps=5, seed=1))
    assert len(steps) == 5
    found = set()
    for number, (_, model) in enumerate(steps):
        onnx.checker.check_model(onnx.load_model_from_string(model))
        now = {name for name, value in initialisers(model).items() if not np.array_equal(value, before[name])}
        assert found <= now
        found = now
        if number == 0:
            assert now == {"head.weight", "head.bias"}
        scores = run(model, example)
        assert np.isfinite(scores).all()
        assert scores.std(axis=0).min() > 1e-4
    assert {name for name, value in before.items() if value.ndim == 4} <= found
    assert initialisers(weights).keys() == before.keys()


def normed_graph():
    """Convolution, batch norm, ReLU, mean and Gemm, by hand: exporters fold the norm away."""
    rng = np.random.default_rng(4)
    values = {
        "kernel": rng.standard_normal((6, 1, 3, 3)),
        "scale": np.full(6, 2.0),
        "shift": np.full(6, 0.5),
        "mean": np.full(6, 40.0),
        "variance": np.full(6, 900.0),
        "matrix": rng.standard_normal((3, 6)),
        "bias": rng.standard_normal(3),
        "two": np.array([2.0]),
    }
    nodes = [
        helper.make_node("Mul", ["image", "two"], ["doubled"]),
        helper.make_node("Conv", ["doubled", "kernel"], ["planes"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["planes", "scale", "shift", "mean", "variance"], ["normed"]),
        helper.make_node("Relu", ["normed"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "normed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_batch_norms_of_a_graph_get_the_statistics_of_what_arrives(example):
    weights = normed_graph().SerializeToString()
    steps = dict(onnx_cascade(weights, example, steps=10, seed=2))
    assert list(steps) == ["scores", "normed", "planes"]  # a single number is a constant of the graph
    first, last = initialisers(steps["scores"]), initialisers(steps["planes"])
    assert first["mean"] == pytest.approx(np.full(6, 40.0))
    arriving = torch.nn.functional.conv2d(torch.from_numpy(2 * example), torch.tensor(last["kernel"]), padding=1)
    assert last["mean"] == pytest.approx(arriving.mean(dim=(0, 2, 3)).numpy(), abs=1e-5)
    assert last["variance"] == pytest.approx(arriving.var(dim=(0, 2, 3), correction=0).numpy(), rel=1e-4)
    assert last["two"] == 2
    assert (last["scale"] == 1).all()
    assert run(steps["planes"], example).std() > 1e-3


def test_a_graph_with_norms_that_can_t_be_followed_is_refused(example):
    model = normed_graph()
    model.graph.node[3].op_type = "Softsign"
    cascade = onnx_cascade(model.SerializeToString(), example, steps=10)
    next(cascade)
    with pytest.raises(MethodNotApplicable, match="Softsign"):
        next(cascade)


def test_two_examples_are_the_least(net, example):
    with pytest.raises(ValueError, match="two examples"):
        next(torch_cascade(net, example[:1]))
    with pytest.raises(ValueError, match="two examples"):
        next(onnx_cascade(b"", example[:1]))
