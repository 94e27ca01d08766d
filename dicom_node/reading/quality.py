"""Whether an image shows anything at all, by its display pixels alone; knows no model and no header."""

from __future__ import annotations

from typing import Final

import numpy as np

from cam_core.image import Image, grey
from dicom_node.provenance import Reason

LEAST_SHOWN: Final = 0.01
"""Part of the pixels that differ from the commonest value in any image of a patient."""


def why_unusable(image: Image) -> Reason | None:
    """Why a model must not be asked about an image; None for one that it may be asked about.

    An image of which all but a hundredth of the pixels have one value shows nobody: an exposure without a patient, a
    closed collimator, pixels that were lost on the way. A classifier gives it scores all the same.
    """
    pixels = grey(image.pixels)
    commonest = np.median(pixels)  # of more than half of the pixels, if of any such share
    shown = float(np.count_nonzero(pixels != commonest)) / pixels.size
    if shown >= LEAST_SHOWN:
        return None
    words = f"The image is blank: {shown:.1%} of its pixels differ from the others, at least {LEAST_SHOWN:.0%} must"
    return Reason(kind="blank", words=words, concept="quality failure")
