"""Mutated and cut files give an image or a typed error, nothing else, in bounded time."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.errors import ReadingError
from dicom_node.reading import Limits, read_header, read_image
from dicom_node.reading.selection import select

RealImage = Callable[[str], Path]
SMALL = Limits(frame_pixels=1_000_000, frame_bytes=8_000_000, side=2048)
SEEDS = (
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "image_dfl.dcm",
    "reportsi.dcm",
)


def survives(path: Path) -> bool:
    """Read a file; whether it became an image."""
    try:
        header = read_header(path)
        selection = select([header])
        assert len(selection.images) + len(selection.left_out) == 1
        image = read_image(path, 0, SMALL)
    except ReadingError as refused:
        assert str(refused)
        return False
    assert image.pixels.dtype == np.float32
    assert 0 <= image.pixels.min() <= image.pixels.max() <= 1
    return True


@pytest.mark.parametrize("name", SEEDS)
def test_mutated_files(name: str, real_image: RealImage, tmp_path: Path) -> None:
    whole = real_image(name).read_bytes()
    random_bytes = random.Random(name)
    path = tmp_path / "mutant.dcm"
    outcomes = set()
    for _ in range(20):
        mutant = bytearray(whole)
        for _ in range(random_bytes.choice((1, 3, 30))):
            value = random_bytes.choice((0, 1, 0x7F, 0xFF, random_bytes.randrange(256)))
            mutant[random_bytes.randrange(132, len(mutant))] = value
        if random_bytes.random() < 0.3:
            del mutant[random_bytes.randrange(132, len(mutant)) :]
        path.write_bytes(mutant)
        outcomes.add(survives(path))
    assert outcomes <= {True, False}


def test_rle_runs_that_overflow_their_segment(real_image: RealImage, tmp_path: Path) -> None:
    whole = real_image("MR_small_RLE.dcm").read_bytes()
    start = whole.rindex(b"\x02\0\0\0\x40\0\0\0")
    path = tmp_path / "mutant.dcm"
    for at in range(start + 64, start + 564):
        mutant = bytearray(whole)
        mutant[at] = 0x81
        path.write_bytes(mutant)
        survives(path)


@given(at=st.integers(132, 4300), changed=st.binary(min_size=1, max_size=12), kept=st.integers(200, 4320))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
def test_any_bytes_in_the_header(at: int, changed: bytes, kept: int, real_image: RealImage, tmp_path: Path) -> None:
    whole = real_image("dicomdirtests/77654033/CT2/17106").read_bytes()
    path = tmp_path / "mutant.dcm"
    path.write_bytes((whole[:at] + changed + whole[at + len(changed) :])[: max(kept, 200)])
    survives(path)
