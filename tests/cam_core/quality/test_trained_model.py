"""The measures on a model that has learnt something, on phantoms with known lesions: they tell right from wrong."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cam_core.quality.agreement import class_sensitivity
from cam_core.quality.case import Case, Settings
from cam_core.quality.controls import random_map
from cam_core.quality.faithfulness import Removal, insertion
from cam_core.quality.localisation import auprc, energy_inside, pointing
from cam_core.quality.query import Query
from cam_core.quality.road import road
from cam_core.quality.sanity import cascade, pass_line, verdict
from cam_core.runtimes.randomisation import torch_cascade

FOLDER = Path(__file__).parents[3] / "deploy" / "models" / "chest-demo"
SEED, FILMS, SIDE = 40_001, 8, 256


@pytest.fixture(scope="module")
def scripts():
    torch.set_num_threads(1)
    sys.path.insert(0, str(FOLDER))
    try:
        return {name: importlib.import_module(name) for name in ("dataset", "thorax", "network", "localisation")}
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def model(scripts):
    return scripts["network"].trained(FOLDER / "weights.safetensors")


@pytest.fixture(scope="module")
def class_maps(scripts):
    """From a module and an input to the class activation maps (K, H, W) of all labels, cells where they look."""

    def draw(module, image):
        with torch.no_grad():
            _, maps = scripts["network"].features_and_cam(module, torch.from_numpy(image[None]))
        place, design = scripts["localisation"].to_pixels, scripts["localisation"].BY_DESIGN
        return np.stack([place(one, SIDE, *design) for one in maps[0].numpy()])

    return draw


@pytest.fixture(scope="module")
def cases(scripts, model, class_maps):
    """A case for every lesion that the model finds."""

    def score(batch):
        with torch.no_grad():
            return torch.sigmoid(model(torch.from_numpy(np.ascontiguousarray(batch)))).numpy()

    made = []
    for number in range(FILMS):
        rng = np.random.default_rng([SEED, number])
        film = scripts["dataset"].compose(rng, scripts["thorax"].thorax(rng), 0)
        pixels = torch.from_numpy(film.image.astype(np.float32) / 255)
        image = scripts["network"].normalised(pixels[None, None])[0].numpy()
        maps, masks = class_maps(model, image), film.masks.astype(bool)
        for label in np.flatnonzero(masks.any(axis=(1, 2)) & (score(image[None])[0] > 0.3)):
            made.append(
                Case(
                    name=str(number),
                    patient=str(number),
                    finding=str(label),
                    query=Query(input=image, score=score, label=int(label)),
                    maps={"cam": maps[label], "random": random_map((SIDE, SIDE), number)},
                    mask=masks[label],
                    other_maps={"cam": np.delete(maps, label, axis=0)},
                )
            )
    return made


def mean(measure, cases, method):
    return float(np.mean([measure(case.maps[method], case.mask).value for case in cases]))


def test_there_are_cases(cases):
    assert len(cases) >= 5


def test_localisation_is_far_over_chance(cases):
    for measure, factor in ((energy_inside, 4), (auprc, 5)):
        assert mean(measure, cases, "cam") > factor * mean(measure, cases, "random"), measure
    hits = [pointing(case.maps["cam"], case.mask, 10).value for case in cases]
    assert np.mean(hits) >= 0.7


def test_the_score_follows_the_map_more_than_chance(cases):
    settings = Settings(removal=Removal(steps=10))
    for measure in (
        lambda case, method: insertion(case.query, case.maps[method], settings.removal).value,
        lambda case, method: road(case.query, case.maps[method], shares=(0.1, 0.3)).combined.value,
    ):
        found = {method: np.mean([measure(case, method) for case in cases[:4]]) for method in ("cam", "random")}
        assert found["cam"] > found["random"] + 0.1


def test_labels_have_maps_of_their_own(cases):
    found = [class_sensitivity(np.concatenate([case.maps["cam"][None], case.other_maps["cam"]])) for case in cases]
    assert np.mean([one.value for one in found]) < 0.5


def test_maps_of_a_random_model_are_other_maps(cases, model, class_maps):
    example = np.stack([case.query.input for case in cases[:3]])
    modules = list(torch_cascade(model, example, steps=3, seed=0))
    cascades = [
        cascade(
            case.maps["cam"],
            [(layer, class_maps(module, case.query.input)[int(case.finding)]) for layer, module in modules],
        )
        for case in cases
    ]
    found = verdict(cascades, pass_line([case.maps["cam"] for case in cases], [case.name for case in cases]))
    assert found.layers[0] == "head"
    assert found.passed
    assert abs(found.spearman[-1].value) < 0.35
