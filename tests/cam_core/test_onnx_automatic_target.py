"""Tests of the target that is found in an ONNX graph of tokens where the card names none."""

from __future__ import annotations

import io
from dataclasses import replace

import law_models
import numpy as np
import pytest
import torch
from law_models import TORCH, seeded
from small_networks import card
from torch import Tensor

from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

KIND = TORCH["vision transformer"]


class ByGather(law_models.VisionTransformer):
    """Its class token is joined in a way that the exporter takes for any batch size."""

    def tokens(self, batch: Tensor) -> Tensor:
        patches = self.patches(batch).flatten(2).transpose(1, 2)
        joined = torch.cat([self.class_token.expand(batch.shape[0], -1, -1), patches], dim=1)
        found: Tensor = self.norm(self.last(self.first(joined + self.places)))
        return found

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tokens(batch)[:, 0])
        return logits


class BySlice(ByGather):
    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.tanh(self.tokens(batch)[:, 0:1]).flatten(1))
        return logits


class ByMean(ByGather):
    """Reads all tokens but the first."""

    def forward(self, batch: Tensor) -> Tensor:
        logits: Tensor = self.head(self.tokens(batch)[:, 1:].mean(1))
        return logits


def exported(module: torch.nn.Module, opset: int) -> OnnxClassifier:
    buffer = io.BytesIO()
    torch.onnx.export(
        module,
        (torch.zeros(1, 1, *KIND.grid),),
        buffer,  # type: ignore[arg-type]
        input_names=["image"],
        output_names=["scores"],
        dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
        dynamo=False,
        opset_version=opset,
    )
    paper = replace(card(target="x", channels=1, grid=KIND.grid), runtime="onnx", target_layer=None)
    return open_onnx(replace(paper, activations=KIND.activations), buffer.getvalue(), "cpu")


@pytest.mark.parametrize("opset", [14, 17])  # a layer norm in pieces and whole
@pytest.mark.parametrize("build", [ByGather, BySlice])
def test_the_target_is_before_the_last_attention_where_only_the_class_token_is_read(
    build: type[torch.nn.Module], opset: int
) -> None:
    """The very same as torch's layer of that name, and the logits depend on all of its cells."""
    module = seeded(build())
    found = exported(module, opset)
    named = law_models.torch_of(KIND, module)
    batch = np.random.default_rng(3).standard_normal((2, 1, *KIND.grid)).astype(np.float32)
    ours, theirs = found.gradients(batch, (0, 1)), named.gradients(batch, (0, 1))
    assert ours.activations == pytest.approx(theirs.activations, abs=1e-4)
    assert ours.gradients == pytest.approx(theirs.gradients, abs=1e-4)
    assert ours.gradients is not None
    assert np.abs(ours.gradients).max(axis=2).min() > 0


def test_the_last_norm_stays_the_target_where_the_cells_are_read() -> None:
    module = seeded(ByMean())
    found = exported(module, 17)
    paper = replace(card(target="norm", channels=1, grid=KIND.grid), activations=KIND.activations)
    batch = np.random.default_rng(3).standard_normal((1, 1, *KIND.grid)).astype(np.float32)
    named = TorchClassifier(paper, module).activations(batch)
    assert found.activations(batch).activations == pytest.approx(named.activations, abs=1e-4)
