"""What all laws share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def coarse_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for regions, which no law asks for, takes most of the time."""
    monkeypatch.setattr("cam_core.region.WORKING_SIDE", 32)
    monkeypatch.setattr("cam_core.volume_region.WORKING_SIDE", 16)
