"""Which methods are shown side by side when nobody chooses; knows no formulas."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from cam_core.classifier import Capability
from cam_core.method import Method, method_named

PREFERENCE = ("grad-cam", "grad-cam++", "score-cam", "ablation-cam", "occlusion")
"""One method for each independent family (`Method.family`), in the order in which they are taken.

Two maps that agree say more only when they could have disagreed, and the members of one family hardly can: for a head
of global average pooling and one linear layer CAM, Grad-CAM, HiResCAM and XGrad-CAM are one and the same map. For the
linear family stands Grad-CAM: it is the one whose localisation on chest films has been measured against radiologists,
the best of seven methods (Saporta et al., Nature Machine Intelligence 2022). For positive gradients Grad-CAM++, for
masking Score-CAM with the difference as weight, for ablation Ablation-CAM. Occlusion is independent of all of them,
needs no look inside the model, and steps in where a model does not allow the others. Principal components say nothing
of the finding and are no evidence for it.
"""

SIZE = 4
"""How many maps are still taken in at a glance."""

DEFAULT_PANEL = PREFERENCE[:SIZE]
"""The panel of a model that can do everything."""


def panel_for(capabilities: AbstractSet[Capability]) -> tuple[Method, ...]:
    """The first `SIZE` methods of `PREFERENCE` that a model with these capabilities allows."""
    methods = [method_named(name) for name in PREFERENCE]
    return tuple(method for method in methods if method.needs <= capabilities)[:SIZE]
