"""Tests of the errors: facts survive the way from a child process, and the text names them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from cam_core import errors

EXAMPLES = [
    errors.CardError(Path("m.toml"), ("a is missing", "b is wrong")),
    errors.ImageError("it is empty"),
    errors.DigestMismatch(Path("w"), "aa", "bb"),
    errors.ModelLoadError(Path("w"), "too short"),
    errors.UnknownArchitecture("vgg", ("residual-gap",)),
    errors.UnknownTargetLayer("layer9", ("layer1",)),
    errors.UnusableTargetLayer("layer1", "runs more than once in a pass"),
    errors.OutOfMemory(16, "cpu"),
    errors.UnknownMethod("cam2", ("cam",)),
    errors.MethodNotApplicable("cam", "no head"),
    errors.ExplanationFailed("cam", "not finite"),
    errors.OverlayError("too opaque"),
    errors.DuplicateName("method", "cam", ("a:b", "c:d")),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_is_of_the_tree_and_survives_pickling(error: errors.CamCoreError) -> None:
    assert isinstance(error, errors.CamCoreError)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - as a process pool does
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    for fact in vars(error).values():
        for one in fact if isinstance(fact, tuple) else (fact,):
            assert str(one) in str(copy)


def test_no_error_is_left_out_of_the_examples() -> None:
    grouping = {errors.CamCoreError, errors.ModelError, errors.MethodError}
    defined = {one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.CamCoreError)}
    assert defined - grouping == {type(error) for error in EXAMPLES}


def test_an_unknown_layer_is_told_with_near_names() -> None:
    names = tuple(f"features.denseblock{number}.conv" for number in range(60))
    near = str(errors.UnknownTargetLayer("features.denseblok7.conv", names))
    assert "did you mean features.denseblock7.conv" in near
    far = str(errors.UnknownTargetLayer("head", names))
    assert "features.denseblock59.conv" in far
    assert "features.denseblock1.conv," not in far
    assert "none" in str(errors.UnknownTargetLayer("head", ()))
