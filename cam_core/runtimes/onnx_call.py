"""One ONNX node with its inputs in hand, for the operators to be run in torch; knows no operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class UnsupportedOperator(Exception):
    """A node that can't be run in torch; caught inside this package."""

    def __init__(self, operator: str) -> None:
        super().__init__(operator)
        self.operator = operator

    def __str__(self) -> str:
        return f"operator {self.operator} can't be differentiated here"


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One node with its inputs in hand.

    Attributes
    ----------
    operator : str
    inputs : list of Tensor or None
        None for those left out.
    attributes : dict
    outputs : int
        How many are asked for.
    """

    operator: str
    inputs: list[Tensor | None]
    attributes: dict[str, Any]
    outputs: int = 1

    def tensor(self, index: int) -> Tensor:
        """Input `index`, which must be there."""
        value = self.optional(index)
        if value is None:
            raise UnsupportedOperator(f"{self.operator} without input {index}")
        return value

    def optional(self, index: int) -> Tensor | None:
        """Input `index`, or None when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def numbers(self, name: str, index: int) -> list[int] | None:
        """Whole numbers given as an attribute (older operator sets) or as an input (newer ones)."""
        if name in self.attributes:
            return [int(value) for value in self.attributes[name]]
        given = self.optional(index)
        return None if given is None else [int(value) for value in given.reshape(-1)]

    def whole(self, name: str, default: int) -> int:
        """A whole number given as an attribute."""
        return int(self.attributes.get(name, default))

    def word(self, name: str, default: str) -> str:
        """A word given as an attribute."""
        value: bytes = self.attributes.get(name, default.encode())
        return value.decode()


Operator = Callable[[Call], Tensor | tuple[Tensor, ...]]
"""From a node with its inputs to its output, or its outputs where there are several."""


def one(function: Callable[[Tensor], Tensor]) -> Operator:
    """An operator of one tensor without attributes."""
    return lambda call: function(call.tensor(0))


def two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """An operator of two tensors without attributes."""
    return lambda call: function(call.tensor(0), call.tensor(1))
