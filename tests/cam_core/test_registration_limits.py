"""Tests of where nothing can be measured of the cells' places."""

from __future__ import annotations

import numpy as np

from cam_core.registration import Probe, library_registration, measure


def test_cells_that_all_look_at_everything_are_not_placed_by_noise() -> None:
    """As in a deep network on a small input: no field lies inside, and centroids hardly differ."""

    def fields(probes: list[Probe]) -> np.ndarray:
        source = np.random.default_rng(0)
        found = np.full((len(probes), 2, 3), np.nan)
        for index, probe in enumerate(probes):
            found[index, :, 0] = 30 + 0.02 * np.asarray(probe.cell) + source.normal(0, 1, 2)
        return found

    found = measure(fields, (2, 2), (64, 64))  # type: ignore[arg-type]
    assert found == library_registration((2, 2), (64, 64))
    assert not found.measured
