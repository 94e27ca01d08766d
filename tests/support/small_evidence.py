"""Evidence made of seeded noise, with a plain function in the place of a model; tests only."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cam_core.method import Evidence, Perturbation, Subject
from cam_core.passes import scored
from cam_core.registration import Registration, library_registration

LABELS = 6
PLANES = (6, 5)
VOLUMES = (3, 4, 5)

Model = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def not_to_be_asked(*_: object) -> NDArray[np.float32]:
    raise AssertionError("not to be asked")


def evidence(
    *,
    channels: int = 7,
    cells: Sequence[int] = PLANES,
    labels: tuple[int, ...] = (0, 2),
    seed: int = 0,
    signed: bool = False,
    **changes: object,
) -> Evidence:
    """Evidence of noise, activations not negative unless `signed`; `changes` replace its attributes."""
    source = np.random.default_rng(seed)
    activations = source.normal(size=(channels, *cells)).astype(np.float32)
    every = source.normal(size=(LABELS, channels, *cells)).astype(np.float32)
    grid = tuple(4 * side for side in cells)
    made: dict[str, object] = {
        "input": source.normal(size=(1, *grid)).astype(np.float32),
        "activations": activations if signed else np.maximum(activations, 0),
        "labels": labels,
        "logits": source.normal(size=LABELS).astype(np.float32),
        "activation": "sigmoid",
        "gradients": every[list(labels)],
        "label_gradients": every,
        "curvatures": source.normal(size=(len(labels), channels, *cells)).astype(np.float32),
        "head_weights": source.normal(size=(LABELS, channels)).astype(np.float32),
        "grid": grid,
        "registration": library_registration(cells, grid),
        "answers": not_to_be_asked,
        "ablated": not_to_be_asked,
    }
    return Evidence(**(made | changes))  # type: ignore[arg-type]


def asked(
    model: Model,
    given: NDArray[np.float32],
    planes: NDArray[np.float32],
    *,
    registration: Registration | None = None,
    most: int = 16,
    **changes: object,
) -> Evidence:
    """Evidence of one input (C, *grid) whose perturbations `model` scores, at most `most` at a time."""
    grid = given.shape[1:]
    place = registration or library_registration(planes.shape[1:], grid)
    subject = Subject(input=given, activations=planes, registration=place)

    def answers(ask: Perturbation) -> NDArray[np.float32]:
        return scored(model, ask.inputs(subject, most), most)

    fixed = {"input": given, "activations": planes, "registration": place, "grid": grid, "answers": answers}
    return evidence(
        channels=len(planes), cells=planes.shape[1:], **(fixed | {"logits": model(given[None])[0]} | changes)
    )  # type: ignore[arg-type]
