"""The cascade's figures, the pass line and the verdict, on maps whose likeness is known."""

import numpy as np
import pytest

from cam_core.quality.agreement import ssim
from cam_core.quality.sanity import cascade, pass_line, randomised_figures, verdict


def test_a_map_that_ignores_the_weights_does_not_pass_and_noise_does(rng):
    maps = [rng.random((16, 16)) for _ in range(6)]
    line = pass_line(maps)
    ignorant = verdict([cascade(one, [("head", one), ("stem", one)]) for one in maps], line)
    assert ignorant.passed is False
    assert ignorant.ssim[-1].value == pytest.approx(1)
    opposed = verdict([cascade(one, [("head", one), ("stem", 1 - one)]) for one in maps], line)
    assert opposed.passed is True
    assert opposed.layers == ("head", "stem")
    assert opposed.spearman[-1].value == pytest.approx(-1)


def test_the_pass_line_is_the_mean_ssim_of_pairs_of_different_images(rng):
    maps = [rng.random((10, 10)) for _ in range(4)]
    pairs = [ssim(maps[i], maps[j]).value for i in range(4) for j in range(i + 1, 4)]
    assert pass_line(maps).value == pytest.approx(np.mean(pairs))
    same = pass_line(maps, ["a", "a", "b", "b"])
    apart = [ssim(maps[i], maps[j]).value for i in (0, 1) for j in (2, 3)]
    assert same.value == pytest.approx(np.mean(apart))
    assert pass_line(maps[:2], ["a", "a"]).reason == "fewer than two images"
    assert pass_line(maps[:1]).reason == "fewer than two images"


def test_the_pass_line_draws_fifty_pairs_by_its_seed(rng):
    maps = [rng.random((8, 8)) for _ in range(20)]
    assert pass_line(maps, seed=1) == pass_line(maps, seed=1)
    assert pass_line(maps, seed=1).value != pass_line(maps, seed=2).value


def test_blank_maps_of_a_random_model_are_missing_and_never_a_pass(rng):
    values = rng.random((16, 16))
    found = cascade(values, [("head", np.zeros((16, 16)))])
    assert [one.reason for one in randomised_figures(found)] == ["the map is constant"] * 2
    assert [one.measure for one in randomised_figures(found)] == ["randomised-ssim", "randomised-spearman"]
    assert verdict([found], pass_line([values, values.T])).passed is None


def test_a_cascade_has_steps_and_cascades_of_one_set_the_same():
    values = np.eye(9)
    with pytest.raises(ValueError, match="no steps"):
        cascade(values, [])
    two = [cascade(values, [("a", values)]), cascade(values, [("b", values)])]
    with pytest.raises(ValueError, match="different lists"):
        verdict(two, pass_line([values, values.T]))
