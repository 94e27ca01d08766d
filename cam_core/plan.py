"""The passes that several methods, findings and images share, each run once; knows no formulas and draws nothing.

One pass gives the activations of all images. One recording of the part after the target layer gives the derivatives of
all asked logits for all gradient methods. Changed inputs that several methods ask for are scored once, for every label
at a time, and those of several images share passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability, Capture, Classifier
from cam_core.errors import ExplanationFailed, MethodError, MethodNotApplicable, ModelError
from cam_core.method import Evidence, Method, Perturbation, Subject
from cam_core.passes import in_pieces, remade, scored
from cam_core.registration import Registration

Answer = NDArray[np.float32] | MethodError
"""Scores of one perturbation of one image, or why there are none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gathered:
    """What methods may use.

    Attributes
    ----------
    evidence : tuple of Evidence, one an image
    no_gradient : str
        Why there are no gradients although a method wants them; empty otherwise.
    """

    evidence: tuple[Evidence, ...]
    no_gradient: str


def gather(
    classifier: Classifier,
    batch: NDArray[np.float32],
    labels: tuple[int, ...],
    methods: Sequence[Method],
    registration: Callable[[Capture], Registration],
    lap: Callable[[str], None],
) -> Gathered:
    """Run every pass that the methods need on a batch of images.

    Parameters
    ----------
    classifier : Classifier
    batch : (N, C, *grid) float32
    labels : tuple of int
        Output indices that are to be explained.
    methods : sequence of Method
    registration : callable
        Where the cells lie, given what was captured.
    lap : callable
        Told the name of each step when it is done.
    """
    usable = [method for method in methods if method.needs <= classifier.capabilities]
    asked = tuple(range(len(classifier.card.labels))) if any(one.every_label for one in usable) else labels
    capture, no_gradient = _captured(classifier, batch, asked, usable)
    place = registration(capture)
    lap("activations and gradients")
    subjects = [
        Subject(input=one, activations=planes, registration=place)
        for one, planes in zip(batch, capture.activations, strict=True)
    ]
    answers = _answers(classifier, subjects, usable)
    if answers:
        lap("changed inputs")
    return Gathered(
        evidence=tuple(
            _evidence(classifier, capture, index, (labels, asked), subject, answers)
            for index, subject in enumerate(subjects)
        ),
        no_gradient=no_gradient,
    )


def _captured(
    classifier: Classifier, batch: NDArray[np.float32], labels: Sequence[int], methods: Sequence[Method]
) -> tuple[Capture, str]:
    """One pass with derivatives when a method needs them; without, and why, when the model can't give them.

    A model that has no second derivatives still gives the first.
    """
    needed = {need for method in methods for need in method.needs}
    size = classifier.micro_batch
    if Capability.GRADIENTS not in needed:
        return _joined(in_pieces(classifier.activations, batch, size)[0]), ""
    for curvature in (True, False) if Capability.CURVATURES in needed else (False,):
        differentiated = partial(classifier.gradients, labels=labels, curvature=curvature)
        try:
            return _joined(in_pieces(differentiated, batch, size)[0]), ""
        except MethodNotApplicable as error:
            reason = error.reason
    return _joined(in_pieces(classifier.activations, batch, size)[0]), reason


def _joined(captures: Sequence[Capture]) -> Capture:
    """What several passes left behind, as if it had been one."""
    if len(captures) == 1:
        return captures[0]
    return Capture(
        scores=np.concatenate([one.scores for one in captures]),
        activations=np.concatenate([one.activations for one in captures]),
        gradients=_all_or_none([one.gradients for one in captures]),
        curvatures=_all_or_none([one.curvatures for one in captures]),
    )


def _all_or_none(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def _answers(
    classifier: Classifier, subjects: Sequence[Subject], methods: Sequence[Method]
) -> dict[Perturbation, list[Answer]]:
    """Scores of every asked perturbation for every image."""
    asked = dict.fromkeys(ask for method in methods for ask in method.asks)
    return {ask: _answer(classifier, subjects, ask) for ask in asked}


def _answer(classifier: Classifier, subjects: Sequence[Subject], ask: Perturbation) -> list[Answer]:
    """Scores of one perturbation of all images, in shared passes.

    An image that it can't change fails alone; passes that the model can't run fail for all, in this perturbation alone.
    """
    size = classifier.micro_batch
    counts: dict[int, int] = {}
    failed: dict[int, MethodError] = {}

    def blocks() -> Iterator[NDArray[np.float32]]:
        for index, subject in enumerate(subjects):
            counts[index] = 0
            try:
                for block in remade(partial(ask.inputs, subject), size):
                    counts[index] += len(block)
                    yield block
            except MethodError as error:
                failed[index] = error

    try:
        together = scored(classifier.perturbed_scores, blocks(), size)
    except ModelError as error:
        return [ExplanationFailed("changed inputs", str(error))] * len(subjects)
    parts = np.split(together, np.cumsum([counts[index] for index in range(len(subjects))])[:-1])
    return [failed.get(index, part) for index, part in enumerate(parts)]


def _evidence(
    classifier: Classifier,
    capture: Capture,
    index: int,
    labels: tuple[tuple[int, ...], tuple[int, ...]],
    subject: Subject,
    answers: dict[Perturbation, list[Answer]],
) -> Evidence:
    """What belongs to one image; `labels` are those to be explained and those whose gradients were taken."""
    wanted, asked = labels
    positions = [asked.index(label) for label in wanted]
    gradients = capture.gradients[index] if capture.gradients is not None else None
    curvatures = capture.curvatures[index] if capture.curvatures is not None else None
    return Evidence(
        input=subject.input,
        activations=subject.activations,
        labels=wanted,
        logits=capture.scores[index],
        activation=classifier.card.activation,
        gradients=_picked(gradients, positions),
        label_gradients=gradients if len(asked) == len(classifier.card.labels) else None,
        curvatures=_picked(curvatures, positions),
        head_weights=classifier.head_weights(),
        grid=subject.input.shape[1:],
        registration=subject.registration,
        answers=partial(_of_image, answers, index),
        ablated=cache(partial(_ablated, classifier, subject, capture.scores[index])),
    )


def _picked(values: NDArray[np.float32] | None, positions: list[int]) -> NDArray[np.float32] | None:
    if values is None or positions == list(range(len(values))):
        return values
    return values[positions]


def _of_image(answers: dict[Perturbation, list[Answer]], index: int, ask: Perturbation) -> NDArray[np.float32]:
    answer = answers[ask][index]
    if isinstance(answer, MethodError):
        raise answer
    return answer


ROUNDING = 16 * float(np.finfo(np.float32).eps)
"""Logits that differ by less than this part of the largest are the same: passes of other sizes round otherwise."""


def _ablated(classifier: Classifier, subject: Subject, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `ablated_scores`; passes that the model can't run fail the methods that ask for them."""
    try:
        return ablated_scores(classifier, subject, logits)
    except ModelError as error:
        raise ExplanationFailed("channels set to zero", str(error)) from error


def ablated_scores(classifier: Classifier, subject: Subject, logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (Ch, K) with each channel of the target layer set to 0 in turn.

    In closed form for a head of global average pooling and one linear layer, ``y_c - W[c, k] * mean(A_k)``; otherwise
    the head alone is run. Channels that are 0 everywhere change nothing and cost no pass. A change within `ROUNDING` is
    none: its logit is the image's own.
    """
    planes = subject.activations.reshape(len(subject.activations), -1)
    weights = classifier.head_weights()
    if weights is not None:
        drop = weights.astype(np.float64) * planes.mean(axis=1, dtype=np.float64)
        without: NDArray[np.float32] = (logits - drop.T).astype(np.float32)
        return without
    found = np.repeat(logits[None], len(planes), axis=0)
    alive = np.flatnonzero(planes.any(axis=1))
    if alive.size:
        size = classifier.head_batch
        run = partial(classifier.head_scores, subject.input[None])
        found[alive] = scored(run, remade(partial(_without, subject.activations, alive), size), size)
    same = np.abs(found - logits) <= ROUNDING * np.abs(logits).max()
    unchanged: NDArray[np.float32] = np.where(same, logits, found)
    return unchanged


def _without(activations: NDArray[np.float32], channels: NDArray[np.intp], most: int) -> Iterator[NDArray[np.float32]]:
    """Blocks of the activations, each with one channel set to 0."""
    for first in range(0, channels.size, most):
        block = channels[first : first + most]
        repeated = np.repeat(activations[None], block.size, axis=0)
        repeated[np.arange(block.size), block] = 0
        yield repeated
