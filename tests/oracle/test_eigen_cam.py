"""Eigen-CAM and Eigen-Grad-CAM against pytorch-grad-cam, which centres the channels and leaves the sign open."""

import numpy as np
import peers
import pytest
from small_networks import Case, network, picture
from torch import nn

TOLERANCE = 1e-5
THEIRS = {"eigen-cam": "EigenCAM", "eigen-grad-cam": "EigenGradCAM"}


def projection(planes: np.ndarray, *, centred: bool) -> np.ndarray:
    """The planes (Ch, *cells) on their first right singular vector, by a full decomposition; its sign is open."""
    rows = planes.reshape(len(planes), -1).T
    rows = rows - rows.mean(axis=0) if centred else rows
    return (rows @ np.linalg.svd(rows)[2][0]).reshape(planes.shape[1:])


def _decomposed(method: str, one: Case, label: int) -> np.ndarray:
    planes, gradient, _ = peers.captured(one, label)
    return planes if method == "eigen-cam" else gradient * planes


def _nearest(found: np.ndarray, raw: np.ndarray, one: Case) -> float:
    """Greatest difference from a raw map of open sign, processed as the library does."""
    return min(np.abs(peers.as_pytorch_grad_cam(sign * raw, one.grid) - found).max() for sign in (1, -1))


@pytest.mark.parametrize("method", THEIRS)
@pytest.mark.parametrize("name", ("linear head", "smooth head", "volume", "densenet121"))
def test_ours_is_the_paper_with_a_sign(case, ours, name, method):
    """Not centred; positive where the layer is active, or where the evidence is."""
    one = case(name)
    for label, raw in enumerate(ours(one, method)):
        planes = _decomposed(method, one, label)
        expected = projection(planes, centred=False)
        towards = np.abs(planes).mean(axis=0) if method == "eigen-cam" else planes.sum(axis=0)
        expected *= np.sign((expected * towards).sum())
        np.testing.assert_allclose(raw, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


@pytest.mark.parametrize("method", THEIRS)
def test_pytorch_grad_cam_where_channels_are_centred_already(ours, method):
    """Behind an instance norm every plane has mean 0, and with a linear head its product with the gradient has, too."""
    peers.needed("pytorch-grad-cam")
    module = network()
    module.target = nn.InstanceNorm2d(8)
    one = Case(name="centred", module=module, target="target", image=picture((32, 32)))
    for label, raw in enumerate(ours(one, method)):
        theirs = peers.pytorch_grad_cam_map(THEIRS[method], one, label)
        assert _nearest(theirs, raw, one) < TOLERANCE


@pytest.mark.parametrize("method", THEIRS)
@pytest.mark.parametrize("name", ("linear head", "smooth head", "volume"))
def test_deviation_pytorch_grad_cam_centres_the_channels(case, ours, name, method):
    peers.needed("pytorch-grad-cam")
    one = case(name)
    differs = 0.0
    for label, raw in enumerate(ours(one, method)):
        theirs = peers.pytorch_grad_cam_map(THEIRS[method], one, label)
        assert _nearest(theirs, projection(_decomposed(method, one, label), centred=True), one) < TOLERANCE
        differs = max(differs, _nearest(theirs, raw, one))
    assert differs > 0.02
