"""Eigen-Grad-CAM: the first principal component of the planes weighted by their gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cam_core.classifier import Capability
from cam_core.method import Evidence, Method, RawMaps, Scale
from cam_core.methods.combination import flat_gradients
from cam_core.methods.principal_component import first_projection


def eigen_grad_cam(evidence: Evidence) -> RawMaps:
    """``L_c = O v1`` with ``O = U S V^T`` the products ``(dy_c / dA_k) * A_k``, one row a cell, one column a channel.

    Eigen-CAM made class-specific, known from the library pytorch-grad-cam, which has no paper for it, subtracts each
    channel's mean and leaves the sign open. Here nothing is subtracted and the map points the way of the evidence: its
    inner product with HiResCAM's map, ``sum_k (dy_c / dA_k) * A_k``, is not negative.
    """
    gradients = flat_gradients(evidence, "eigen-grad-cam")
    planes = evidence.activations.reshape(len(evidence.activations), -1).astype(np.float64)
    maps = [_projection(one * planes) for one in gradients]
    return RawMaps(values=np.stack(maps).astype(np.float32).reshape(len(maps), *evidence.activations.shape[1:]))


def _projection(products: NDArray[np.float64]) -> NDArray[np.float64]:
    return first_projection(products, products.sum(axis=0))


METHODS = (
    Method(
        name="eigen-grad-cam",
        title="Eigen-Grad-CAM",
        family="principal component",
        needs=frozenset({Capability.ACTIVATIONS, Capability.GRADIENTS}),
        scale=Scale(signed=True, unit="logit"),
        reference="Gildenblat J et al. pytorch-grad-cam (EigenGradCAM), 2021; after Muhammad and Yeasin, IJCNN 2020",
        maps=eigen_grad_cam,
    ),
)
