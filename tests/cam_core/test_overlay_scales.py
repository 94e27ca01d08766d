"""Tests of what a legend says of scales and outlines, and that pictures keep the proportions of the body."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from drawn import MODEL, anatomy, blob, explanation, picture, saliency, sharp, texts

from cam_core import caption
from cam_core.caption import overlay_caption
from cam_core.finding import Finding
from cam_core.image import Image
from cam_core.legend import Bar, Words
from cam_core.normalisation import fixed, shared, shared_by_method
from cam_core.overlay import OverlayStyle, render_overlay, render_panel
from cam_core.region import regions
from cam_core.threshold import OTSU, fixed_level


def test_maps_on_a_shared_scale_can_be_compared(finding: Callable[..., Finding]) -> None:
    """A map of half the height is coloured half as strongly, and the legend says which scale it is."""
    image = Image(pixels=np.full((600, 600), 0.5, np.float32), spacing_mm=None)
    strong, faint = saliency(image, sharp(blob())), saliency(image, 0.5 * sharp(blob()))
    style = OverlayStyle(normalisations=(shared([strong, faint], over="these studies"),))
    level = {}
    for name, one in (("strong", strong), ("faint", faint)):
        drawn = render_overlay(image, one, finding(), model=MODEL, style=style, found=())
        assert drawn.normalisations == style.normalisations
        level[name] = np.abs(anatomy(drawn).astype(float) - 128).max()
    alone = render_overlay(image, faint, finding(), model=MODEL, found=())
    assert np.abs(anatomy(alone).astype(float) - 128).max() == pytest.approx(level["strong"], abs=2)
    assert level["faint"] < 0.7 * level["strong"]
    said = texts(image, faint, finding(), style)
    assert "Shared scale over 2 maps of these studies: their colours can be compared" in said
    assert "This map reaches 50 % of the scale" in said
    high = strong.visible_range[1]
    assert f"{high:.3g}  (100 %)" in said


def test_a_fixed_scale_is_named_and_says_what_lies_over_it(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    style = OverlayStyle(normalisations=(fixed(0.1, 0.4),))
    said = texts(image, saliency(image, blob()), finding(), style)
    assert any(words.startswith("Fixed scale 0.1 to 0.4") for words in said)
    assert "Values over 0.4 have the top colour" in said
    assert "0.1  (0 %)" in said
    assert "0.4  (100 %)" in said


def test_a_panel_names_the_scale_of_each_method(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    maps = (saliency(image, blob()), saliency(image, blob(9, 4), method="score-cam", title="Score-CAM"))
    one = explanation(image, finding(), *maps)
    style = OverlayStyle(normalisations=shared_by_method([maps[0], saliency(image, 2 * blob())]))
    blocks = caption.panel_caption(one, MODEL, style)
    said = [block.text for block in blocks if isinstance(block, Words)]
    high = 2 * maps[0].visible_range[1]
    assert f"Grad-CAM: scale 0 to {high:.3g} (shared, over 2 maps of this study)" in said
    assert "Score-CAM: its own maximum, not to be compared" in said
    assert [block.title for block in blocks if isinstance(block, Bar)] == ["Share of each map's scale"]
    assert render_panel(image, one, model=MODEL, style=style).normalisations[0] == style.normalisations[0]


@pytest.mark.parametrize("spacing", [(0.2, 0.5), (0.5, 0.2), (0.5, 0.505)])
def test_pictures_keep_the_proportions_of_the_body(
    spacing: tuple[float, float], finding: Callable[..., Finding]
) -> None:
    """A disc in millimetres is a disc on the picture, and its outline lies on its edge."""
    y, x = np.mgrid[:300, :300] + 0.5
    disc = ((y - 150) * spacing[0]) ** 2 + ((x - 150) * spacing[1]) ** 2 < 22**2
    image = Image(pixels=disc.astype(np.float32), spacing_mm=spacing)
    drawn = render_overlay(image, saliency(image, -blob()), finding(), model=MODEL)
    rows, columns = np.nonzero(anatomy(drawn)[..., 0] > 128)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(1, abs=0.02)
    square = max(spacing) < 1.02 * min(spacing)
    assert (drawn.scale[0] == drawn.scale[1]) == square
    x0, y0, x1, y1 = drawn.anatomy or (0, 0, 0, 0)
    assert (y1 - y0, x1 - x0) == (round(300 * drawn.scale[0]), round(300 * drawn.scale[1]))
    spot = saliency(image, np.where(blob(8, 8) > 0.5, 1.0, 0.0))
    (region,) = regions(spot)
    lined = anatomy(render_overlay(image, spot, finding(), model=MODEL, found=(region,))).astype(int)
    bare = anatomy(render_overlay(image, spot, finding(), model=MODEL, found=())).astype(int)
    rows, columns = np.nonzero((lined != bare).any(axis=2))
    x0, y0, x1, y1 = region.box
    assert (columns.min(), columns.max()) == pytest.approx((x0 * drawn.scale[1], x1 * drawn.scale[1]), abs=8)
    assert (rows.min(), rows.max()) == pytest.approx((y0 * drawn.scale[0], y1 * drawn.scale[0]), abs=8)


def test_how_the_outline_was_chosen_is_said(finding: Callable[..., Finding]) -> None:
    image = picture((600, 600))
    one = saliency(image, blob())
    for threshold, words in (
        (0.4, "Outline: 40 % of the map's maximum"),
        (OTSU, "Outline: Otsu's threshold, "),
        (fixed_level(0.3), "Outline: map value 0.3, "),
    ):
        found = regions(one, threshold=threshold)
        said = [
            block.text
            for block in overlay_caption(one, finding(), found, MODEL, OverlayStyle())[:-1]
            if isinstance(block, Words)
        ]
        assert any(line.startswith(words) for line in said)
    assert regions(one, threshold=fixed_level(5.0)) == ()
    none = overlay_caption(one, finding(), (), MODEL, OverlayStyle())
    assert "No area is outlined" in [block.text for block in none if isinstance(block, Words)]
