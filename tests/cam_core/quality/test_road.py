"""Noisy linear imputation against dense algebra written from the paper, and ROAD on a model that can be followed."""

from itertools import product

import numpy as np
import pytest

from cam_core.quality.imputation import NOISE_SHARE, impute, neighbourhood
from cam_core.quality.query import Query
from cam_core.quality.road import road


class Silent:
    """A source whose noise is nil."""

    def standard_normal(self, size):
        return np.zeros(size)


def dense(image, gone):
    """Each missing cell is the weighted mean of its neighbours: equations one by one, solved densely."""
    cells = [tuple(one) for one in np.argwhere(gone)]
    place = {cell: i for i, cell in enumerate(cells)}
    matrix, right = np.zeros((len(cells), len(cells))), np.zeros(len(cells))
    for cell, i in place.items():
        for offset in product((-1, 0, 1), repeat=image.ndim):
            near = tuple(a + b for a, b in zip(cell, offset, strict=True))
            if not any(offset) or any(not 0 <= a < size for a, size in zip(near, image.shape, strict=True)):
                continue
            weight = {1: 1 / 6, 2: 1 / 12, 3: 1 / 18}[sum(abs(one) for one in offset)]
            matrix[i, i] += weight
            if near in place:
                matrix[i, place[near]] -= weight
            else:
                right[i] += weight * image[near]
    filled = image.astype(float)
    filled[gone] = np.linalg.solve(matrix, right)
    return filled


@pytest.mark.parametrize("shape", [(9, 8), (4, 6, 5)])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_imputation_solves_the_paper_s_equations(rng, shape, share):
    image = rng.standard_normal((2, *shape)).astype(np.float32)
    gone = rng.random(shape) < share
    found = impute(image, gone, neighbourhood(shape), Silent())
    for channel in range(2):
        assert found[channel] == pytest.approx(dense(image[channel], gone), abs=2e-4)
    assert (found[:, ~gone] == image[:, ~gone]).all()


def test_a_plane_is_filled_in_as_it_was():
    y, x = np.mgrid[:20, :24]
    plane = (0.3 * y - 0.1 * x)[None].astype(np.float32)
    gone = np.zeros((20, 24), dtype=bool)
    gone[5:15, 6:18] = True
    assert impute(plane, gone, neighbourhood((20, 24)), Silent()) == pytest.approx(plane, abs=1e-3)


def test_the_noise_is_a_hundredth_of_the_channel_and_seeded(rng):
    image = (5 * rng.standard_normal((1, 40, 40))).astype(np.float32)
    gone = rng.random((40, 40)) < 0.5
    around = neighbourhood((40, 40))
    still = impute(image, gone, around, Silent())
    noisy = [impute(image, gone, around, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    assert np.std((noisy[0] - still)[0][gone]) == pytest.approx(NOISE_SHARE * image.std(), rel=0.1)
    assert (noisy[0] == noisy[1]).all()
    assert (noisy[0] != noisy[2]).any()


@pytest.fixture
def spot():
    """An image with one bright spot, and a model that looks at its contrast."""
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 6:10, 6:10] = 1

    def score(batch):
        return np.clip(batch.reshape(len(batch), -1).max(axis=1), 0, 1)[:, None]

    return Query(input=image, score=score, label=0)


def test_road_tells_a_map_of_the_spot_from_its_opposite(spot):
    right = spot.input[0] + 0.01 * np.random.default_rng(0).random((20, 20)).astype(np.float32)
    good, bad = road(spot, right), road(spot, -right)
    assert good.morf.value < -0.8
    assert good.lerf.value > -0.1
    assert good.combined.value == pytest.approx((good.lerf.value - good.morf.value) / 2)
    assert good.combined.value > 0.35
    assert bad.combined.value == pytest.approx(-good.combined.value, abs=0.02)


def test_road_is_the_mean_change_over_shares(spot, rng):
    values = rng.random((20, 20)).astype(np.float32)
    shares = (0.25, 0.5)
    order = np.argsort(-values.ravel())
    around, source = neighbourhood((20, 20)), np.random.default_rng(5)
    changes = []
    for cells in (order[:100], order[:200], order[-100:], order[-200:]):
        gone = np.zeros(400, dtype=bool)
        gone[cells] = True
        filled = impute(spot.input, gone.reshape(20, 20), around, source)
        changes.append(float(spot.score(filled[None])[0, 0]) - spot.own())
    found = road(spot, values, shares=shares, seed=5)
    assert found.morf.value == pytest.approx(np.mean(changes[:2]), abs=1e-6)
    assert found.lerf.value == pytest.approx(np.mean(changes[2:]), abs=1e-6)


def test_a_constant_map_has_no_order_and_shares_are_shares(spot):
    assert road(spot, np.ones((20, 20))).combined.reason == "the map is constant"
    with pytest.raises(ValueError, match="between 0 and 1"):
        road(spot, spot.input[0], shares=(0.5, 1.0))
