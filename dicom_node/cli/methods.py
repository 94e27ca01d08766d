"""`camnode methods`: the explanation methods that a route can name, what each needs and what its values are."""

from dataclasses import dataclass
from typing import Any

from cam_core.method import CONTROL, Method, known_methods, variants_of
from dicom_node.cli.options import AsJson
from dicom_node.cli.printing import as_json, say, table


@dataclass(frozen=True, kw_only=True)
class Described:
    """One method in words."""

    name: str
    title: str
    family: str
    needs: tuple[str, ...]
    class_specific: bool
    values: str
    default: bool
    reference: str


def described() -> tuple[Described, ...]:
    """Every variant of every method that a route can name, those from installed entry points among them."""
    return tuple(
        _described(method, default=number == 0)
        for name in known_methods()
        for number, method in enumerate(variants_of(name))
        if method.family != CONTROL
    )


def _described(method: Method, *, default: bool) -> Described:
    return Described(
        name=method.full_name,
        title=method.title,
        family=method.family,
        needs=tuple(sorted(need.value for need in method.needs)),
        class_specific=method.class_specific,
        values=f"{method.scale.unit}, {'signed' if method.scale.signed else 'not negative'}",
        default=default,
        reference=method.reference,
    )


def methods(json_: AsJson = False) -> None:
    """List the explanation methods; methods of one family say much the same, so a panel takes one of each."""
    found = described()
    if json_:
        as_json([_as_mapping(one) for one in found])
        return
    table(
        "Methods",
        ("method", "family", "needs of the model", "of one finding", "values"),
        [
            (one.name, one.family, ", ".join(one.needs), "yes" if one.class_specific else "no", one.values)
            for one in found
        ],
    )
    say("A name without its variant takes the first one listed. Papers: camnode methods --json")


def _as_mapping(one: Described) -> dict[str, Any]:
    return {**one.__dict__, "needs": list(one.needs)}
