"""Pictures agree with an independent renderer's to one grey level (acceptance case 18)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from dicom_node.reading import read_image

WINDOW, LUT, FULL_RANGE = ("+Wi", "1"), ("+Wl", "1"), ("+Wm",)


@pytest.mark.component
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RG1_UNCR.dcm", WINDOW),
        ("RG3_UNCR.dcm", WINDOW),
        ("693_UNCR.dcm", WINDOW),
        ("MR2_UNCR.dcm", WINDOW),
        ("MR_small_bigendian.dcm", WINDOW),
        ("dicomdirtests/77654033/CR1/6154", WINDOW),
        ("vlut_04.dcm", LUT),
        ("OBXXXX1A.dcm", FULL_RANGE),
        ("US1_UNCR.dcm", FULL_RANGE),
    ],
)
def test_an_independent_renderer_shows_the_same(
    name: str,
    options: tuple[str, ...],
    real_image: Callable[[str], Path],
    require_component: Callable[[str], str],
    tmp_path: Path,
) -> None:
    rendered = tmp_path / "rendered.pnm"
    command = [require_component("dcm2pnm"), *options, str(real_image(name)), str(rendered)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    theirs = np.asarray(PillowImage.open(rendered)) / 255
    ours = read_image(real_image(name)).pixels
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < 1.2 / 255
