"""How far scores vary when a model is asked again in another way, as its card declares; decides nothing by it.

- Test-time augmentation: the picture is changed as little as a reader would not mind (Ayhan and Berens, MIDL 2018; Wang
  et al., Neurocomputing 338, 2019). It shows how much the answer hangs on position, exposure and noise.
- Monte Carlo dropout: parts of the network are left out at random (Gal and Ghahramani, ICML 2016).
- Ensemble: networks that were trained apart are asked alike (Lakshminarayanan et al., NeurIPS 2017).

The interval is a prediction interval for one more such pass (Hahn and Meeker, Statistical Intervals, 1991). From the
log-odds ``o = log(p / (1 - p))`` of the n passes it is ``mean(o) -+ t sd(o) sqrt(1 + 1/n)``, with t the quantile of
Student's distribution at n - 1 degrees of freedom, brought back to probabilities. Percentiles of so few passes would be
too narrow: the whole range of 16 of them holds the next one in 15 of 17 cases only. So would ``mean(p) -+ 1.96 sd(p)``,
which can leave 0..1 besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from cam_core.augmentation import changed, draw
from cam_core.card import Augmentations, UncertaintySpecification
from cam_core.classifier import Classifier
from cam_core.errors import ExplanationFailed
from cam_core.finding import Uncertainty, UncertaintyKind
from cam_core.model_input import Fitted, normalised
from cam_core.passes import scored

TOGETHER = 8
"""Changed pictures to a pass: so few that free memory hardly ever decides it, and with it the last bits of a result."""


def uncertainties(picture: Fitted, classifier: Classifier) -> tuple[Uncertainty | None, ...]:
    """The uncertainty of every label's probability, None where the card declares none.

    The same picture gets the same answer each time: every random change comes from the card's seed.

    Parameters
    ----------
    picture : Fitted
    classifier : Classifier

    Raises
    ------
    ModelLoadError, OutOfMemory
    MethodNotApplicable
        When the model has no dropout for the passes that its card declares.
    ExplanationFailed
        When the model answers something that is not a number.
    """
    specification = classifier.card.uncertainty
    if specification is None:
        return (None,) * len(classifier.card.labels)
    logits = _PASSES[specification.kind](picture, classifier, specification).astype(np.float64)
    if not np.isfinite(logits).all():
        raise ExplanationFailed(specification.kind, "some of the model's scores are not finite numbers")
    odds = log_odds(logits, classifier.card.activation)
    return tuple(summary(each, specification) for each in odds.T)


def log_odds(logits: NDArray[np.float64], activation: str) -> NDArray[np.float64]:
    """``log(p / (1 - p))`` of each label's probability, exact also where p rounds to 1.

    Parameters
    ----------
    logits : (n, K) float64
    activation : ``sigmoid`` or ``softmax``

    Returns
    -------
    (n, K) float64
        For a sigmoid the logits themselves; for a softmax ``y_k - log(sum over j != k of exp(y_j))``.
    """
    if activation == "sigmoid":
        return logits
    others = [special.logsumexp(np.delete(logits, label, axis=1), axis=1) for label in range(logits.shape[1])]
    odds: NDArray[np.float64] = logits - np.stack(others, axis=1)
    return odds


def summary(odds: NDArray[np.float64], specification: UncertaintySpecification) -> Uncertainty:
    """Mean and deviation of the probability over the passes, and the interval for one more.

    Parameters
    ----------
    odds : (n,) float64
        Log-odds of one label, n >= 2.
    specification : UncertaintySpecification
    """
    probabilities = np.asarray(special.expit(odds), dtype=np.float64)
    count = len(odds)
    deviation = odds.std(ddof=1) if np.isfinite(odds).all() else 0.0  # a softmax over one label always says 1
    reach = stats.t.ppf((1 + specification.level) / 2, count - 1) * np.sqrt(1 + 1 / count) * deviation
    low, high = special.expit(odds.mean() + np.array([-reach, reach]))
    return Uncertainty(
        kind=specification.kind,
        passes=count,
        mean=float(probabilities.mean()),
        sd=float(probabilities.std(ddof=1)),
        low=float(low),
        high=float(high),
        level=specification.level,
    )


def _augmented(picture: Fitted, classifier: Classifier, specification: UncertaintySpecification) -> NDArray[np.float32]:
    """Logits (n, K) of n changed pictures, in passes that several of them share."""
    wanted = specification.augmentations or Augmentations()
    form = classifier.card.input

    def inputs() -> Iterator[NDArray[np.float32]]:
        for number in range(specification.passes):
            change = draw(wanted, form.grid, np.random.default_rng((specification.seed, number)))
            yield normalised(changed(picture, change, form.pad_value), form)

    return scored(classifier.scores, inputs(), min(TOGETHER, classifier.micro_batch))


def _without_parts(
    picture: Fitted, classifier: Classifier, specification: UncertaintySpecification
) -> NDArray[np.float32]:
    """Logits (n, K) of n networks with parts left out; each pass has a seed, so that none depends on the others."""
    batch = normalised(picture.values, classifier.card.input)
    seeds = np.random.SeedSequence(specification.seed).generate_state(specification.passes)
    return np.concatenate([classifier.sampled_scores(batch, int(seed)) for seed in seeds])


def _of_members(
    picture: Fitted, classifier: Classifier, specification: UncertaintySpecification
) -> NDArray[np.float32]:
    """Logits (n, K) of the card's own model and the other members."""
    batch = normalised(picture.values, classifier.card.input)
    members = (classifier, *classifier.members)
    if len(members) != specification.passes:
        raise ExplanationFailed("ensemble", f"{len(members)} of {specification.passes} members are open")
    return np.concatenate([one.scores(batch) for one in members])


_PASSES: dict[UncertaintyKind, Callable[[Fitted, Classifier, UncertaintySpecification], NDArray[np.float32]]] = {
    "test-time-augmentation": _augmented,
    "mc-dropout": _without_parts,
    "ensemble": _of_members,
}
