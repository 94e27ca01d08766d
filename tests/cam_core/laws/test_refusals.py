"""Laws of every method: what a model can't do, evidence that isn't there, and bad input are answered in words."""

from __future__ import annotations

import numpy as np
import pytest
from law_models import KINDS, TORCH, classifier_of, image_of, seeded, torch_of
from law_runs import (
    CHOSEN,
    METHODS,
    NAMES,
    Around,
    assert_near,
    explained,
    findings_of,
    run,
    values,
)
from small_networks import network, picture

from cam_core.classifier import Capability, Classifier
from cam_core.errors import ExplanationFailed, ImageError, UnknownTargetLayer
from cam_core.explanation import Explanation, explain, explain_batch
from cam_core.finding import Finding
from cam_core.image import Image, Volume
from cam_core.method import method_named
from cam_core.saliency import MapCondition


@pytest.mark.parametrize("missing", [Capability.GRADIENTS, Capability.CURVATURES, Capability.HEAD])
@pytest.mark.parametrize("name", ["linear head", "volume smooth head", "onnx flat head"])
def test_what_a_model_can_not_do_stops_only_the_methods_that_need_it(name: str, missing: Capability) -> None:
    inner = classifier_of(name)
    classifier: Classifier = Around(inner, capabilities=inner.capabilities - {missing})  # type: ignore[assignment]
    found = run(classifier, image_of(KINDS[name]))
    lost = {method.full_name for method in METHODS if missing in method.needs}
    assert lost
    for one, whole in zip(found, explained(name), strict=True):
        reasons = dict(one.failures)
        assert set(reasons) == lost | KINDS[name].failing
        assert all(missing.value in reasons[method] for method in lost)
        kept = {saliency.name: saliency.values for saliency in whole.maps if saliency.name not in lost}
        assert values([one])[0].keys() == kept.keys()
    assert_near(found, [without(whole, lost, reasons) for whole in explained(name)])


def without(whole: Explanation, lost: set[str], reasons: dict[str, str]) -> Explanation:
    """An explanation as it would be without some methods."""
    order = [(method, reasons[method]) for method in NAMES if method in reasons]
    return Explanation(
        finding=whole.finding,
        maps=tuple(one for one in whole.maps if one.name not in lost),
        equivalent=(),
        failures=tuple(order),
        regions_of=whole.regions_of,
    )


def test_a_map_without_any_evidence_for_the_finding_says_so() -> None:
    """Behind the last block only the class token is read: the logits don't depend on the cells there."""
    kind = TORCH["vision transformer"]
    found = run(torch_of(kind, target="last"), image_of(kind))
    for one in found:
        conditions = {saliency.name: saliency.condition for saliency in one.maps}
        assert dict(one.failures).keys() == {"cam"}
        for method in METHODS:
            if {Capability.GRADIENTS, Capability.HEAD} & method.needs and method.name != "finer-cam":
                assert conditions[method.full_name] is MapCondition.NO_CLASS_EVIDENCE, method.full_name
        assert conditions["finer-cam"] is not MapCondition.POSITIVE_EVIDENCE
        assert conditions["score-cam:delta"] is not MapCondition.NO_CLASS_EVIDENCE
        assert conditions["occlusion:mean"] is not MapCondition.NO_CLASS_EVIDENCE


def test_hirescam_before_a_layer_norm_says_that_there_is_nothing() -> None:
    """There each cell's gradient is at right angles to its activations: what remains is rounding, and no evidence."""
    for one in explained("vision transformer"):
        found = {saliency.name: saliency for saliency in one.maps}
        assert found["hirescam"].is_blank
        assert not found["hirescam"].values.any()
        assert found["grad-cam"].values.any() or found["layercam"].values.any()


def test_a_score_that_never_changes_is_no_evidence() -> None:
    """The maps of softmaxed and probability weights aren't zero then, and still say nothing of the finding."""
    module = network()
    module.head.weight.data[CHOSEN[0]] = 0
    one, other = run(torch_of(TORCH["linear head"], module), image_of(TORCH["linear head"]))
    for saliency in one.maps:
        method = method_named(saliency.name)
        if method.class_specific and method.family not in ("control", "contrast"):
            assert saliency.condition is MapCondition.NO_CLASS_EVIDENCE, saliency.name
    assert any(not saliency.is_blank for saliency in other.maps)


def test_dead_planes_fail_or_say_that_there_is_nothing() -> None:
    module = seeded(TORCH["several layers"].build())
    module.second.bias.data -= 1e4  # type: ignore[union-attr,operator]
    for one in run(torch_of(TORCH["several layers"], module), image_of(TORCH["several layers"])):
        reasons = dict(one.failures)
        for method in METHODS:
            if method.family == "masking":
                assert "constant" in reasons[method.full_name]
        for saliency in one.maps:
            if method_named(saliency.name).family not in ("control", "occlusion"):
                assert saliency.is_blank, saliency.name


def test_an_unknown_layer_is_answered_with_the_near_names() -> None:
    with pytest.raises(UnknownTargetLayer, match=r"did you mean .*target"):
        torch_of(TORCH["linear head"], target="taget")


def test_a_finding_of_another_model_is_refused() -> None:
    classifier, image = classifier_of("linear head"), image_of(KINDS["linear head"])
    (finding, *_) = findings_of(classifier, image)
    strange = Finding(
        label=type(finding.label)(name="rust", code=finding.label.code, threshold=0.5), logit=0.0, probability=0.5
    )
    with pytest.raises(ExplanationFailed, match=r"no label 'rust'.*finding 0"):
        explain(image, classifier, METHODS, [strange])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(bad: float) -> None:
    pixels = np.full((32, 32), 0.5, np.float32)
    pixels[3, 4] = bad
    with pytest.raises(ImageError):
        run(classifier_of("linear head"), Image(pixels=pixels, spacing_mm=None))
    voxels = np.full((8, 16, 24), 0.5, np.float32)
    voxels[3, 4, 5] = bad
    with pytest.raises(ImageError):
        run(classifier_of("volume linear head"), Volume(voxels=voxels, spacing_mm=None))


@pytest.mark.parametrize(("name", "other"), [("linear head", (8, 16, 24)), ("volume linear head", (32, 32))])
def test_a_picture_is_no_volume(name: str, other: tuple[int, ...]) -> None:
    findings = findings_of(classifier_of(name), image_of(KINDS[name]))
    with pytest.raises(ImageError, match="the model takes"):
        explain(picture(other), classifier_of(name), METHODS, findings)


def test_nothing_to_do_is_done() -> None:
    classifier, image = classifier_of("linear head"), image_of(KINDS["linear head"])
    assert explain_batch([], classifier, METHODS, []) == ()
    assert explain(image, classifier, METHODS, []) == ()
    assert explain_batch([image, image], classifier, METHODS, [[], []]) == ((), ())
    for one in run(classifier, image, []):
        assert one.maps == one.failures == one.equivalent == ()
    with pytest.raises(ValueError, match="2 images, 1 lists of findings"):
        explain_batch([image, image], classifier, METHODS, [[]])
