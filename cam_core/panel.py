"""Which methods are shown side by side when nobody chooses; knows no formulas."""

from __future__ import annotations

DEFAULT_PANEL = ("grad-cam", "grad-cam++", "score-cam", "ablation-cam")
"""One method of each family (`Method.family`), as many maps as are taken in at a glance.

Two maps that agree say more only when they could have disagreed, and the members of one family hardly can: for a head
of global average pooling and one linear layer CAM, Grad-CAM, HiResCAM and XGrad-CAM are one and the same map. For the
linear family stands Grad-CAM: it is the one whose localisation on chest films has been measured against radiologists,
the best of seven methods (Saporta et al., Nature Machine Intelligence 2022). For positive gradients Grad-CAM++, for
masking Score-CAM with the difference as weight, for ablation Ablation-CAM.

Families differ in what they do, not always in what they find. All four weigh the same feature planes, and for a head as
above Ablation-CAM's weight is ``W[c, k] * mean(A_k)`` where Grad-CAM's is ``W[c, k]``: the correlation of the two maps
is anything from 0.3 to 0.99, so their agreement is weak support. Occlusion, which never looks inside the model, is the
independent witness to ask in doubt. Principal components say nothing of the finding and are no evidence for it.
"""
