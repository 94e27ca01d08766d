"""Between the target layer's own layout and planes (N, Ch, *cells); knows no model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cam_core.card import ActivationLayout
from cam_core.errors import UnusableTargetLayer


def to_planes(output: Tensor, layout: ActivationLayout, axes: int, name: str) -> Tensor:
    """The layer's output as planes, without the tokens that are no place.

    Parameters
    ----------
    output : (N, Ch, *cells), (N, *cells, Ch) or (N, T, Ch)
        As `layout` says.
    layout : ActivationLayout
    axes : 2 or 3
        Number of cell axes.
    name : str
        The layer's, for messages.

    Raises
    ------
    UnusableTargetLayer
        When the layer's output isn't laid out as the card says.
    """
    if layout.layout == "tokens":
        cells = int(np.prod(layout.token_grid))
        if output.ndim != 3 or output.shape[1] != cells + layout.prefix_tokens or len(layout.token_grid) != axes:
            wanted = f"(N, {layout.prefix_tokens} + {cells}, Ch) as the card's token grid says"
            raise UnusableTargetLayer(name, f"gives {tuple(output.shape)}, not {wanted}")
        places = output[:, layout.prefix_tokens :].transpose(1, 2)
        return places.reshape(len(output), output.shape[2], *layout.token_grid)
    if output.ndim != axes + 2:
        raise UnusableTargetLayer(name, f"gives {output.ndim} dimensions, not {axes + 2}")
    return output.movedim(-1, 1) if layout.layout == "channels-last" else output


def from_planes(planes: Tensor, like: Tensor, layout: ActivationLayout) -> Tensor:
    """Planes (n, Ch, *cells) in the layer's own layout; tokens that are no place are taken from `like` (1, T, Ch)."""
    if layout.layout == "tokens":
        places = planes.flatten(2).transpose(1, 2).to(like.dtype)
        prefix = like[:, : layout.prefix_tokens].expand(len(places), -1, -1)
        return torch.cat([prefix, places], dim=1)
    moved = planes.movedim(1, -1) if layout.layout == "channels-last" else planes
    return moved.to(like.dtype)
