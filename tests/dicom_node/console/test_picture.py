"""A Secondary Capture as a PNG with the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image as PillowImage
from pydicom import dcmread

from dicom_node.console.picture import png
from dicom_node.errors import ObjectError

RealImage = Callable[[str], Path]


def test_the_pixels_are_the_captures(real_image: RealImage, results: ModuleType) -> None:
    result = results.every_kind(real_image("CT_small.dcm"))["overlay"]
    picture = np.asarray(PillowImage.open(BytesIO(png(result))))
    assert picture.tobytes() == result.PixelData
    assert picture.shape == (result.Rows, result.Columns, 3)


def test_a_small_copy_keeps_its_proportions(real_image: RealImage, results: ModuleType) -> None:
    result = results.every_kind(real_image("CT_small.dcm"))["overlay"]
    assert PillowImage.open(BytesIO(png(result, 84))).size == (84, 64)


def test_what_is_no_capture_is_refused(real_image: RealImage, results: ModuleType) -> None:
    with pytest.raises(ObjectError):
        png(dcmread(real_image("CT_small.dcm")))
    with pytest.raises(ObjectError):
        png(results.every_kind(real_image("CT_small.dcm"))["summary"])
    cut = results.every_kind(real_image("CT_small.dcm"))["overlay"]
    cut.PixelData = cut.PixelData[:-2]
    with pytest.raises(ObjectError, match="cut off"):
        png(cut)
