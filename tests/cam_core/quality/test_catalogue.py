"""The catalogue: complete, and every figure in its range on whatever map."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cam_core.quality.agreement import class_sensitivity, disagreement, spearman, ssim, top_iou
from cam_core.quality.artefacts import Artefacts, artefact_shares, border_mask
from cam_core.quality.catalogue import MEASURES, measure_named
from cam_core.quality.complexity import adcc, arcc, coherency, complexity, effective_area, entropy, gini
from cam_core.quality.faithfulness import Removal, deletion, insertion, masked_confidence
from cam_core.quality.localisation import auprc, energy_inside, overlap, pointing, rank_accuracy
from cam_core.quality.measure import Figure, missing, of_scores
from cam_core.quality.query import Query
from cam_core.quality.road import road
from cam_core.quality.stability import repeatability

SHAPES = st.sampled_from([(6, 7), (3, 5), (4, 5, 6)])
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32) | st.sampled_from([0.0, 1.0, -1.0, 2.0**-126])


@st.composite
def maps_with_mask(draw):
    shape = draw(SHAPES)
    one, other = (draw(hnp.arrays(np.float32, shape, elements=FLOATS)) for _ in range(2))
    return one, other, draw(hnp.arrays(np.bool_, shape))


def sigmoid_query(grid):
    def score(batch):
        weights = np.linspace(-3, 3, int(np.prod(grid)))
        return 1 / (1 + np.exp(-(batch.reshape(len(batch), -1) @ weights)))[:, None]

    image = np.random.default_rng(0).standard_normal((1, *grid)).astype(np.float32)
    return Query(input=image, score=score, label=0)


def everything(one, other, mask):
    query = sigmoid_query(one.shape)
    drop, increase = masked_confidence(query, one)
    removed = road(query, one, shares=(0.2, 0.6))
    coherent, simple = coherency(one, other), complexity(one)
    places = Artefacts(outside=~mask, lettering=mask, border=border_mask(one.shape))
    return [
        drop,
        increase,
        removed.morf,
        removed.lerf,
        removed.combined,
        deletion(query, one, Removal(steps=5)),
        insertion(query, one, Removal(steps=5, baseline="mean")),
        coherent,
        simple,
        adcc(coherent, simple, drop),
        arcc(coherent, simple, removed.combined),
        gini(one),
        entropy(one),
        effective_area(one),
        spearman(one, other),
        ssim(one, other),
        top_iou(one, other),
        class_sensitivity(np.stack([one, other])),
        disagreement(np.stack([one, other])),
        repeatability([one, other]),
        *overlap(one, mask),
        *overlap(one, mask, 0.5),
        pointing(one, mask, 1.0),
        energy_inside(one, mask),
        auprc(one, mask),
        rank_accuracy(one, mask),
        *artefact_shares(one, places),
    ]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(maps_with_mask())
def test_every_figure_is_in_its_range_or_says_why_it_is_none(drawn):
    for figure in everything(*drawn):
        low, high = MEASURES[figure.measure].range
        if figure.reason is None:
            assert low <= figure.value <= high, figure
        else:
            assert math.isnan(figure.value), figure


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e6])
def test_no_figure_depends_on_the_positive_scale_of_the_map(values, rng, mask, factor):
    other = rng.standard_normal(values.shape).astype(np.float32)
    for plain, scaled in zip(
        everything(values, other, mask), everything(values * np.float32(factor), other, mask), strict=True
    ):
        assert scaled.value == pytest.approx(plain.value, rel=1e-5, abs=1e-6), plain.measure


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0])
def test_a_constant_map_makes_up_no_order(grid, mask, level):
    flat = np.full(grid, level, np.float32)
    ordering = {
        "deletion",
        "insertion",
        "road-combined",
        "spearman",
        "ssim",
        "top-iou",
        "auprc",
        "rank-accuracy",
        "iou",
    }
    for figure in everything(flat, np.arange(flat.size, dtype=np.float32).reshape(grid), mask):
        if figure.measure in ordering:
            assert figure.reason == "the map is constant", figure


def test_a_map_that_is_not_finite_gives_no_number(values, mask):
    values[0] = np.nan
    for figure in everything(values, values, mask):
        assert figure.reason is not None, figure


def test_every_measure_is_described():
    for name, measure in MEASURES.items():
        assert name == measure.name
        assert measure.range[0] < measure.range[1]
        assert all((measure.title, measure.definition, measure.source, measure.undefined)), name
    with pytest.raises(KeyError, match="deletion"):
        measure_named("delation")


def test_a_figure_is_a_number_or_has_a_reason():
    assert missing("gini", "why").reason == "why"
    assert of_scores("deletion", float("inf")).reason == "the model gives scores that are not finite numbers"
    with pytest.raises(ValueError, match="gini"):
        Figure(measure="gini", value=float("nan"))
    with pytest.raises(ValueError, match="gini"):
        Figure(measure="gini", value=0.5, reason="why")
