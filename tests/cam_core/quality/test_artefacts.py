"""Body and letters on procedural films, where they are known, and on two real films that were looked at by eye."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from cam_core.quality.artefacts import artefact_shares, artefacts, border_mask
from cam_core.quality.body import body_mask
from cam_core.quality.burned_in import lettering_mask
from dicom_node.reading.display import display_values

PHANTOMS = Path(__file__).parents[3] / "deploy" / "models" / "chest-demo"


def trunk(side=400, *, lungs=True):
    """A bright trunk with dark lungs on dark air, noise and a soft skin line; the truth with it."""
    y, x = np.mgrid[:side, :side] / side
    body = np.abs(x - 0.5) < 0.36 - 0.08 * (0.5 - y)
    lung = (((np.abs(x - 0.5) - 0.17) / 0.1) ** 2 + ((y - 0.4) / 0.28) ** 2) < 1
    plane = np.where(body, 0.75, 0.08)
    if lungs:
        plane = np.where(lung, 0.3, plane)
    plane = ndimage.gaussian_filter(plane, side / 150)
    return (plane + np.random.default_rng(2).normal(0, 0.015, plane.shape)).clip(0, 1).astype(np.float32), body


def written(pixels, text, corner, size, grey=1.0):
    """The pixels with text burned in, and the box of the text."""
    image = Image.fromarray(pixels.astype(np.float32))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size=size)
    draw.text(corner, text, fill=grey, font=font)
    left, top, right, bottom = (int(one) for one in draw.textbbox(corner, text, font=font))
    box = np.zeros(pixels.shape, dtype=bool)
    box[top:bottom, left:right] = True
    return np.asarray(image), box


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture(scope="module")
def film(real_image):
    """Display values of a real film by name."""

    def read(name):
        header = pydicom.dcmread(real_image(name))
        stored = header.pixel_array
        return display_values(stored, stored, header, 0)

    return read


# ---------------------------------------------------------------------------------------------------------------- body


def test_the_body_is_found_with_its_lungs():
    pixels, body = trunk()
    assert dice(body_mask(pixels), body) > 0.97


@pytest.mark.parametrize("white", [0.0, 1.0])
def test_shutters_and_padding_are_cut_away(white):
    pixels, body = trunk()
    pixels[:, :30], pixels[-40:] = white, 0.0
    body = body.copy()
    body[:, :30], body[-40:] = False, False
    assert dice(body_mask(pixels), body) > 0.95


def test_lungs_that_reach_the_edge_of_the_field_are_body():
    pixels, body = trunk()
    assert dice(body_mask(pixels[120:]), body[120:]) > 0.95


def test_a_body_that_fills_the_field_is_all_of_it():
    y, x = np.mgrid[:200, :200] / 200
    pixels = (0.6 + 0.2 * y + 0.05 * np.sin(20 * x)).astype(np.float32)
    pixels[60:120, 60:140] = 0.2
    assert body_mask(pixels).mean() > 0.97


def test_an_abdomen_that_is_white_from_side_to_side_is_no_shutter():
    pixels, body = trunk()
    denser = np.linspace(0, 0.6, 400)[:, None] * body  # the window saturates from the diaphragm down
    pixels = np.minimum(pixels + denser.astype(np.float32), 1)
    assert body_mask(pixels)[260:, 100:300].all()
    narrow = pixels[:, 80:320]  # nothing but body below
    assert body_mask(narrow)[260:].mean() > 0.98


def test_a_table_apart_from_the_body_is_not_of_it():
    pixels, body = trunk()
    pixels[:, 390:396] = 0.9
    found = body_mask(pixels)
    assert not found[:, 388:].any()
    assert dice(found, body) > 0.97


def test_polarity_of_grey_steps_and_size_don_t_matter():
    pixels, body = trunk(900)
    assert dice(body_mask(pixels**1.5), body) > 0.95
    small, body = trunk(120)
    assert dice(body_mask(small), body) > 0.93


def test_a_volume_is_looked_at_slice_by_slice():
    pixels, body = trunk(160)
    stack = np.stack([pixels, pixels, pixels])
    found = body_mask(stack)
    assert found.shape == stack.shape
    assert dice(found[1], body) > 0.95


@pytest.mark.parametrize("pixels", [np.zeros((50, 60)), np.ones((50, 60)), np.eye(60) > 2])
def test_an_image_with_nothing_on_it_has_no_body(pixels):
    assert body_mask(pixels.astype(np.float32)) is None


def test_the_body_on_a_real_chest_film(film):
    """A film filled by the patient: air in the two upper corners and a little at the lower ones."""
    body = body_mask(film("RG1_UNCR.dcm"))
    rows, columns = body.shape
    assert 0.93 < body.mean() < 0.99
    assert not body[80:160, :80].any()  # air above both shoulders
    assert not body[80:160, -80:].any()
    assert body[rows // 6 : rows - 10, columns // 8 : -columns // 8].all()  # lungs, mediastinum, abdomen


def test_the_body_on_a_real_leg_film_between_white_shutters(film):
    body = body_mask(film("RG3_UNCR.dcm"))
    rows, columns = body.shape
    assert not body[:, : columns // 4].any()  # shutter and air
    assert not body[:, -columns // 4 :].any()
    assert body[10 : rows // 2, int(0.45 * columns) : int(0.55 * columns)].all()  # the tibia
    assert 0.2 < body.mean() < 0.35


# ------------------------------------------------------------------------------------------------------------- letters


@pytest.mark.parametrize(("size", "grey"), [(28, 1.0), (48, 1.0), (90, 1.0), (48, 0.0)])
def test_burned_in_letters_are_found_and_nothing_else(size, grey):
    pixels, _ = trunk(1000)
    corner = (30, 40) if grey else (400, 860)  # white on air, black on the abdomen
    marked, box = written(pixels, "R 12:40 DOE", corner, size, grey)
    found = lettering_mask(marked)
    assert (found & box).sum() / box.sum() > 0.9
    around = ndimage.binary_dilation(box, iterations=size)
    assert not (found & ~around).any()
    assert not lettering_mask(pixels).any()


def test_letters_on_a_real_film_are_found_and_the_film_has_none_of_its_own(film):
    pixels = film("RG1_UNCR.dcm")
    assert not lettering_mask(pixels).any()
    marked, box = written(pixels, "R 12:40", (200, 60), 64, 1.0)
    found = lettering_mask(marked)
    assert (found & box).sum() / box.sum() > 0.8
    assert not (found & ~ndimage.binary_dilation(box, iterations=70)).any()


def test_a_real_lead_marker_is_found(film):
    """The mirrored R beside the ankle, and nothing of the bones."""
    found = lettering_mask(film("RG3_UNCR.dcm"))
    rows, columns = np.nonzero(found)
    side = len(found)
    assert 0.76 < rows.min() / side < rows.max() / side < 0.87
    assert 0.62 < columns.min() / side < columns.max() / side < 0.73


def test_wires_discs_and_ribs_are_no_letters():
    pixels, _ = trunk(1000)
    y, x = np.mgrid[:1000, :1000]
    for centre in ((300, 300), (600, 700)):  # electrodes
        pixels[np.hypot(y - centre[0], x - centre[1]) < 14] = 1.0
    pixels[np.abs(y - 500 - 0.3 * (x - 500)) < 3] = 1.0  # a wire across
    ribs = 0.12 * ((np.sin(y / 22 + (x / 160) ** 2) > 0.7) & (np.abs(x - 500) < 330))
    pixels = (pixels + ndimage.gaussian_filter(ribs, 3)).clip(0, 1).astype(np.float32)
    assert not lettering_mask(pixels).any()


def test_letters_on_every_slice_of_a_volume():
    pixels, _ = trunk(300)
    marked, box = written(pixels, "L", (20, 30), 26)
    found = lettering_mask(np.stack([pixels, marked]))
    assert not found[0].any()
    assert (found[1] & box).sum() / box.sum() > 0.9


def test_markers_on_phantoms_are_found():
    """The demonstration model's films carry markers with a known seed; three of them were looked at."""
    sys.path.insert(0, str(PHANTOMS))
    try:
        dataset, thorax = importlib.import_module("dataset"), importlib.import_module("thorax")
    finally:
        sys.path.remove(str(PHANTOMS))
    counts = []
    for number in range(3):
        rng = np.random.default_rng([40_001, number])
        image = dataset.compose(rng, thorax.thorax(rng), 0).image.astype(np.float32) / 255
        counts.append(ndimage.label(lettering_mask(image))[1])
    assert counts == [3, 0, 2]


@pytest.mark.parametrize("pixels", [np.zeros((40, 50)), np.full((40, 50), 0.5)])
def test_no_letters_on_a_flat_image(pixels):
    assert not lettering_mask(pixels.astype(np.float32)).any()


# -------------------------------------------------------------------------------------------------------------- shares


def test_shares_of_a_map_are_counted_where_they_lie():
    pixels, _ = trunk(400)
    marked, box = written(pixels, "L 7", (4, 60), 22)
    places = artefacts(marked)
    on_text = np.where(box, 2.0, -1.0).astype(np.float32)
    outside, lettering, _ = artefact_shares(on_text, places)
    assert (outside.value, lettering.value) == (pytest.approx(1), pytest.approx(1))
    inside = np.zeros_like(pixels)
    inside[200:220, 190:210] = 1
    assert [one.value for one in artefact_shares(inside, places)] == [0, 0, 0]
    even = np.ones_like(pixels)
    assert artefact_shares(even, places)[2].value == pytest.approx(places.border.mean())


def test_without_letters_or_body_there_is_no_share():
    pixels, _ = trunk(300)
    values = np.ones_like(pixels)
    assert artefact_shares(values, artefacts(pixels))[1].reason == "no letters were found"
    flat = artefacts(np.zeros_like(pixels))
    assert artefact_shares(values, flat)[0].reason == "the body can't be told from the pixels"
    assert artefact_shares(-values, flat)[2].reason == "the map has no positive value"
    with pytest.raises(ValueError, match="shape"):
        artefact_shares(values[1:], flat)


def test_the_border_is_that_of_rows_and_columns():
    mask = border_mask((4, 100, 50))
    assert mask[:, 3:-3, 2:-2].sum() == 0
    assert mask.sum() == 4 * (100 * 50 - 94 * 46)
