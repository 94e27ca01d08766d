"""Every error that explaining a classifier can raise; knows no cause outside this package.

::

    CamCoreError
    ├── CardError              a model card can't be used; all its problems at once
    ├── ImageError             pixels that are no picture
    ├── ModelError
    │   ├── DigestMismatch     the weights are not the ones that the card names
    │   ├── ModelLoadError     the weights can't be loaded or run
    │   ├── OutOfMemory            so many inputs at once don't fit
    │   ├── UnknownArchitecture
    │   ├── UnknownTargetLayer
    │   └── UnusableTargetLayer    it is there, but its output is no feature planes
    ├── MethodError
    │   ├── UnknownMethod
    │   ├── MethodNotApplicable    this method can't explain this model
    │   └── ExplanationFailed      the method broke down on this image
    ├── OverlayError           a style outside the permitted bounds, or a picture that can't be drawn
    └── DuplicateName          two registrations of one name

The facts of an error are its constructor arguments, kept as attributes; the text is made from them.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path


class CamCoreError(Exception):
    """Any failure of this package."""


class CardError(CamCoreError):
    """A model card that can't be used.

    Attributes
    ----------
    path : Path
        The card.
    problems : tuple of str
        Every problem found, in plain words.
    """

    def __init__(self, path: Path, problems: tuple[str, ...]) -> None:
        super().__init__(path, problems)
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        return f"model card {self.path}: " + "; ".join(self.problems)


class ImageError(CamCoreError):
    """Pixels that are not a picture; `reason` says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"not an image: {self.reason}"


class ModelError(CamCoreError):
    """A model that can't be used as its card says."""


class DigestMismatch(ModelError):
    """The weights on disk are not the ones that the card was written for."""

    def __init__(self, path: Path, expected: str, found: str) -> None:
        super().__init__(path, expected, found)
        self.path = path
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"{self.path.name}: SHA-256 is {self.found}, the card names {self.expected}; the model is not loaded"


class ModelLoadError(ModelError):
    """Weights that can't be loaded or a model that can't be run; `reason` says why."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path.name}: {self.reason}"


class OutOfMemory(ModelError):
    """A pass that doesn't fit in memory with so many `inputs` at once."""

    def __init__(self, inputs: int, device: str) -> None:
        super().__init__(inputs, device)
        self.inputs = inputs
        self.device = device

    def __str__(self) -> str:
        return f"out of memory on {self.device} with {self.inputs} input(s) in one pass"


class UnknownArchitecture(ModelError):
    """An architecture name that nothing registers; `known` lists those that exist."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return f"unknown architecture {self.name!r}; known: {', '.join(self.known) or 'none'}"


class UnknownTargetLayer(ModelError):
    """A target layer or tensor that the model doesn't have; `known` lists some that it has."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        wanted = repr(self.name) if self.name else "found automatically"
        near = get_close_matches(self.name, self.known, n=5, cutoff=0.5)
        if near:
            return f"no usable target layer {wanted}; did you mean {', '.join(near)}?"
        return f"no usable target layer {wanted}; the model has: {_shortened(self.known)}"


class UnusableTargetLayer(ModelError):
    """A target layer that the model has and that can't be explained; `reason` says why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"target layer {self.name!r} {self.reason}"


class MethodError(CamCoreError):
    """A method that can't explain."""


class UnknownMethod(MethodError):
    """A method name that nothing registers; `known` lists those that exist."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(name, known)
        self.name = name
        self.known = known

    def __str__(self) -> str:
        return f"unknown method {self.name!r}; known: {', '.join(self.known) or 'none'}"


class MethodNotApplicable(MethodError):
    """A method that needs something this model doesn't have; `reason` says what."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(method, reason)
        self.method = method
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.method} is not applicable: {self.reason}"


class ExplanationFailed(MethodError):
    """A method that broke down on one image; `reason` says how."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(method, reason)
        self.method = method
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.method} failed: {self.reason}"


class OverlayError(CamCoreError):
    """A style outside the permitted bounds, or a picture that can't be drawn; `reason` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class DuplicateName(CamCoreError):
    """Two registrations of one name; neither is taken silently."""

    def __init__(self, kind: str, name: str, sources: tuple[str, ...]) -> None:
        super().__init__(kind, name, sources)
        self.kind = kind
        self.name = name
        self.sources = sources

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r} is registered more than once: {', '.join(self.sources)}"


def _shortened(names: tuple[str, ...], most: int = 30) -> str:
    """Names for a message, the last ones (nearest to the output) where there are too many."""
    if len(names) <= most:
        return ", ".join(names) or "none"
    return f"..., {', '.join(names[-most:])}"
