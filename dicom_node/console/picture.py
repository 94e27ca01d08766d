"""A Secondary Capture as PNG bytes for a web page; reads results of this node only, no image of the patient."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image as PillowImage
from pydicom.dataset import Dataset

from dicom_node.errors import ObjectError


def png(result: Dataset, longest_side: int | None = None) -> bytes:
    """The picture of an uncompressed 8-bit RGB Secondary Capture.

    Parameters
    ----------
    result : Dataset
    longest_side : int or None, pixel
        A smaller copy for a list of pictures.

    Raises
    ------
    ObjectError
        The object is no such picture.
    """
    wanted = {"PhotometricInterpretation": "RGB", "BitsAllocated": 8, "SamplesPerPixel": 3, "PlanarConfiguration": 0}
    if "PixelData" not in result or any(result.get(keyword) != value for keyword, value in wanted.items()):
        raise ObjectError("not an 8-bit RGB picture")
    shape = (int(result.Rows), int(result.Columns), 3)
    if len(result.PixelData) < shape[0] * shape[1] * 3:
        raise ObjectError("the picture is cut off")
    pixels = np.frombuffer(result.PixelData, dtype=np.uint8, count=shape[0] * shape[1] * 3).reshape(shape)
    picture = PillowImage.fromarray(pixels)
    if longest_side is not None:
        picture.thumbnail((longest_side, longest_side))
    stream = BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()
