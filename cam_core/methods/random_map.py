"""A map that knows nothing of the model, to read the figures of the methods against; not for showing to anyone."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from cam_core.method import CONTROL, Evidence, Method, RawMaps, Scale


def random_map(evidence: Evidence) -> RawMaps:
    """Independent uniform values, 0..1, on the cells; the seed is the SHA-256 of the model's input and the label.

    So the same picture has the same map whatever else is asked, and two findings have different ones.
    """
    digest = hashlib.sha256(np.ascontiguousarray(evidence.input).tobytes()).digest()
    seed = int.from_bytes(digest, "big")
    cells = evidence.activations.shape[1:]
    return RawMaps(values=np.stack([_uniform((seed, label), cells) for label in evidence.labels]))


def _uniform(seed: tuple[int, int], cells: tuple[int, ...]) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random(cells, dtype=np.float32)


METHODS = (
    Method(
        name="random",
        title="Random",
        family=CONTROL,
        needs=frozenset(),
        scale=Scale(signed=False, unit="none"),
        reference="Null control without a paper",
        maps=random_map,
    ),
)
