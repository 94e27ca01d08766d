"""Tests of scales: named, shared by maps of one method only, and never stretched over nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cam_core.image import fit_to
from cam_core.normalisation import (
    Normalisation,
    by_map_maximum,
    by_range,
    fixed,
    normalise,
    per_map,
    scale_of,
    shared,
    shared_by_method,
)
from cam_core.registration import Registration
from cam_core.saliency import SaliencyMap


def saliency(peak: float, method: str = "grad-cam") -> SaliencyMap:
    values = np.zeros((4, 4), np.float32)
    values[1, 2] = peak
    return SaliencyMap(
        values=values,
        method=method,
        variant="",
        title=method.title(),
        label="finding 0",
        fit=fit_to((32, 32), (32, 32), "pad"),
        registration=Registration(start=(4.0, 4.0), step=(8.0, 8.0), measured=True),
        unit="logit",
    )


def test_the_arithmetic_is_scale_free() -> None:
    values = np.array([[-1.0, 0.0], [2e-12, 1e-12]], np.float32)
    assert by_map_maximum(values).tolist() == [[0, 0], [1, 0.5]]
    assert not by_map_maximum(-np.ones((2, 2), np.float32)).any()
    assert not by_map_maximum(np.full((2, 2), np.nan, np.float32)).any()
    assert by_range(np.array([-1, 1, 5], np.float32), 0, 4).tolist() == [0, 0.25, 1]
    with pytest.raises(ValueError, match="must be above"):
        by_range(values, 1, 1)


def test_a_scale_of_values_is_from_nothing_to_their_largest() -> None:
    values = np.array([-3.0, 1.0, 4.0, np.inf, np.nan], np.float32)
    scale = per_map(values, unit="logit")
    assert (scale.kind, scale.low, scale.high, scale.unit) == ("per-map", 0, 4, "logit")
    assert normalise(values[:3], scale) == pytest.approx([0, 0.25, 1])
    assert normalise(values[:3], scale) == pytest.approx(by_map_maximum(values[:3]))


@pytest.mark.parametrize("values", [[0.0, 0.0], [-1.0, -2.0], [np.nan, -1.0]])
def test_nothing_is_never_stretched(values: list[float]) -> None:
    scale = per_map(np.array(values, np.float32))
    assert scale.is_empty
    shown = normalise(np.array(values, np.float32), scale)
    assert shown.dtype == np.float32
    assert not shown.any()


def test_maps_of_one_method_share_their_largest_value() -> None:
    maps = [saliency(2.0), saliency(5.0), saliency(-1.0)]
    scale = shared(maps, over="these studies")
    expected = Normalisation(
        kind="shared", low=0, high=5, unit="logit", method="grad-cam", maps=3, over="these studies"
    )
    assert scale == expected
    assert normalise(maps[0].values, scale).max() == pytest.approx(0.4)
    assert shared([saliency(-1.0)]).is_empty
    with pytest.raises(ValueError, match=r"cam, grad-cam"):
        shared([saliency(2.0), saliency(2.0, "cam")])
    with pytest.raises(ValueError, match="none"):
        shared([])
    by_method = shared_by_method([saliency(2.0), saliency(7.0, "cam"), saliency(3.0)])
    assert [(one.method, one.high, one.maps) for one in by_method] == [("grad-cam", 3, 2), ("cam", 7, 1)]


def test_a_map_is_shown_on_the_scale_that_is_for_it() -> None:
    one, other = saliency(2.0), saliency(2.0, "cam")
    for_one = fixed(1.0, 4.0, method="grad-cam")
    assert scale_of(one, [for_one]) is for_one
    assert scale_of(other, [for_one]) == Normalisation(kind="per-map", low=0, high=2, unit="logit", method="cam")
    anyone = fixed(1.0, 4.0)
    assert scale_of(other, [for_one, anyone]) is anyone
    for blank in (saliency(0.0), replace(one, class_evidence=False)):
        assert scale_of(blank, [anyone]).is_empty


@pytest.mark.parametrize(("low", "high"), [(1.0, 0.5), (0.0, np.inf), (np.nan, 1.0)])
def test_scales_that_are_none(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="a scale can't go"):
        Normalisation(kind="fixed", low=low, high=high)
    with pytest.raises(ValueError, match="must be above"):
        fixed(1.0, 1.0)
