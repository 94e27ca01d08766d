"""Laws of every method: threads, sizes of passes, memory that runs out and images explained together change no map."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from law_models import KINDS, classifier_of, image_of
from law_runs import (
    FEW,
    METHODS,
    WITHOUT_REGIONS,
    Around,
    assert_near,
    explained,
    findings_of,
    run,
    same,
)

from cam_core.classifier import Capability, Classifier
from cam_core.errors import OutOfMemory
from cam_core.explanation import explain_batch

few_kinds = pytest.mark.parametrize("name", FEW)


@few_kinds
def test_eight_threads_explain_as_one_does(name: str) -> None:
    kind, classifier = KINDS[name], classifier_of(name)
    seeds = [5, 6, 7, 8] * 3
    expected = {seed: explained(name, seed) for seed in set(seeds)}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda seed: run(classifier, image_of(kind, seed)), seeds))
    assert all(same(one, expected[seed]) for one, seed in zip(found, seeds, strict=True))


@few_kinds
@pytest.mark.parametrize("size", [1, 3, 64])
def test_the_size_of_a_pass_is_no_matter(name: str, size: int) -> None:
    classifier: Classifier = Around(classifier_of(name), micro_batch=size)  # type: ignore[assignment]
    assert_near(run(classifier, image_of(KINDS[name])), explained(name))


def limited(inner: Classifier, most: int) -> Classifier:
    """A classifier whose memory holds at most `most` inputs at once, or `most` times sixteen of its own planes."""

    def perturbed_scores(batch: np.ndarray) -> np.ndarray:
        if len(batch) > most:
            raise OutOfMemory(len(batch), "cpu")
        return inner.perturbed_scores(batch)

    def head_scores(batch: np.ndarray, activations: np.ndarray) -> np.ndarray:
        if len(activations) > most:
            raise OutOfMemory(len(activations), "cpu")
        return inner.head_scores(batch, activations)

    return Around(inner, perturbed_scores=perturbed_scores, head_scores=head_scores)  # type: ignore[return-value]


@few_kinds
@pytest.mark.parametrize("most", [1, 5])
def test_a_pass_that_does_not_fit_is_halved(name: str, most: int) -> None:
    assert_near(run(limited(classifier_of(name), most), image_of(KINDS[name])), explained(name))


def test_where_not_even_one_input_fits_the_methods_that_ask_for_it_fail_alone() -> None:
    found = run(limited(classifier_of("smooth head"), 0), image_of(KINDS["smooth head"]))
    for one, whole in zip(found, explained("smooth head"), strict=True):
        failures = dict(one.failures)
        starved = {method.full_name for method in METHODS if method.asks or Capability.HEAD in method.needs}
        assert starved == failures.keys() - KINDS["smooth head"].failing
        assert all("out of memory" in failures[name] for name in starved)
        kept = [saliency for saliency in whole.maps if saliency.name not in failures]
        assert [saliency.name for saliency in one.maps] == [saliency.name for saliency in kept]
        for saliency, expected in zip(one.maps, kept, strict=True):
            assert saliency.values.tobytes() == expected.values.tobytes()


@few_kinds
def test_images_explained_together_are_as_each_alone(name: str) -> None:
    classifier = classifier_of(name)
    images = [image_of(KINDS[name], seed) for seed in (5, 6, 7)]
    wanted = [findings_of(classifier, image) for image in images]
    wanted[1] = []
    together = explain_batch(images, classifier, METHODS, wanted, options=WITHOUT_REGIONS)
    assert together[1] == ()
    assert_near(together[0], explained(name, 5))
    assert_near(together[2], explained(name, 7))
