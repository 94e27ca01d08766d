"""From the engine to cases: the maps are the engine's, the scores the model's, and the cascade's models are random."""

from __future__ import annotations

import numpy as np
import pytest

from cam_core.explanation import explain
from cam_core.image import Image
from cam_core.method import method_named
from cam_core.model_input import model_input
from cam_core.prediction import predict
from cam_core.quality.case import Settings
from cam_core.quality.engine import CONTROLS, Examined, cases, randomised_classifiers, with_cascades, with_controls
from cam_core.quality.faithfulness import Removal
from cam_core.quality.report import assess
from cam_core.registration import cells_on_grid

QUICK = Settings(removal=Removal(steps=4), road_shares=(0.5,), score_tolerance=1.0)


@pytest.fixture(params=["torch", "onnx"])
def classifier(request, torch_classifier, onnx_classifier):
    return torch_classifier("layers") if request.param == "torch" else onnx_classifier("layers")


@pytest.fixture
def methods():
    return [method_named("grad-cam"), method_named("grad-cam++")]


@pytest.fixture
def examined(image):
    mask = np.zeros(image.shape, dtype=bool)
    mask[10:30, 34:54] = True
    return Examined(name="film", patient="p", image=image, masks={"finding 1": mask})


def test_a_case_has_the_engine_s_maps_and_the_model_s_scores(classifier, methods, examined):
    first, second = cases(examined, classifier, methods, ["finding 0", "finding 1"])
    findings = predict(examined.image, classifier).findings
    explained = explain(examined.image, classifier, methods, findings)
    for case, number in ((first, 0), (second, 1)):
        assert case.query.own() == pytest.approx(findings[number].probability, abs=1e-6)
        for one in explained[number].maps:
            placed = cells_on_grid(one.values, one.registration, (32, 32))
            assert case.maps[one.name] == pytest.approx(placed, abs=1e-5)
        assert case.other_maps["grad-cam"].shape == (2, 32, 32)
    assert first.mask is None
    assert second.mask.sum() == 100
    again = second.explain["grad-cam"](second.query.input)
    assert again == pytest.approx(second.maps["grad-cam"], abs=1e-5)


def test_the_border_that_is_added_around_an_image_is_not_the_body(torch_classifier, methods, image):
    wide = Image(pixels=image.pixels[:32], spacing_mm=None)
    (case,) = cases(Examined(name="film", patient="p", image=wide), torch_classifier("linear"), methods, ["finding 0"])
    assert case.places.outside[:7].all()
    assert case.places.outside[-7:].all()
    assert not case.places.border[:7].any()


def test_a_colour_model_and_a_method_that_fails(torch_classifier, image):
    flat = torch_classifier("colour")
    (case,) = cases(
        Examined(name="film", patient="p", image=image),
        flat,
        [method_named("cam")],
        ["finding 2"],
        explained_again=False,
    )
    assert case.query.input.shape == (3, 32, 32)
    assert np.isnan(case.maps["cam"]).all()  # its head is no linear one
    report = assess([case], ["cam"], settings=QUICK)
    assert all(one.n == 0 for one in report.rows if one.measure not in ("pass-line",))
    assert {one.reason for one in report.rows} <= {
        "the map has values that are not finite numbers",
        "complexity: the map has values that are not finite numbers",
        "fewer than two labels have a map that varies",
        "no letters were found",
    }


def test_random_classifiers_explain_and_the_given_one_stays_as_it_is(classifier, methods, examined, batch):
    example = np.concatenate([model_input(examined.image, classifier.card.input)[0], batch])
    before = classifier.scores(example)
    judged = cases(examined, classifier, methods, ["finding 0"])
    found = with_cascades(judged, methods, randomised_classifiers(classifier, example, steps=3, seed=1))
    cascade = found[0].cascades["grad-cam"]
    assert len(cascade.layers) == 3
    assert len(cascade.ssim) == 3
    assert (classifier.scores(example) == before).all()
    random = [one for _, one in randomised_classifiers(classifier, example, steps=3, seed=1)]
    assert np.abs(random[-1].scores(example) - before).max() > 1e-3
    assert (random[0].activations(example).activations == classifier.activations(example).activations).all()


def test_a_whole_report_of_an_engine_s_cases(torch_classifier, methods, examined):
    classifier = torch_classifier("layers")
    judged = with_controls(cases(examined, classifier, methods, ["finding 0", "finding 1"]), seed=4)
    assert (judged[0].maps["control: random"] != judged[1].maps["control: random"]).any()
    names = [*(one.full_name for one in methods), *CONTROLS]
    families = {one.full_name: one.family for one in methods}
    report = assess(judged, names, families=families, settings=QUICK)
    assert {"coherency", "stability-ssim", "class-sensitivity", "on-border", "auprc"} <= {
        one.measure for one in report.rows
    }
