"""What is said of a plane of a volume: which it is, how it is drawn and which regions lie on it; knows no pixels."""

from __future__ import annotations

from collections.abc import Sequence

from cam_core.image import Volume
from cam_core.legend import AMBER, WHITE, Block, Words
from cam_core.volume_region import VolumeRegion
from cam_core.volume_slice import Plane

NAMES = ("Slice", "Cut along row", "Cut along column")
"""What a plane across each axis is called; which way the patient lies in the volume is not known here."""


def plane_name(plane: Plane, shape: tuple[int, int, int]) -> str:
    """A plane as people point to it, counted from 1: ``Slice 12 of 40``."""
    return f"{NAMES[plane.axis]} {plane.index + 1} of {shape[plane.axis]}"


def plane_words(plane: Plane, volume: Volume) -> list[Block]:
    """Which plane it is, and for a cut across the slices how it is drawn."""
    blocks: list[Block] = [Words(text=plane_name(plane, volume.shape), size=1.25, colour=WHITE)]
    if plane.axis != 0:
        blocks.append(Words(text="Slice 1 is at the top"))
        if volume.spacing_mm is None:
            blocks.append(Words(text="No spacing known: proportions may be wrong", colour=AMBER))
        else:
            blocks.append(Words(text=f"Slices {volume.spacing_mm[0]:.3g} mm apart, proportions true"))
    return blocks


def peak_words(numbers: Sequence[int]) -> str:
    """What is added to the name of a plane through the peaks of these regions."""
    if not numbers:
        return ""
    noun = "region" if len(numbers) == 1 else "regions"
    return f", peak of {noun} {', '.join(map(str, numbers))}"


def reach_words(found: Sequence[VolumeRegion], reached: Sequence[int], plane: Plane) -> list[Block]:
    """Which of the regions lie on a plane; and of the first one, on which slices it lies."""
    if not found:
        return []
    main = found[0]
    words = f"Region {main.number} lies on slices {main.box[2] + 1} to {main.box[5]}"
    where = "slice" if plane.axis == 0 else "cut"
    if reached:
        here = f"On this {where}: {'region' if len(reached) == 1 else 'regions'} {', '.join(map(str, reached))}"
    else:
        here = f"No region lies on this {where}"
    return [Words(text=words), Words(text=here, colour=WHITE)]
