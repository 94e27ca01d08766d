"""First and second derivatives of a recorded scalar; knows no models."""

from __future__ import annotations

import torch
from torch import Tensor

from cam_core.errors import MethodNotApplicable
from cam_core.runtimes.memory import FAULTS, out_of_memory


def derivative(scalar: Tensor, leaf: Tensor, *, curvature: bool) -> tuple[Tensor, Tensor]:
    """Gradient of a scalar and, if asked, its derivative along the leaf itself: Hessian times leaf (zeros otherwise).

    Parameters
    ----------
    scalar : () Tensor
        Recorded from `leaf` on; the record stays for the next scalar.
    leaf : Tensor
    curvature : bool

    Raises
    ------
    MethodNotApplicable
        When nothing was recorded, as where a model computes under ``no_grad``, or torch can't differentiate an
        operation: of its fused attention it has no second derivative.

    Notes
    -----
    The Hessian itself is never made: ``H a = d(g . a)/dA`` at fixed ``a`` (Pearlmutter, "Fast exact multiplication by
    the Hessian", Neural Computation 1994).
    """
    if not scalar.requires_grad:
        raise MethodNotApplicable("gradient", "the model computes it without recording, as under no_grad")
    with torch.enable_grad():
        first = _gradient(scalar, leaf, "gradient", recorded=curvature)
        if not curvature or not first.requires_grad:
            return first.detach(), torch.zeros_like(leaf)
        second = _gradient((first * leaf.detach()).sum(), leaf, "second derivatives")
    return first.detach(), second.detach()


def _gradient(scalar: Tensor, leaf: Tensor, name: str, *, recorded: bool = False) -> Tensor:
    try:
        (found,) = torch.autograd.grad(
            scalar, leaf, retain_graph=True, create_graph=recorded, allow_unused=True, materialize_grads=True
        )
    except FAULTS as error:
        if out_of_memory(error):
            raise
        raise MethodNotApplicable(name, f"torch has none for this model: {error}") from error
    return found
