"""Which maps are one and the same piece of evidence; knows no models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cam_core.normalisation import by_map_maximum
from cam_core.saliency import SaliencyMap

EQUIVALENCE_TOLERANCE = 1e-4
"""Greatest difference of two maps, each divided by its maximum, that count as the same evidence."""


def equivalent_groups(maps: Sequence[SaliencyMap]) -> tuple[tuple[str, ...], ...]:
    """Names of maps that are the same up to a positive factor, in groups of two or more.

    Compared is what is shown: the positive part divided by its maximum. So a CAM and a Grad-CAM of a linear head fall
    together although only one of them keeps its negative values. Maps on different cells are never the same.
    """
    waiting = [(one, by_map_maximum(one.values)) for one in maps if not one.is_blank]
    groups: list[tuple[str, ...]] = []
    while waiting:
        (first, shown), rest = waiting[0], waiting[1:]
        same = [
            other
            for other, values in rest
            if other.registration == first.registration
            and values.shape == shown.shape
            and np.abs(values - shown).max() <= EQUIVALENCE_TOLERANCE
        ]
        waiting = [pair for pair in rest if pair[0] not in same]
        if same:
            groups.append(tuple(one.name for one in (first, *same)))
    return tuple(groups)
