"""Eigen-CAM: the first principal component of the feature planes, the same map for every finding."""

from __future__ import annotations

import numpy as np

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.principal_component import first_projection


def eigen_cam(evidence: Evidence) -> RawMaps:
    """``L = O v1`` with ``O = U S V^T`` the activations, one row a cell and one column a channel, and v1 V's first.

    Source: Muhammad and Yeasin 2020, section III. It says what dominates the layer, not what speaks for a finding.
    O is taken as it is, as the paper has it; pytorch-grad-cam first subtracts each channel's mean. The sign of a
    singular vector is open; here the map is positive where the layer is active: its inner product with the mean
    ``|A_k|`` over the channels is not negative. Where no activation is negative, no value of the map is.
    """
    planes = evidence.activations.reshape(len(evidence.activations), -1)
    activity = np.abs(planes).mean(axis=0, dtype=np.float64)
    values = first_projection(planes, activity).astype(np.float32).reshape(evidence.activations.shape[1:])
    return RawMaps(values=np.repeat(values[None], len(evidence.labels), axis=0))


METHODS = (
    Method(
        name="eigen-cam",
        title="Eigen-CAM",
        family="principal component",
        needs=frozenset({Capability.ACTIVATIONS}),
        class_specific=False,
        scale=Scale(signed=True, unit="activation"),
        reference="Muhammad MB, Yeasin M. Eigen-CAM: Class Activation Map using Principal Components. IJCNN 2020",
        maps=eigen_cam,
    ),
)
