"""A blank image is told from one that shows little."""

from __future__ import annotations

import numpy as np
import pytest

from cam_core.image import Image
from dicom_node.provenance import CONCEPTS
from dicom_node.reading.quality import why_unusable


@pytest.mark.parametrize(("shown", "usable"), [(0, False), (99, False), (100, True), (5000, True)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_an_image_of_one_value_is_unusable(shown: int, usable: bool, channels: tuple[int, ...]) -> None:
    pixels = np.full((100, 100, *channels), 0.25, np.float32)
    pixels.reshape(10000, -1)[:shown] = np.linspace(0.5, 1, shown, dtype=np.float32)[:, None]
    reason = why_unusable(Image(pixels=pixels, spacing_mm=None))
    assert (reason is None) is usable
    if reason is not None:
        assert reason.concept is not None
        assert CONCEPTS[reason.concept].value == "111220"
        assert f"{shown / 100:.1f}%" in reason.words
