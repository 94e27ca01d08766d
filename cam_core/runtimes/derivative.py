"""First and second derivatives of a recorded scalar; knows no models."""

from __future__ import annotations

import torch
from torch import Tensor

from cam_core.errors import MethodNotApplicable


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
        When torch has no second derivative of an operation, as of its fused attention.

    Notes
    -----
    The Hessian itself is never made: ``H a = d(g . a)/dA`` at fixed ``a`` (Pearlmutter, "Fast exact multiplication by
    the Hessian", Neural Computation 1994).
    """
    with torch.enable_grad():
        (first,) = torch.autograd.grad(
            scalar, leaf, retain_graph=True, create_graph=curvature, allow_unused=True, materialize_grads=True
        )
        if not curvature or not first.requires_grad:
            return first.detach(), torch.zeros_like(leaf)
        try:
            (second,) = torch.autograd.grad(
                (first * leaf.detach()).sum(), leaf, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise MethodNotApplicable("second derivatives", f"torch has none for this model: {error}") from error
    return first.detach(), second.detach()
