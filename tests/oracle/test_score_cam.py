"""Score-CAM with softmax against the libraries that have it: the same map where their masks are ours, and why not else.

Ours spreads a plane and then brings it to 0..1; torchcam does it the other way round, which is the same when the
centres of cells fall on pixels (cells of an odd number of pixels); pytorch-grad-cam spreads by the corners of the grid,
which is the same only when cells are pixels.
"""

from collections.abc import Callable

import numpy as np
import peers
import pytest
import torch
from small_networks import Case
from torch import Tensor, nn

TOLERANCE = 1e-5


@pytest.mark.parametrize("name", ["one pixel cells"])
def test_pytorch_grad_cam(case, ours, name):
    peers.needed("pytorch-grad-cam")
    one = case(name)
    for label, raw in enumerate(ours(one, "score-cam:paper")):
        theirs = peers.pytorch_grad_cam_map("ScoreCAM", one, label)
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(raw, one.grid), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["one pixel cells", "five pixel cells", "volume one pixel cells"])
def test_torchcam(case, ours, name):
    peers.needed("torchcam")
    one = case(name)
    for label, raw in enumerate(ours(one, "score-cam:paper")):
        theirs = peers.torchcam_map("ScoreCAM", one, label)
        np.testing.assert_allclose(peers.as_torchcam(raw), theirs, rtol=0, atol=TOLERANCE)


def _planes(one: Case) -> Tensor:
    return torch.from_numpy(one.classifier.activations(one.batch.numpy()).activations[0])


def masks_of_pytorch_grad_cam(one: Case) -> Tensor:
    """Spread by corners, then min-max with an absolute 1e-8."""
    spread = nn.functional.interpolate(_planes(one)[:, None], one.grid, mode="bilinear", align_corners=True)
    low, high = spread.amin((1, 2, 3), keepdim=True), spread.amax((1, 2, 3), keepdim=True)
    return (spread - low) / (high - low + 1e-8)


def masks_of_torchcam(one: Case) -> Tensor:
    """Min-max with an absolute 1e-8 on the cells, then spread by pixel areas."""
    planes = _planes(one)
    every = tuple(range(1, planes.ndim))
    lifted = planes - planes.amin(every, keepdim=True)
    mode = "bilinear" if len(one.grid) == 2 else "trilinear"
    scaled = lifted / (lifted.amax(every, keepdim=True) + 1e-8)
    return nn.functional.interpolate(scaled[:, None], one.grid, mode=mode, align_corners=False)


def _with_masks(one: Case, masks: Tensor) -> np.ndarray:
    """Score-CAM's raw maps (labels, *cells) from masks (Ch, 1, *grid), scored by our classifier."""
    scores = one.classifier.perturbed_scores((one.batch * masks).numpy()).astype(np.float64)
    powers = np.exp(scores - scores.max(axis=0))
    weights = powers / powers.sum(axis=0)
    return np.maximum(np.tensordot(weights.T, _planes(one).double().numpy(), axes=1), 0)


def test_pytorch_grad_cam_with_its_own_masks(case):
    peers.needed("pytorch-grad-cam")
    one = case("smooth head")
    for label, raw in enumerate(_with_masks(one, masks_of_pytorch_grad_cam(one))):
        theirs = peers.pytorch_grad_cam_map("ScoreCAM", one, label)
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(raw, one.grid), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["smooth head", "volume"])
def test_torchcam_with_its_own_masks(case, name):
    peers.needed("torchcam")
    one = case(name)
    for label, raw in enumerate(_with_masks(one, masks_of_torchcam(one))):
        theirs = peers.torchcam_map("ScoreCAM", one, label)
        np.testing.assert_allclose(peers.as_torchcam(raw), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("masks", [masks_of_pytorch_grad_cam, masks_of_torchcam])
def test_deviation_their_masks_of_wide_cells_are_not_ours(case, ours, masks: Callable[[Case], Tensor]):
    """Small in the map, for softmax levels the weights; but not rounding: the masks themselves differ."""
    one = case("smooth head")
    theirs = [peers.as_shown(raw) for raw in _with_masks(one, masks(one))]
    own = [peers.as_shown(raw) for raw in ours(one, "score-cam:paper")]
    assert 10 * TOLERANCE < max(np.abs(a - b).max() for a, b in zip(own, theirs, strict=True)) < 0.2
