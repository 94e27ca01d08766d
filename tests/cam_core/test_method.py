"""Tests of the table of methods and of what is joined to it."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from cam_core.errors import DuplicateName, UnknownMethod
from cam_core.method import METHODS, known_methods, method_named


def test_names_and_variants() -> None:
    assert known_methods() == tuple(sorted(METHODS))
    assert method_named("score-cam") is method_named("score-cam:delta")
    assert method_named("score-cam:paper").variant == "paper"
    assert method_named("grad-cam++").full_name == "grad-cam++:paper"
    assert method_named("grad-cam").full_name == "grad-cam"


@pytest.mark.parametrize("name", ["gradcam", "score-cam:torchcam", "cam:paper", "", "score-cam:"])
def test_unknown_names_tell_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownMethod) as caught:
        method_named(name)
    assert caught.value.known


def test_an_installed_method_is_found_and_a_second_of_one_name_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def points(name: str) -> list[EntryPoint]:
        return [EntryPoint(name=name, value="cam_core.methods.cam:METHODS", group="camnode.methods")]

    monkeypatch.setattr("cam_core.extension._installed", lambda group: points("mine"))
    assert method_named("mine").title == "CAM"
    monkeypatch.setattr("cam_core.extension._installed", lambda group: points("cam"))
    with pytest.raises(DuplicateName, match="cam"):
        method_named("grad-cam")


def test_what_is_no_method_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint(name="odd", value="cam_core.methods.cam:__doc__", group="camnode.methods")
    monkeypatch.setattr("cam_core.extension._installed", lambda group: [point])
    with pytest.raises(TypeError, match="neither a Method"):
        method_named("odd")
