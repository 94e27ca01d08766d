"""Tests of the pictures: colour where the map is high, anatomy untouched elsewhere, words never on the anatomy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from drawn import CELLS, MODEL, anatomy, blob, explanation, picture, saliency, sharp, shown, texts
from PIL import Image as PillowImage
from skimage.measure import points_in_poly

from cam_core import caption
from cam_core.caption import DEMONSTRATION, NOT_PRIMARY, NOT_TRUTH, notice_caption, overlay_caption
from cam_core.errors import OverlayError
from cam_core.finding import Finding, Uncertainty
from cam_core.image import Image, fit_to
from cam_core.legend import Bar, Words, legend_height
from cam_core.normalisation import fixed
from cam_core.overlay import OverlayStyle, render_notice, render_overlay, render_panel
from cam_core.palette import blend, colours
from cam_core.region import Region, regions
from cam_core.saliency import MapCondition, SaliencyMap
from cam_core.tile import display_scale, outline


@pytest.mark.parametrize("shape", [(600, 601), (513, 900), (128, 128), (1001, 40), (37, 501)])
def test_every_picture_is_even_and_says_where_the_anatomy_is(
    shape: tuple[int, int], finding: Callable[..., Finding]
) -> None:
    image = picture(shape)
    one = saliency(image, blob())
    for drawn in (
        render_overlay(image, one, finding(), model=MODEL),
        render_panel(image, explanation(image, finding(), one), model=MODEL),
        render_notice(image, "AI not performed", ["Too dark."]),
        render_notice(None, "AI not performed", []),
    ):
        assert drawn.pixels.dtype == np.uint8
        assert drawn.pixels.shape[0] % 2 == drawn.pixels.shape[1] % 2 == 0
        assert drawn.pixels.shape[2] == 3
        if drawn.anatomy is not None:
            x0, y0, x1, y1 = drawn.anatomy
            assert (y1 - y0, x1 - x0) == (round(shape[0] * drawn.scale[0]), round(shape[1] * drawn.scale[1]))
            assert 0 <= x0 < x1 <= drawn.pixels.shape[1]
            assert 0 <= y0 < y1 <= drawn.pixels.shape[0]
    assert render_notice(None, "x", []).anatomy is None


@pytest.mark.parametrize("palette", ["cividis", "inferno", "viridis", "magma", "plasma", "jet"])
@pytest.mark.parametrize("opacity", [0.3, 0.5])
def test_colour_where_the_map_is_high_and_nothing_where_it_is_zero(
    palette: str, opacity: float, finding: Callable[..., Finding]
) -> None:
    image = picture((640, 600))
    one = saliency(image, sharp(blob()))
    found = anatomy(
        render_overlay(
            image, one, finding(), model=MODEL, found=(), style=OverlayStyle(palette=palette, opacity=opacity)
        )
    ).astype(int)
    grey = np.repeat(shown(image)[..., None], 3, axis=2).astype(int)
    placed = one.on_image()
    assert (found[placed <= 0] == grey[placed <= 0]).all()
    peak = np.unravel_index(placed.argmax(), placed.shape)
    expected = (1 - opacity) * grey[peak] + opacity * colours(palette)[255]
    assert found[peak] == pytest.approx(expected, abs=2)
    # nowhere more than the opacity: |found - grey| <= opacity * |colour - grey| <= opacity * 255
    assert np.abs(found - grey).max() <= opacity * 255 + 1


def test_anatomy_can_be_told_apart_under_the_strongest_colour(finding: Callable[..., Finding]) -> None:
    pixels = np.full((600, 600), 0.4, np.float32)
    pixels[::2] = 0.6
    image = Image(pixels=pixels, spacing_mm=None)
    found = anatomy(
        render_overlay(
            image,
            saliency(image, 1 - 0.001 * blob()),
            finding(),
            model=MODEL,
            found=(),
            style=OverlayStyle(opacity=0.5),
        )
    )
    contrast = np.abs(found[300].astype(int) - found[301].astype(int)).min()
    assert contrast >= 0.45 * 0.2 * 255


def test_outlines_are_drawn_around_the_regions_only(finding: Callable[..., Finding]) -> None:
    image = Image(pixels=np.full((600, 600), 0.5, np.float32), spacing_mm=None)
    one = saliency(image, sharp(blob()))
    plain = anatomy(render_overlay(image, one, finding(), model=MODEL, found=()))
    lined = anatomy(render_overlay(image, one, finding(), model=MODEL))
    changed = np.argwhere((plain != lined).any(axis=2))
    (region,) = regions(one)
    distance = [np.hypot(region.contour[:, 0] - x - 0.5, region.contour[:, 1] - y - 0.5).min() for y, x in changed[::7]]
    assert len(changed) > 100
    assert max(distance) < 14
    assert lined[tuple(changed.T)].max() == 255
    assert lined[tuple(changed.T)].min() < 60


def test_a_blank_map_draws_no_colour(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    (left,) = regions(saliency(image, blob()))  # a caller's regions of another map are not drawn either
    for condition, one in silent_maps(image).items():
        assert one.condition is condition
        drawn = render_overlay(
            image, one, finding(), model=MODEL, found=(left,), style=OverlayStyle(normalisations=(fixed(0, 0.1),))
        )
        assert (anatomy(drawn) == shown(image)[..., None]).all()
        assert drawn.normalisations[0].is_empty
        blocks = overlay_caption(one, finding(), (left,), MODEL, OverlayStyle())
        said = [block.text for block in blocks if isinstance(block, Words)]
        assert f"Nothing to show: {condition.value}" in said
        assert not any("outline" in words.lower() or words.startswith("Region") for words in said)
        assert not any(isinstance(block, Bar) for block in blocks)
        panel = render_panel(image, explanation(image, finding(), one), model=MODEL)
        plain, coloured = (panel.pixels[70:600, first : first + 600] for first in (0, panel.pixels.shape[1] // 3))
        assert (plain == coloured).mean() > 0.99  # the tiles' titles differ
        assert (
            caption.tile_title(one, explanation(image, finding(), one))
            == f"Grad-CAM. Nothing to show: {condition.value}"
        )


def silent_maps(image: Image) -> dict[MapCondition, SaliencyMap]:
    """A map for every reason to show nothing."""
    outside = replace(
        saliency(image, np.where(np.arange(CELLS)[:, None] < 3, 1.0, -0.1) * np.ones((CELLS, CELLS))),
        fit=replace(fit_to(image.shape, (128, 128), "stretch"), scale=(0.1, 0.2), offset=(60.0, 0.0)),
    )
    return {
        MapCondition.NO_POSITIVE_EVIDENCE: saliency(image, -blob()),
        MapCondition.NO_CLASS_EVIDENCE: replace(saliency(image, blob()), class_evidence=False),
        MapCondition.FLAT: saliency(image, np.full((CELLS, CELLS), 3.0)),
        MapCondition.OUTSIDE: outside,
        MapCondition.NOT_FINITE: saliency(image, np.full((CELLS, CELLS), np.nan)),
    }


def test_words_are_beside_the_anatomy(finding: Callable[..., Finding]) -> None:
    """Everything inside the anatomy is explained by image, map and outline: a map of zeros leaves it untouched."""
    image = picture((600, 700))
    drawn = render_notice(image, "AI not performed", ["The image shows a phantom. " * 40])
    assert (anatomy(drawn) == shown(image)[..., None]).all()
    panel = render_panel(image, explanation(image, finding(), saliency(image, -blob())), model=MODEL)
    assert panel.anatomy is not None
    assert (anatomy(panel) == shown(image)[..., None]).all()
    beside = drawn.pixels[:, drawn.anatomy[2] :] if drawn.anatomy else drawn.pixels
    assert (beside > 150).any()


def test_a_legend_that_needs_more_room_gets_it(finding: Callable[..., Finding]) -> None:
    image = picture((40, 520))
    drawn = render_overlay(image, saliency(image, blob()), finding(), model=MODEL)
    assert drawn.pixels.shape[0] > 300
    assert not drawn.pixels[-2:, :].any()  # a margin below the last line: nothing is cut
    long = render_notice(None, "AI not performed", ["because " * 900])
    assert long.pixels.shape[0] > 768


def test_the_legend_says_all_that_a_reader_needs(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    one = saliency(image, 0.02 * blob() - 0.001, method="score-cam", variant="delta", title="Score-CAM")
    one = replace(one, baseline="everything masked")
    said = texts(image, one, finding(probability=0.874), OverlayStyle(opacity=0.35, demonstration_only=True))
    everything = "\n".join(said)
    for words in (
        NOT_PRIMARY,
        NOT_TRUTH,
        DEMONSTRATION,
        "finding 0",
        "Certainty 87.4 %",
        "threshold of 50 %",
        "Score-CAM (delta)",
        MODEL,
        "opacity 0 to 35 %",
        "cividis",
        "Raw range -0.001 to 0.019",
        "0.019  (100 %)",
        "0  (0 %)",
        "cm2",
        "everything masked",
        "50 % of the map's maximum",
    ):
        assert words in everything
    assert DEMONSTRATION not in texts(image, one, finding(), OverlayStyle())
    assert "below the threshold of 50 %" in texts(image, one, finding(probability=0.2), OverlayStyle())
    close = texts(image, one, finding(probability=0.4996), OverlayStyle())
    assert "Certainty 49.9 %" in close
    assert "below the threshold of 50 %" in close
    told = Uncertainty(kind="ensemble", passes=5, mean=0.8, sd=0.1, low=0.42, high=0.9, level=0.95)
    unsure = texts(image, one, replace(finding(), uncertainty=told), OverlayStyle())
    assert "95 % interval 42 % to 90 %" in unsure
    assert "Borderline: the interval reaches below the threshold" in unsure
    sure = texts(image, one, replace(finding(), uncertainty=replace(told, low=0.7)), OverlayStyle())
    assert not any("Borderline" in words for words in sure)


def test_areas_and_percentages_for_people() -> None:
    image = picture((600, 600))
    (found,) = regions(saliency(image, blob()))
    assert caption.size(replace(found, area_mm2=None, area_pixels=1234.4)) == "1234 pixels (no pixel spacing)"
    assert caption.size(replace(found, area_mm2=23.44)) == "23.4 mm2"
    assert caption.size(replace(found, area_mm2=2130.0)) == "21.3 cm2"
    shown = [caption.percent(one) for one in (0, 0.0004, 0.5, 0.123, 0.9996, 1)]
    assert shown == ["0 %", "0.1 %", "50 %", "12.3 %", "99.9 %", "100 %"]


def test_the_panel_shows_the_original_and_names_the_same_evidence(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    maps = (
        saliency(image, blob(), method="cam", title="CAM"),
        saliency(image, 3 * blob()),
        saliency(image, blob(9, 4), method="score-cam", variant="delta", title="Score-CAM"),
    )
    one = explanation(image, finding(), *maps, failures=(("grad-cam++:paper", "no gradients"),))
    assert one.equivalent == (("cam", "grad-cam"),)
    assert caption.tile_title(maps[0], one) == "CAM"
    assert caption.tile_title(maps[1], one) == "Grad-CAM: same map as CAM"
    assert caption.tile_title(maps[2], one) == "Score-CAM (delta)"
    said = [block.text for block in caption.panel_caption(one, MODEL, OverlayStyle()) if isinstance(block, Words)]
    assert "Same map, one piece of evidence: CAM = Grad-CAM" in said
    assert "No map by grad-cam++:paper: no gradients" in said
    drawn = render_panel(image, one, model=MODEL)
    assert (anatomy(drawn) == shown(image)[..., None]).all()
    # four pictures and the legend: three columns, two rows
    assert drawn.pixels.shape[0] > 1200
    assert drawn.pixels.shape[1] > 1800
    second = drawn.pixels[:600, 610:1200]
    assert (second.max(axis=2) != second.min(axis=2)).any()


def test_a_panel_of_nothing_but_failures(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    drawn = render_panel(image, explanation(image, finding(), failures=(("cam", "no linear head"),)), model=MODEL)
    assert (anatomy(drawn) == shown(image)[..., None]).all()


def test_sizes(finding: Callable[..., Finding]) -> None:
    for shape, side, scale in (
        ((3000, 2500), 2048, 2048 / 3000),
        ((1955, 1841), 2048, 1),
        ((128, 128), 2048, 6),
        ((512, 300), 2048, 1),
        ((300, 200), 256, 256 / 300),
    ):
        assert display_scale(picture(shape), side) == pytest.approx((scale, scale))
    image = picture((2500, 1200))
    drawn = render_overlay(
        image, saliency(image, blob()), finding(), model=MODEL, style=OverlayStyle(maximum_side=1024)
    )
    assert anatomy(drawn).shape[:2] == (1024, 492)
    assert drawn.scale == pytest.approx((0.4096, 0.4096))


def test_a_colour_picture_keeps_its_colours(finding: Callable[..., Finding]) -> None:
    pixels = np.random.default_rng(0).random((600, 600, 3), dtype=np.float32)
    image = Image(pixels=pixels, spacing_mm=None)
    one = saliency(image, sharp(blob()))
    found = anatomy(render_overlay(image, one, finding(), model=MODEL, found=()))
    placed = one.on_image()
    assert (found[placed <= 0] == shown(image)[placed <= 0]).all()
    assert (found[placed > 0.5] != shown(image)[placed > 0.5]).any()


def test_the_blend_is_the_formula() -> None:
    source = np.random.default_rng(1)
    grey, level = source.integers(0, 256, (40, 50), np.uint8), source.integers(0, 256, (40, 50), np.uint8)
    alpha = 0.4 * level[..., None] / 255
    expected = (1 - alpha) * grey[..., None] + alpha * colours("viridis")[level]
    assert np.abs(blend(grey, level, "viridis", 0.4)[..., :3] - expected).max() <= 0.5 + 1e-9
    assert (blend(np.repeat(grey[..., None], 3, 2), level, "viridis", 0.4) == blend(grey, level, "viridis", 0.4)).all()


@pytest.mark.parametrize("name", ["cividis", "inferno", "viridis", "magma", "plasma"])
def test_palettes_rise_in_lightness_so_that_they_need_no_colour_vision(name: str) -> None:
    luminance = (colours(name) / 255.0) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance[::16]) > 0).all()


@pytest.mark.parametrize("wrong", [{"opacity": 0.29}, {"opacity": 0.51}, {"palette": "rainbow"}, {"maximum_side": 100}])
def test_styles_outside_the_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(OverlayError):
        OverlayStyle(**wrong)  # type: ignore[arg-type]


def test_a_map_of_another_image_or_finding_is_refused(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    one = saliency(image, blob())
    with pytest.raises(OverlayError, match="the map is of an image"):
        render_overlay(picture((600, 602)), one, finding(), model=MODEL)
    with pytest.raises(OverlayError, match="the map explains 'finding 0'"):
        render_overlay(image, one, finding(1), model=MODEL)
    with pytest.raises(OverlayError):
        render_panel(image, explanation(image, finding(1), one), model=MODEL)


def test_the_same_input_gives_the_same_picture(finding: Callable[..., Finding]) -> None:
    image = picture((600, 500))
    first, second = (render_overlay(image, saliency(image, blob()), finding(), model=MODEL) for _ in range(2))
    assert first.pixels.tobytes() == second.pixels.tobytes()


def test_a_notice_warns_when_the_model_is_for_demonstration() -> None:
    blocks = notice_caption("AI not performed", ["why"], OverlayStyle(demonstration_only=True))
    said = [block.text for block in blocks if isinstance(block, Words)]
    assert said == [DEMONSTRATION, NOT_PRIMARY, "AI not performed", "why"]
    assert legend_height(blocks, 300, 20) > legend_height(blocks[1:], 300, 20)


def test_the_legend_says_how_many_areas_are_not_outlined(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    one = saliency(image, blob() + 0.9 * blob(12, 3) + 0.8 * blob(12, 12))
    found = regions(one, spacing_mm=image.spacing_mm, limit=2)
    blocks = overlay_caption(one, finding(), found, MODEL, OverlayStyle())
    said = [block.text for block in blocks if isinstance(block, Words)]
    assert "2 largest of 3 areas outlined" in said
    assert any(words.startswith(f"Region 1 holds {caption.percent(found[0].share)} of the map's") for words in said)
    whole = overlay_caption(one, finding(), regions(one), MODEL, OverlayStyle())
    assert "3 areas outlined" in [block.text for block in whole if isinstance(block, Words)]
    specked = overlay_caption(one, finding(), [replace(found[0], specks=2)], MODEL, OverlayStyle())
    assert any("under 0.5 %" in block.text for block in specked if isinstance(block, Words))


def test_outlines_are_numbered_beside_them_and_inside_the_picture() -> None:
    image = picture((600, 600))
    one = saliency(image, blob() + 0.9 * blob(12, 3))
    found = regions(one)
    numbered, bare = PillowImage.new("RGB", (600, 600)), PillowImage.new("RGB", (600, 600))
    outline(numbered, found, (1.0, 1.0))
    for region in found:
        outline(bare, [region], (1.0, 1.0))  # a single region needs no number
    changed = np.argwhere((np.asarray(numbered) != np.asarray(bare)).any(axis=2))
    assert 20 < len(changed) < 2000  # two digits, no more
    for region in found:
        x0, y0, x1, y1 = region.box
        near = (changed[:, 1] > x0 - 40) & (changed[:, 1] < x1 + 40) & (changed[:, 0] > y0 - 40) & (changed[:, 0] < y1)
        assert near.sum() > 10
    inside = [(x, y) for y, x in changed for r in found if _within(r, x, y)]
    assert len(inside) < len(changed) / 10
    edge = replace(found[0], box=(0, 0, 30, 30), contour=np.array([[0, 0], [30, 0], [30, 30], [0, 30], [0, 0.0]]))
    cornered = PillowImage.new("RGB", (600, 600))
    outline(cornered, [edge, found[1]], (1.0, 1.0))
    assert np.asarray(cornered)[:60, :60].any()


def _within(region: Region, x: int, y: int) -> bool:
    return bool(points_in_poly([[x + 0.5, y + 0.5]], region.contour)[0])  # type: ignore[no-untyped-call]
