"""The network as the model card describes it, its class activation map, and safetensors in and out.

Shared by training and evaluation; knows nothing of phantoms.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))  # the repository, for scripts run in place

from cam_core.runtimes.architectures.residual_gap import build  # noqa: E402


def card() -> dict[str, Any]:
    """Return the parsed ``model.toml`` beside this file."""
    return tomllib.loads((HERE / "model.toml").read_text(encoding="utf-8"))


def untrained() -> nn.Module:
    """Return the card's architecture with random weights."""
    return build(card()["model"]["architecture_options"])


def trained(weights: Path) -> nn.Module:
    """Return the card's architecture with the weights of a safetensors file, in evaluation mode."""
    model = untrained()
    model.load_state_dict(load_file(weights))
    return model.eval()


def save(model: nn.Module, weights: Path) -> None:
    """Write the float32 state of `model` as safetensors."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, weights)


def normalised(images: torch.Tensor) -> torch.Tensor:
    """Normalise each image as the card's ``per-image`` says: (x - mean) / max(sd, 1e-3), population sd.

    Parameters
    ----------
    images : (N, 1, H, W) float32, display values 0..1
    """
    deviation = images.std(dim=(1, 2, 3), keepdim=True, correction=0).clamp_min(1e-3)
    return (images - images.mean(dim=(1, 2, 3), keepdim=True)) / deviation


def features_and_cam(model: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (N, K) and the signed class activation map (N, K, h, w), both float32.

    The map is the head's weighting of the averaged features, so that its mean plus the head's bias is the logit.
    """
    features = model.stages(model.stem(images)).float()
    cam = torch.einsum("kc,nchw->nkhw", model.head.weight.float(), features)
    return cam.mean(dim=(2, 3)) + model.head.bias.float(), cam
