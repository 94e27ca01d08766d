"""The device that torch runs a model on, made ready; knows no models."""

from __future__ import annotations

import torch

from cam_core.card import ModelCard
from cam_core.errors import ModelLoadError


def opened_device(card: ModelCard, asked: str) -> str:
    """``cpu`` or ``cuda:N``, a CUDA device set to exact arithmetic.

    Parameters
    ----------
    card : ModelCard
        For messages.
    asked : str
        ``auto``, ``cpu`` or ``cuda:N``.

    Raises
    ------
    ModelLoadError
        When it isn't there.
    """
    there = torch.cuda.is_available()
    chosen = asked if asked != "auto" else "cuda:0" if there else "cpu"
    if chosen.startswith("cuda"):
        if not there:
            raise ModelLoadError(card.weights, f"device {asked!r} was asked for, there is no CUDA device")
        _use_exact_arithmetic()
    return chosen


def _use_exact_arithmetic() -> None:
    """Keep CUDA convolutions in full single precision and repeatable, so that maps don't depend on the device."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
