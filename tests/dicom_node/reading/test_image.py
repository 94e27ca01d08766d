"""Every way to write one film gives one picture (acceptance case 18), whatever the transfer syntax."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.pixels.processing import convert_color_space
from pydicom.sequence import Sequence

from cam_core.image import grey
from dicom_node.errors import NotAnImage, UnsupportedObject
from dicom_node.reading import read_image

Twin = Callable[..., Path]
RealImage = Callable[[str], Path]
WINDOW = {"WindowCenter": 1900, "WindowWidth": 3000}


def pixels(path: Path, frame: int = 0) -> NDArray[np.float32]:
    return read_image(path, frame).pixels


def expected(film: NDArray[np.uint16]) -> NDArray[np.float64]:
    """The LINEAR function of PS3.3 C.11.2.1.2, written out."""
    return np.clip((film - (1900 - 0.5)) / (3000 - 1) + 0.5, 0, 1)


def test_window_is_applied_as_the_standard_says(film: NDArray[np.uint16], twin: Twin) -> None:
    assert np.allclose(pixels(twin(film, **WINDOW)), expected(film), atol=1e-6)
    assert expected(film).std() > 0.1


def lut(values: NDArray[np.float64], first: int, bits: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = values.round().astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    item.ModalityLUTType = "US"
    return Sequence([item])


def grey_twins(film: NDArray[np.uint16]) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    inverse = (4095 - film).astype(np.uint16)
    mirrored = {"WindowCenter": 4096 - 1900, "WindowWidth": 3000}
    noise = np.random.default_rng(1).integers(0, 16, film.shape).astype(np.uint16)
    levels = np.arange(4096, dtype=np.float64)
    curve = np.clip((levels - 1899.5) / 2999 + 0.5, 0, 1) * 65535
    signed = (film.astype(np.int32) - 2048).astype(np.int16)
    low_bits, high_bits = signed.astype(np.int64) & 0x0FFF, noise.astype(np.int64) << 12
    dirty_signed = (low_bits | high_bits).astype(np.uint16).view(np.int16)
    offset = {"RescaleSlope": 1, "RescaleIntercept": 2048, "PixelRepresentation": 1}
    return {
        "MONOCHROME1": (inverse, {"PhotometricInterpretation": "MONOCHROME1", **mirrored}),
        "INVERSE": (inverse, {"PresentationLUTShape": "INVERSE", **mirrored}),
        "MONOCHROME1 and INVERSE": (
            inverse,
            {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE", **mirrored},
        ),
        "negative slope": (inverse, {"RescaleSlope": -1, "RescaleIntercept": 4095, **WINDOW}),
        "several windows": (film, {"WindowCenter": [1900, 40], "WindowWidth": [3000, 400]}),
        "LINEAR_EXACT": (film, {"WindowCenter": 1899.5, "WindowWidth": 2999, "VOILUTFunction": "LINEAR_EXACT"}),
        "VOI LUT": (film, {"VOILUTSequence": lut(curve, 0, 16)}),
        "VOI LUT before window": (
            film,
            {"VOILUTSequence": lut(curve, 0, 16), "WindowCenter": 1, "WindowWidth": 2},
        ),
        "VOI LUT of 12 bits said to be 16": (film, {"VOILUTSequence": lut(curve / 65535 * 4095, 0, 16)}),
        "modality LUT": (inverse, {"ModalityLUTSequence": lut(4095 - levels, 0, 16), **WINDOW}),
        "dirty high bits": (film | (noise << 12), WINDOW),
        "left-aligned": ((film << 4) | noise, {"HighBit": 15, **WINDOW}),
        "signed": (signed, {**offset, **WINDOW}),
        "signed with dirty bits": (dirty_signed, {**offset, **WINDOW}),
        "signed VOI LUT": (
            signed,
            {"PixelRepresentation": 1, "VOILUTSequence": lut(curve, 63488, 16)},
        ),
        "32 bits": (film.astype(np.uint32), {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31, **WINDOW}),
        "big endian": (film, {"syntax": uid.ExplicitVRBigEndian, **WINDOW}),
        "implicit": (film, {"syntax": uid.ImplicitVRLittleEndian, **WINDOW}),
        "deflated": (film, {"syntax": uid.DeflatedExplicitVRLittleEndian, **WINDOW}),
    }


TWINS = list(grey_twins(np.zeros((2, 2), np.uint16)))


@pytest.mark.parametrize("name", TWINS)
def test_grey_twins_look_alike(name: str, film: NDArray[np.uint16], twin: Twin) -> None:
    stored, attributes = grey_twins(film)[name]
    atol = 3e-4 if "12 bits" in name else 2e-5
    assert np.allclose(pixels(twin(stored, **attributes)), expected(film), atol=atol)


@pytest.mark.parametrize(
    ("syntax", "plugin"),
    [(uid.RLELossless, "pylibjpeg"), (uid.JPEG2000Lossless, "pylibjpeg"), (uid.JPEGLSLossless, "pyjpegls")],
)
@pytest.mark.parametrize("name", ["MONOCHROME1", "signed", "12 bits"])
def test_compressed_twins_look_alike(
    name: str, syntax: uid.UID, plugin: str, film: NDArray[np.uint16], twin: Twin
) -> None:
    stored, attributes = grey_twins(film).get(name, (film, WINDOW))
    path = twin(stored, **attributes)
    ds = dcmread(path)
    ds.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False)
    ds.save_as(path)
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.allclose(pixels(path), expected(film), atol=2e-5)


def test_without_window_the_range_is_that_of_the_pixels_either_way_up(film: NDArray[np.uint16], twin: Twin) -> None:
    plain = pixels(twin(film))
    low, high = np.percentile(film, 0.1, method="lower"), np.percentile(film, 99.9, method="higher")
    assert np.allclose(plain, np.clip((film - float(low)) / (float(high) - float(low)), 0, 1), atol=1e-6)
    inverse = (4095 - film).astype(np.uint16)
    assert np.allclose(pixels(twin(inverse, PhotometricInterpretation="MONOCHROME1")), plain, atol=1e-5)
    assert np.allclose(pixels(twin(inverse, RescaleSlope=-2, RescaleIntercept=99)), plain, atol=1e-5)
    one_dead_pixel = film.copy()
    one_dead_pixel[0, 0] = 4095
    assert np.abs(pixels(twin(one_dead_pixel))[1:] - plain[1:]).max() < 0.02


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_outside_the_range(photometric: str, film: NDArray[np.uint16], twin: Twin) -> None:
    padded = film.copy()
    padded[:, :20] = 4095
    padded[:, :10] = 4090
    attributes = {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4090, "PhotometricInterpretation": photometric}
    film_without = np.where(film[:, 20:] >= 4090, 4089, film[:, 20:]).astype(np.uint16)
    padded[:, 20:] = film_without
    shown = pixels(twin(padded, **attributes))
    assert (shown[:, :20] == 0).all()
    assert np.allclose(shown[:, 20:], pixels(twin(film_without, PhotometricInterpretation=photometric)), atol=1e-6)


def test_padding_outside_the_stored_bits_is_found_and_hides_no_anatomy(film: NDArray[np.uint16], twin: Twin) -> None:
    signed = (film.astype(np.int32) - 2048).astype(np.int16)
    masked = np.int16(((-3000) & 0x0FFF) - 4096 if ((-3000) & 0x0800) else (-3000) & 0x0FFF)
    signed[signed == masked] += 1
    signed[50, 50] = masked
    signed[:5] = -3000
    path = twin(signed, PixelRepresentation=1, PixelPaddingValue=-3000, WindowCenter=0, WindowWidth=4096)
    shown = pixels(path)
    assert (shown[:5] == 0).all()
    assert shown[50, 50] == pytest.approx((float(masked) + 0.5) / 4095 + 0.5, abs=1e-5)


def test_an_image_of_nothing_but_padding_is_black(twin: Twin) -> None:
    assert not pixels(twin(np.full((8, 8), 7, np.uint16), PixelPaddingValue=7)).any()


def colour_twins(film: NDArray[np.uint16]) -> dict[str, tuple[NDArray[Any], dict[str, Any]]]:
    eight = (film >> 4).astype(np.uint8)
    rgb = np.repeat(eight[..., None], 3, axis=2)
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    colour = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, **bits}
    palette: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR", **bits}
    for name in ("Red", "Green", "Blue"):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        palette[f"{name}PaletteColorLookupTableData"] = (np.arange(256, dtype="<u2") * 257).tobytes()
    return {
        "grey": (eight, {**bits}),
        "RGB": (rgb, {"PhotometricInterpretation": "RGB", **colour}),
        "RGB planar": (
            np.ascontiguousarray(np.moveaxis(rgb, 2, 0)).reshape(rgb.shape),
            {"PhotometricInterpretation": "RGB", **colour, "PlanarConfiguration": 1},
        ),
        "YBR_FULL": (
            convert_color_space(rgb, "RGB", "YBR_FULL"),
            {"PhotometricInterpretation": "YBR_FULL", **colour},
        ),
        "PALETTE COLOR": (eight, palette),
    }


@pytest.mark.parametrize("name", ["grey", "RGB", "RGB planar", "YBR_FULL", "PALETTE COLOR"])
def test_colour_twins_look_alike(name: str, film: NDArray[np.uint16], twin: Twin) -> None:
    stored, attributes = colour_twins(film)[name]
    shown = pixels(twin(stored, **attributes))
    assert shown.shape == (film.shape if name == "grey" else (*film.shape, 3))
    assert np.abs(grey(shown) - (film >> 4) / 255).max() <= 1.01 / 255


def test_ybr_full_422_keeps_its_luminance(real_image: RealImage) -> None:
    full = read_image(real_image("SC_rgb.dcm")).pixels
    halved = read_image(real_image("SC_ybr_full_422_uncompressed.dcm")).pixels
    assert np.abs(grey(full) - grey(halved)).mean() < 0.02


SAME_PIXELS = [
    ("693_UNCR.dcm", "693_J2KR.dcm", 0.0),
    ("RG3_UNCR.dcm", "RG3_J2KR.dcm", 0.0),
    ("MR2_UNCR.dcm", "MR2_J2KR.dcm", 0.0),
    ("MR2_UNCI.dcm", "MR2_J2KI.dcm", 0.0),
    ("US1_UNCR.dcm", "US1_J2KR.dcm", 0.0),
    ("US1_UNCI.dcm", "US1_J2KI.dcm", 0.02),
    ("OBXXXX1A.dcm", "OBXXXX1A_rle.dcm", 0.0),
    ("OBXXXX1A.dcm", "OBXXXX1A_expb.dcm", 0.0),
    ("gdcm-US-ALOKA-16.dcm", "gdcm-US-ALOKA-16_big.dcm", 0.0),
    ("emri_small.dcm", "emri_small_RLE.dcm", 0.0),
    ("emri_small.dcm", "emri_small_big_endian.dcm", 0.0),
    ("emri_small.dcm", "emri_small_jpeg_2k_lossless.dcm", 0.0),
    ("emri_small.dcm", "emri_small_jpeg_ls_lossless.dcm", 0.0),
    ("MR_small.dcm", "MR_small_RLE.dcm", 0.0),
    ("MR_small.dcm", "MR_small_implicit.dcm", 0.0),
    ("MR_small.dcm", "MR_small_bigendian.dcm", 0.0),
    ("MR_small.dcm", "MR_small_jp2klossless.dcm", 0.0),
    ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", 0.0),
    ("SC_rgb.dcm", "SC_rgb_rle.dcm", 0.0),
    ("SC_rgb.dcm", "SC_rgb_jpeg_gdcm.dcm", 0.0),
    ("SC_rgb.dcm", "SC_rgb_expb.dcm", 0.0),
    ("SC_rgb_16bit.dcm", "SC_rgb_rle_16bit.dcm", 0.0),
    ("SC_rgb_32bit.dcm", "SC_rgb_rle_32bit.dcm", 0.0),
    ("SC_rgb_dcmtk_ebcr_dcmd.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", 0.01),
    ("SC_rgb_dcmtk_ebcyn1_dcmd.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", 0.02),
    ("SC_rgb_dcmtk_ebcyn2_dcmd.dcm", "SC_rgb_dcmtk_+eb+cy+n2.dcm", 0.02),
    ("SC_rgb_dcmtk_ebcynp_dcmd.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", 0.02),
    ("SC_rgb_jpeg_dcmd.dcm", "SC_rgb_jpeg.dcm", 0.02),
    ("JPEG2000_UNC.dcm", "JPEG2000.dcm", 0.001),
]


@pytest.mark.parametrize(("plain", "compressed", "tolerance"), SAME_PIXELS)
def test_every_transfer_syntax_decodes_to_its_uncompressed_twin(
    plain: str, compressed: str, tolerance: float, real_image: RealImage
) -> None:
    first, second = read_image(real_image(plain)), read_image(real_image(compressed))
    assert first.pixels.shape == second.pixels.shape
    assert np.abs(first.pixels - second.pixels).mean() <= tolerance
    assert first.pixels.std() > 0.002


def test_jpeg_extended_and_lossless_decode(real_image: RealImage) -> None:
    lossless, extended = read_image(real_image("JPEG-LL.dcm")).pixels, read_image(real_image("JPGExtended.dcm")).pixels
    assert lossless.shape == extended.shape == (1024, 256)
    assert np.corrcoef(lossless.ravel(), extended.ravel())[0, 1] > 0.98


def test_a_real_film_shows_bone_bright_and_gives_no_millimetres(real_image: RealImage) -> None:
    image = read_image(real_image("RG1_UNCR.dcm"))
    assert image.pixels.shape == (1955, 1841)
    spine, right_lung = image.pixels[700:900, 880:960].mean(), image.pixels[600:900, 420:560].mean()
    assert spine > right_lung + 0.1
    assert image.spacing_mm is None  # Pixel Spacing is 0\0


def test_frames_have_their_own_rescale_window_and_spacing(real_image: RealImage) -> None:
    path = real_image("eCT_Supplemental.dcm")
    first, second = read_image(path, 0), read_image(path, 1)
    assert first.spacing_mm == pytest.approx((0.388672, 0.388672))
    assert not np.array_equal(first.pixels, second.pixels)
    ds = dcmread(path)
    item = ds.PerFrameFunctionalGroupsSequence[1]
    shared = ds.SharedFunctionalGroupsSequence[0]
    window = (item if "FrameVOILUTSequence" in item else shared).FrameVOILUTSequence[0]
    rescale = (item if "PixelValueTransformationSequence" in item else shared).PixelValueTransformationSequence[0]
    values = ds.pixel_array[1] * float(rescale.RescaleSlope) + float(rescale.RescaleIntercept)
    centre = window.WindowCenter[0] if window["WindowCenter"].VM > 1 else window.WindowCenter
    width = window.WindowWidth[0] if window["WindowWidth"].VM > 1 else window.WindowWidth
    shown = np.clip((values - (float(centre) - 0.5)) / (float(width) - 1) + 0.5, 0, 1)
    assert np.allclose(second.pixels, shown, atol=1e-5)


def test_what_is_no_image_says_what_it_is(real_image: RealImage) -> None:
    with pytest.raises(NotAnImage, match="Comprehensive SR"):
        read_image(real_image("test-SR.dcm"))
    with pytest.raises(UnsupportedObject):
        read_image(real_image("liver_1frame.dcm"))
    with pytest.raises(UnsupportedObject, match="frame 3"):
        read_image(real_image("eCT_Supplemental.dcm"), 2)
