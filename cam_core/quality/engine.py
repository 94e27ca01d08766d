"""Cases from the explanation engine: images and a classifier in, maps of every finding on the model's grid out.

The model is taken together with its normalisation: what is changed, blurred or masked is the picture as it is shown, on
the model's grid, and zero is black.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from cam_core.card import InputSpecification, verified_weights
from cam_core.classifier import Classifier
from cam_core.errors import MethodNotApplicable
from cam_core.explanation import explain
from cam_core.finding import Finding
from cam_core.image import Fit, Image, Volume, grey, to_grid
from cam_core.method import Method
from cam_core.model_input import fitted, normalised
from cam_core.prediction import probabilities
from cam_core.quality.artefacts import Artefacts, artefacts
from cam_core.quality.case import Case
from cam_core.quality.controls import centre_gaussian, random_map
from cam_core.quality.query import Query, Score
from cam_core.quality.sanity import Cascade, cascade
from cam_core.registration import cells_on_grid
from cam_core.runtimes.randomisation import STEPS, onnx_cascade, torch_cascade
from cam_core.runtimes.torch_runtime import TorchClassifier

CONTROLS = ("control: random", "control: centre")
"""Names of maps that know nothing of the model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """An image of a set, with what is known of it.

    Attributes
    ----------
    name, patient : str
    image : Image or Volume
    masks : mapping of label to bool array of the image's shape
        Where findings are.
    """

    name: str
    patient: str
    image: Image | Volume
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def cases(
    examined: Examined,
    classifier: Classifier,
    methods: Sequence[Method],
    labels: Sequence[str],
    *,
    explained_again: bool = True,
) -> tuple[Case, ...]:
    """One case for each of the labels, with the maps of all labels beside it.

    Parameters
    ----------
    labels : sequence of str
        Names of the findings that are to be judged, for example those that are there.
    explained_again : bool
        Whether coherency and stability, which explain changed images, are to be measured.

    Notes
    -----
    A method that can't explain the image has a map of NaN, and its figures say so.
    """
    names = [one.name for one in classifier.card.labels]
    placed = fitted(examined.image, classifier.card.input)
    shown = np.ascontiguousarray(np.moveaxis(placed.values, -1, 0))
    maps = maps_of(classifier, methods, shown, names)
    score, places = scoring(classifier), _places(examined.image, placed.fit)
    masks = {label: _on_grid(mask, placed.fit, around=False) for label, mask in examined.masks.items()}
    again = methods if explained_again else ()
    return tuple(
        Case(
            name=examined.name,
            patient=examined.patient,
            finding=label,
            query=Query(input=shown, score=score, label=names.index(label), micro_batch=classifier.micro_batch),
            maps={name: found[names.index(label)] for name, found in maps.items()},
            mask=masks.get(label),
            places=places,
            other_maps={name: np.delete(found, names.index(label), axis=0) for name, found in maps.items()},
            explain={one.full_name: partial(_map_of, classifier, one, label) for one in again},
        )
        for label in labels
    )


def scoring(classifier: Classifier) -> Score:
    """Probabilities (N, K) of display values (N, C, *grid), through the card's normalisation and activation."""
    specification = classifier.card.input

    def score(batch: NDArray[np.float32]) -> NDArray[np.floating]:
        inputs = [normalised(np.moveaxis(one, 0, -1), specification) for one in batch]
        return probabilities(classifier.scores(np.concatenate(inputs)).astype(np.float64), classifier.card)

    return score


def maps_of(
    classifier: Classifier, methods: Sequence[Method], shown: NDArray[np.float32], labels: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Raw maps (L, *grid) of each method, by its full name, for display values (C, *grid)."""
    specification = classifier.card.input
    known = {one.name: one for one in classifier.card.labels}
    findings = [Finding(label=known[name], logit=0.0, probability=0.0) for name in labels]  # only the label is read
    found = {one.full_name: np.full((len(labels), *specification.grid), np.nan, np.float32) for one in methods}
    for index, explained in enumerate(explain(_image(shown, specification), classifier, methods, findings)):
        for one in explained.maps:
            found[one.name][index] = cells_on_grid(one.values, one.registration, specification.grid)
    return found


def _map_of(classifier: Classifier, method: Method, label: str, shown: NDArray[np.float32]) -> NDArray[np.float32]:
    (found,) = maps_of(classifier, [method], shown, [label])[method.full_name]
    return np.asarray(found)


def _image(shown: NDArray[np.float32], specification: InputSpecification) -> Image | Volume:
    """Display values (C, *grid) as what they are a picture of."""
    if specification.slices:
        return Volume(voxels=shown[0], spacing_mm=None)
    pixels = shown[0] if len(shown) == 1 else np.ascontiguousarray(np.moveaxis(shown, 0, -1))
    return Image(pixels=pixels, spacing_mm=None)


def _places(image: Image | Volume, fit: Fit) -> Artefacts:
    """Found on the image's own pixels, then brought to the model's grid; the border that `fit` adds is no body."""
    found = artefacts(image.voxels if isinstance(image, Volume) else grey(image.pixels))
    return Artefacts(
        outside=None if found.outside is None else _on_grid(found.outside, fit, around=True),
        lettering=_on_grid(found.lettering, fit, around=False),
        border=_on_grid(found.border, fit, around=False),
    )


def _on_grid(mask: NDArray[np.bool_], fit: Fit, *, around: bool) -> NDArray[np.bool_]:
    """Cells of the grid that are at least half covered."""
    covered: NDArray[np.bool_] = to_grid(mask.astype(np.float32), fit, float(around)) >= 0.5
    return covered


def randomised_classifiers(
    classifier: Classifier, example: NDArray[np.float32], *, steps: int = STEPS, seed: int = 0
) -> Iterator[tuple[str, Classifier]]:
    """The classifier with ever more layers random, from the output down.

    Parameters
    ----------
    example : (N, C, *grid) float32, N at least 2
        Normalised inputs.

    Raises
    ------
    MethodNotApplicable
        For a runtime whose weights can't be made random, or a graph that can't be followed.
    """
    card, device = classifier.card, classifier.device
    if isinstance(classifier, TorchClassifier):
        for layer, module in torch_cascade(classifier.module_copy(), example, steps=steps, seed=seed):
            yield layer, TorchClassifier(card, module, device)
    elif card.runtime == "onnx":
        from cam_core.runtimes.onnx_runtime import open_onnx  # noqa: PLC0415  # onnxruntime may not be installed

        for layer, weights in onnx_cascade(verified_weights(card), example, steps=steps, seed=seed):
            yield layer, open_onnx(card, weights, device)
    else:
        raise MethodNotApplicable("weight randomisation", f"{classifier.runtime} gives no weights to make random")


def with_cascades(
    judged: Sequence[Case], methods: Sequence[Method], random: Iterator[tuple[str, Classifier]]
) -> tuple[Case, ...]:
    """The cases with every method's likeness to its maps on ever more random classifiers.

    Parameters
    ----------
    judged : sequence of Case, made by `cases`
    random : iterator of (layer, Classifier)
        `randomised_classifiers`; each is used once, so that only one is held.
    """
    parts: list[dict[str, list[Cascade]]] = [{one.full_name: [] for one in methods} for _ in judged]
    for layer, classifier in random:
        for case, found in zip(judged, parts, strict=True):
            maps = maps_of(classifier, methods, case.query.input, [case.finding])
            for name, values in maps.items():
                found[name].append(cascade(case.maps[name], [(layer, values[0])]))
    return tuple(
        replace(case, cascades={name: _joined(steps) for name, steps in found.items()})
        for case, found in zip(judged, parts, strict=True)
    )


def with_controls(judged: Sequence[Case], seed: int = 0) -> tuple[Case, ...]:
    """The cases with the maps of `CONTROLS` beside the methods', to be assessed like them."""
    return tuple(
        replace(
            case,
            maps={
                **case.maps,
                CONTROLS[0]: random_map(case.query.grid, seed + number),
                CONTROLS[1]: centre_gaussian(case.query.grid),
            },
        )
        for number, case in enumerate(judged)
    )


def _joined(steps: Sequence[Cascade]) -> Cascade:
    return Cascade(
        layers=tuple(layer for one in steps for layer in one.layers),
        ssim=tuple(figure for one in steps for figure in one.ssim),
        spearman=tuple(figure for one in steps for figure in one.spearman),
    )
