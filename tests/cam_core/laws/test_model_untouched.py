"""Laws of every method: the caller's model and the caller's mode are never changed and never matter."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from law_models import KINDS, TORCH, classifier_of, image_of, input_of, torch_of
from law_runs import (
    FEW,
    METHODS,
    WITHOUT_REGIONS,
    explained,
    findings_of,
    run,
    same,
    values,
)
from small_networks import network
from torch import nn

from cam_core.errors import ModelLoadError
from cam_core.explanation import explain

few_kinds = pytest.mark.parametrize("name", FEW)


def state_of(module: nn.Module) -> list[object]:
    """Everything that a caller could find changed."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
    layers = [
        (name, type(layer), layer.training, *(tuple(getattr(layer, hook)) for hook in hooks))
        for name, layer in module.named_modules()
    ]
    tensors = [
        (name, one.requires_grad, one.grad, one.dtype, one.stride(), one.data_ptr(), digest(one))
        for name, one in (*module.named_parameters(), *module.named_buffers())
    ]
    return [layers, tensors]


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().float().contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("name", TORCH)
def test_the_callers_model_is_never_changed(name: str) -> None:
    kind = TORCH[name]
    module = kind.build()
    before = state_of(module)
    assert same(run(torch_of(kind, module), image_of(kind)), explained(name))
    assert state_of(module) == before


class Fragile(nn.Module):
    """A network whose part after the target fails while `broken`."""

    broken = False

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(head="smooth")
        self.inner.after.register_forward_pre_hook(self.check)

    @staticmethod
    def check(*_: object) -> None:
        if Fragile.broken:
            raise RuntimeError("a kernel failed")

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(batch)
        return logits


def test_the_callers_model_is_not_changed_by_a_failure_either(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = TORCH["smooth head"]
    module = Fragile().train()
    before = state_of(module)
    classifier = torch_of(kind, module, "inner.target")
    image = image_of(kind)
    findings = findings_of(classifier, image)
    first = explain(image, classifier, METHODS, findings, options=WITHOUT_REGIONS)
    monkeypatch.setattr(Fragile, "broken", True)
    for methods in (METHODS, *((method,) for method in METHODS)):
        with pytest.raises(ModelLoadError, match="a kernel failed"):
            explain(image, classifier, methods, findings, options=WITHOUT_REGIONS)
    assert state_of(module) == before
    monkeypatch.setattr(Fragile, "broken", False)
    assert same(explain(image, classifier, METHODS, findings, options=WITHOUT_REGIONS), first)
    assert state_of(module) == before


class Restless(nn.Module):
    """A network that writes to its buffers in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(head="smooth")
        self.inner.target.register_buffer("level", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen += len(batch)
        self.inner.target.level.copy_(batch.mean())
        logits: torch.Tensor = self.inner(batch)
        return logits


def test_the_callers_buffers_are_not_written_to() -> None:
    kind = TORCH["smooth head"]
    module = Restless()
    before = state_of(module)
    assert same(run(torch_of(kind, module, "inner.target"), image_of(kind)), explained("smooth head"))
    assert state_of(module) == before


@few_kinds
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_mode_is_no_matter(name: str, mode: Callable[[], nullcontext[None]]) -> None:
    with mode():
        enabled = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = run(classifier_of(name), image_of(KINDS[name]))
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == enabled
    assert same(found, explained(name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("frozen", "smooth head"),
        ("made under inference mode", "smooth head"),
        ("training mode", "several layers"),
    ],
)
def test_how_the_module_was_left_is_no_matter(one: str, other: str) -> None:
    assert same(explained(one), explained(other))


@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        ("channels last in memory", "smooth head", 1e-4),
        ("bf16", "smooth head", 0.15),
        ("volume bf16", "volume smooth head", 0.15),
    ],
)
def test_layout_in_memory_and_lower_precision_change_little(one: str, other: str, tolerance: float) -> None:
    """On maps of the linear family; others may rest on differences of logits that bf16 can't tell apart."""
    for found, expected in zip(values(explained(one)), values(explained(other)), strict=True):
        for key in ("hirescam", "layercam", "eigen-cam"):
            assert np.abs(found[key] - expected[key]).max() <= tolerance * np.abs(expected[key]).max()


def test_activations_are_those_before_a_change_in_place() -> None:
    """The same network with a ReLU that makes a new tensor is explained by the same bits."""
    kind = TORCH["in-place relu"]
    plain = kind.build()
    plain.after.inplace = False  # type: ignore[union-attr]
    assert same(run(torch_of(kind, plain), image_of(kind)), explained("in-place relu"))
    capture = classifier_of("in-place relu").activations(input_of(kind, image_of(kind)).numpy())
    assert capture.activations.min() < 0
