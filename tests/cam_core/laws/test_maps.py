"""Laws of every method on every small model: what comes back, and that it says so when it is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from law_models import KINDS, ONNX, classifier_of, image_of, input_of
from law_runs import (
    CHOSEN,
    METHODS,
    NAMES,
    assert_near,
    explained,
    run,
    same,
    values,
)

from cam_core.method import method_named
from cam_core.saliency import MapCondition

every_kind = pytest.mark.parametrize("name", KINDS)


@every_kind
def test_every_method_makes_a_well_formed_map_or_says_why_not(name: str) -> None:
    kind, image = KINDS[name], image_of(KINDS[name])
    found = explained(name)
    assert len(found) == len(CHOSEN)
    for one in found:
        made = [saliency.name for saliency in one.maps]
        failed = {method for method, _ in one.failures}
        assert failed == kind.failing
        assert made == [method for method in NAMES if method not in failed]
        assert all(reason for _, reason in one.failures)
        for saliency in one.maps:
            method = method_named(saliency.name)
            assert saliency.values.dtype == np.float32
            assert np.isfinite(saliency.values).all()
            if method.name != "occlusion" and saliency.name != "score-cam:original":
                assert saliency.values.shape == kind.cells
                assert saliency.registration == classifier_of(name).registration
            if not method.scale.signed:
                assert saliency.values.min() >= 0
            on_image = saliency.on_image()
            assert on_image.shape == image.shape
            assert np.isfinite(on_image).all()
            assert saliency.baseline is None or saliency.baseline.strip()


@every_kind
def test_no_map_is_silently_empty(name: str) -> None:
    for one in explained(name):
        for saliency in one.maps:
            shows = bool((saliency.values > 0).any()) and np.ptp(saliency.values) > 0
            if not shows:
                assert saliency.condition is not MapCondition.POSITIVE_EVIDENCE
            assert saliency.is_blank == (saliency.condition is not MapCondition.POSITIVE_EVIDENCE)
    assert any(not saliency.is_blank for one in explained(name) for saliency in one.maps)


@every_kind
def test_a_second_run_gives_the_same_bits(name: str) -> None:
    assert same(run(classifier_of(name), image_of(KINDS[name])), explained(name))


@every_kind
def test_the_map_depends_on_the_finding_where_the_method_says_so(name: str) -> None:
    one, other = values(explained(name))
    for method in METHODS:
        key = method.full_name
        if key in one and (one[key].any() or other[key].any()):
            assert np.array_equal(one[key], other[key]) == (not method.class_specific), key


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.complete])
def test_hirescam_holds_all_evidence_of_a_linear_head(name: str) -> None:
    """Its cells sum to the logit minus the bias: what the same logit would be without any activation."""
    kind, classifier = KINDS[name], classifier_of(name)
    batch = input_of(kind, image_of(kind)).numpy()
    capture = classifier.activations(batch)
    bias = classifier.head_scores(batch, np.zeros_like(capture.activations))[0]
    for label, maps in zip(CHOSEN, values(explained(name)), strict=True):
        whole = float(capture.scores[0, label]) - float(bias[label])
        assert abs(whole) > 1e-3
        assert float(maps["hirescam"].sum(dtype=np.float64)) == pytest.approx(whole, rel=1e-3, abs=1e-5)
        if kind.linear:
            assert float(maps["cam"].mean(dtype=np.float64)) == pytest.approx(whole, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.linear])
def test_one_piece_of_evidence_is_not_counted_several_times(name: str) -> None:
    four = {"cam", "grad-cam", "hirescam", "xgrad-cam", "shapley-cam"}
    shown = [one for one in explained(name) if not one.maps[NAMES.index("grad-cam")].is_blank]
    for one in shown:
        assert any(four <= set(group) for group in one.equivalent)


@pytest.mark.parametrize("name", [name for name in ONNX if "smooth" not in name])
def test_onnx_and_torch_give_the_same_maps(name: str) -> None:
    """Where both explain the same tensor, so not where something with planes follows the layer that torch is given."""
    assert_near(explained(name), explained(name.removeprefix("onnx ")), 2e-3)
