"""Sizes are checked before decoding, and python-gdcm is never asked."""

from __future__ import annotations

import importlib
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from dicom_node.errors import ImageTooLarge, TruncatedPixels, UndecodablePixels, UnsupportedObject
from dicom_node.reading import Limits, codecs, read_image

Twin = Callable[..., Path]
RealImage = Callable[[str], Path]


@pytest.mark.parametrize("syntax", [one for one in codecs.PLUGINS if one not in codecs.NATIVE])
def test_every_syntax_has_its_named_decoder_and_no_gdcm(syntax: str) -> None:
    decoder = get_decoder(uid.UID(syntax))
    assert codecs.PLUGINS[syntax] in decoder.available_plugins
    assert "gdcm" not in {*decoder.available_plugins, *decoder.missing_dependencies}


def test_gdcm_is_taken_out_where_it_is_installed() -> None:
    decoder = get_decoder(uid.JPEGBaseline8Bit)
    decoder.add_plugin("gdcm", ("pydicom.pixels.decoders.pylibjpeg", "_decode_frame"))
    assert "gdcm" in decoder.available_plugins
    importlib.reload(codecs)
    assert "gdcm" not in decoder.available_plugins


def rewritten(tmp_path: Path, source: Path, **attributes: Any) -> Path:
    ds = dcmread(source)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    path = tmp_path / "changed.dcm"
    ds.save_as(path)
    return path


def test_a_tiny_file_that_claims_huge_pixels_costs_neither_memory_nor_time(
    tmp_path: Path, real_image: RealImage
) -> None:
    path = rewritten(tmp_path, real_image("MR_small_RLE.dcm"), Rows=16000, Columns=3900)
    started = time.monotonic()
    tracemalloc.start()
    with pytest.raises(UndecodablePixels, match="can't hold the frame"):
        read_image(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert time.monotonic() - started < 1
    with pytest.raises(ImageTooLarge, match="rows is 65535"):
        read_image(rewritten(tmp_path, real_image("MR_small_RLE.dcm"), Rows=65535, Columns=65535))


@pytest.mark.parametrize(
    ("limits", "measure"),
    [
        (Limits(side=100), "rows"),
        (Limits(frame_pixels=16_000), "pixels of a frame"),
        (Limits(frame_bytes=32_000), "bytes of a frame"),
    ],
)
def test_every_limit_holds(limits: Limits, measure: str, real_image: RealImage) -> None:
    with pytest.raises(ImageTooLarge, match=measure):
        read_image(real_image("CT_small.dcm"), 0, limits)
    assert read_image(real_image("CT_small.dcm")).shape == (128, 128)


def test_too_many_frames_are_refused(tmp_path: Path, real_image: RealImage) -> None:
    with pytest.raises(ImageTooLarge, match="number of frames"):
        read_image(rewritten(tmp_path, real_image("CT_small.dcm"), NumberOfFrames=2_000_000_000))


@pytest.mark.parametrize(
    "name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
)
def test_a_codestream_of_another_size_is_refused(name: str, tmp_path: Path, real_image: RealImage) -> None:
    with pytest.raises(UndecodablePixels, match="the attributes say 50 x"):
        read_image(rewritten(tmp_path, real_image(name), Rows=50))


def test_cut_off_native_pixels_say_how_much_is_missing(real_image: RealImage) -> None:
    with pytest.raises(TruncatedPixels) as caught:
        read_image(real_image("MR_truncated.dcm"))
    assert (caught.value.expected, caught.value.actual) == (8192, 8130)


def test_a_codestream_that_is_none_is_refused(tmp_path: Path, real_image: RealImage) -> None:
    path = rewritten(tmp_path, real_image("MR_small_jp2klossless.dcm"), PixelData=encapsulate([b"no codestream " * 9]))
    with pytest.raises(UndecodablePixels, match="no codestream"):
        read_image(path)


def test_an_unknown_transfer_syntax_is_named(tmp_path: Path, real_image: RealImage) -> None:
    ds = dcmread(real_image("CT_small.dcm"))
    ds.file_meta.TransferSyntaxUID = uid.MPEG2MPML
    ds.PixelData = encapsulate([b"\0" * 10])
    ds["PixelData"].is_undefined_length = True
    path = tmp_path / "mpeg.dcm"
    ds.save_as(path)
    with pytest.raises(UndecodablePixels) as caught:
        read_image(path)
    assert caught.value.transfer_syntax == uid.MPEG2MPML


@pytest.mark.parametrize(
    "attributes", [{"HighBit": 3}, {"BitsStored": 17}, {"BitsAllocated": 1}, {"SamplesPerPixel": 2}, {"Rows": 0}]
)
def test_impossible_pixel_attributes_are_refused(
    attributes: dict[str, int], film: NDArray[np.uint16], twin: Twin
) -> None:
    with pytest.raises(UnsupportedObject):
        read_image(twin(film, **attributes))
