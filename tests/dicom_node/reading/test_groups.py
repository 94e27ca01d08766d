"""Where spacing comes from, and where it must not come from."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_node.reading.groups import frame_item, spacing_mm, spacing_remark


def header(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
        ({"PixelSpacing": [0, 0]}, None),
        ({"PixelSpacing": [0.2, -0.2]}, None),
        ({"PixelSpacing": []}, None),
        ({"PixelSpacing": "0.2"}, None),
        ({"ImagerPixelSpacing": [0.2, 0.2]}, None),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, None),
        ({}, None),
    ],
)
def test_only_positive_pixel_spacing_counts(attributes: dict[str, object], expected: object) -> None:
    assert spacing_mm(header(**attributes)) == expected


def test_a_frames_own_spacing_comes_before_the_shared_one() -> None:
    own, shared = header(PixelSpacing=[1, 2]), header(PixelSpacing=[3, 4])
    ds = header(
        SharedFunctionalGroupsSequence=Sequence([header(PixelMeasuresSequence=Sequence([shared]))]),
        PerFrameFunctionalGroupsSequence=Sequence([Dataset(), header(PixelMeasuresSequence=Sequence([own]))]),
    )
    assert spacing_mm(ds, 0) == (3, 4)
    assert spacing_mm(ds, 1) == (1, 2)
    assert frame_item(ds, 0, "FrameVOILUTSequence") is ds


def test_a_projection_says_what_its_millimetres_are() -> None:
    ds = header(PixelSpacing=[0.2, 0.2], ImagerPixelSpacing=[0.2, 0.2])
    assert "not corrected for magnification" in str(spacing_remark(ds))
    ds.PixelSpacingCalibrationType = "FIDUCIAL"
    assert "calibrated (FIDUCIAL)" in str(spacing_remark(ds))
    assert spacing_remark(header(PixelSpacing=[0.2, 0.2])) is None
