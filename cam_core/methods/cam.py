"""Class activation mapping: the head's own weights on the last feature planes."""

from __future__ import annotations

from cam_core.classifier import Capability
from cam_core.errors import MethodNotApplicable
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import weighted_sum


def cam(evidence: Evidence) -> RawMaps:
    """``M_c = sum_k W[c, k] * A_k``: no ReLU, no bias, so evidence against the finding stays negative.

    Source: Zhou et al. 2016, equation 2. Needs a head of global average pooling and one linear layer.

    Raises
    ------
    MethodNotApplicable
        For any other head.
    """
    if evidence.head_weights is None:
        raise MethodNotApplicable("cam", "the model's head is not global average pooling and one linear layer")
    return RawMaps(values=weighted_sum(evidence.head_weights[list(evidence.labels)], evidence.activations))


METHODS = (
    Method(
        name="cam",
        title="CAM",
        family="linear",
        needs=frozenset({Capability.ACTIVATIONS}),
        scale=Scale(signed=True, unit="logit times cells"),
        reference="Zhou B et al. Learning Deep Features for Discriminative Localization. CVPR 2016",
        maps=cam,
    ),
)
