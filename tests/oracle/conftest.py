"""Cases shared by the comparisons with other libraries, and our maps of them as those libraries would place them."""

from collections.abc import Callable
from functools import cache

import numpy as np
import peers
import pytest
import torch
from small_networks import Case, network, picture

from cam_core.explanation import ExplainOptions, explain
from cam_core.image import Image, Volume
from cam_core.method import method_named
from cam_core.prediction import predict

BUILDERS: dict[str, Callable[[], Case]] = {
    "linear head": lambda: _case("linear head", (32, 32)),
    "smooth head": lambda: _case("smooth head", (32, 32), head="smooth"),
    "in-place head": lambda: _case("in-place head", (32, 32), head="in-place"),
    "one pixel cells": lambda: _case("one pixel cells", (16, 16), strides=(1, 1), head="smooth"),
    "five pixel cells": lambda: _case("five pixel cells", (40, 30), strides=(5,), head="smooth"),
    "volume": lambda: _case("volume", (8, 16, 24), dimensions=3, head="smooth"),
    "volume linear": lambda: _case("volume linear", (8, 16, 24), dimensions=3),
    "volume one pixel cells": lambda: _case(
        "volume one pixel cells", (4, 8, 6), dimensions=3, strides=(1, 1), head="smooth"
    ),
    "densenet121": lambda: _full(peers.densenet121, "class_layers.relu", channels=1),
    "resnet50": lambda: _full(peers.resnet50, "layer4", channels=3),
}


def _case(name: str, grid: tuple[int, ...], **options: object) -> Case:
    return Case(name=name, module=network(**options), target="target", image=picture(grid))


def _full(build: Callable[..., torch.nn.Module], target: str, *, channels: int) -> Case:
    """A deep network for both sides in the memory format that cam_core chooses.

    With random weights it turns the rounding of its first layers into 1e-5 of the map; compared are formulas.
    """
    peers.needed("monai" if build is peers.densenet121 else "pytorch-grad-cam")
    return Case(
        name=build.__name__,
        module=build(side=96, labels=5).to(memory_format=torch.channels_last),
        target=target,
        image=picture((96, 96), channels),
        channels=channels,
        memory_format=torch.channels_last,
    )


@cache
def built(name: str) -> Case:
    return BUILDERS[name]()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def case() -> Callable[[str], Case]:
    """A case of `BUILDERS`, built once."""
    return built


def explained(one: Case, method: str, image: Image | Volume | None = None) -> np.ndarray:
    """Raw maps (labels, *cells) of a case, or of another image by its model; all labels in one call.

    They are placed as libraries place them, which also decides how Score-CAM's masks lie.
    """
    image = image or one.image
    findings = predict(image, one.classifier).findings
    found = explain(image, one.classifier, [method_named(method)], findings, options=ExplainOptions(align="library"))
    assert not found[0].failures, found[0].failures
    values = np.stack([explanation.maps[0].values for explanation in found])
    values.setflags(write=False)
    return values


@pytest.fixture(scope="session")
def ours() -> Callable[..., np.ndarray]:
    """`explained`, each case and method once."""
    return cache(explained)


@pytest.fixture(scope="session")
def ours_anew() -> Callable[..., np.ndarray]:
    """`explained`, computed at every call."""
    return explained
