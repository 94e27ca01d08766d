"""Shapley-CAM and Finer-CAM: Grad-CAM of something else than the plain logit, against the libraries that have them."""

import numpy as np
import peers
import pytest
import torch

TOLERANCE = 1e-5
CASES = ("smooth head", "volume")


@pytest.mark.parametrize("name", CASES)
def test_pytorch_grad_cam_shapley_cam(case, ours, name):
    peers.needed("pytorch-grad-cam")
    one = case(name)
    for label, raw in enumerate(ours(one, "shapley-cam")):
        theirs = peers.pytorch_grad_cam_map("ShapleyCAM", one, label)
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(raw, one.grid), theirs, rtol=0, atol=TOLERANCE)


def test_shapley_cam_is_not_grad_cam_in_these_cases(case, ours):
    """The comparison above is worth something only where second derivatives count."""
    one = case("smooth head")
    bent, straight = ours(one, "shapley-cam"), ours(one, "grad-cam")
    assert max(np.abs(peers.as_shown(a) - peers.as_shown(b)).max() for a, b in zip(bent, straight, strict=True)) > 0.01


@pytest.mark.parametrize("name", (*CASES, "linear head", "densenet121"))
def test_torchcam_finer_cam(case, ours, name):
    """Both compare with the mean of the three nearest logits, 0.6 of it."""
    peers.needed("torchcam")
    one = case(name)
    for label, raw in enumerate(ours(one, "finer-cam")):
        theirs = peers.torchcam_map("FinerCAM", one, label)
        np.testing.assert_allclose(peers.as_torchcam(raw), theirs, rtol=0, atol=TOLERANCE)


def _weighted_target(label: int):
    """pytorch-grad-cam's: each of the three nearest taken away in full, weighted by its softmax, also when derived."""

    def goal(logits: torch.Tensor) -> torch.Tensor:
        nearest = torch.argsort((logits - logits[label]).abs().detach(), stable=True)[1:4]
        weights = torch.softmax(logits, dim=0)[nearest]
        return (weights * (logits[label] - logits[nearest])).sum() / (weights.sum() + 1e-9)

    return goal


@pytest.mark.parametrize("name", CASES)
def test_deviation_pytorch_grad_cam_finer_cam_weighs_the_similar_labels(case, ours, name):
    peers.needed("pytorch-grad-cam")
    one = case(name)
    differs = 0.0
    for label, raw in enumerate(ours(one, "finer-cam")):
        with peers.peer("pytorch-grad-cam").FinerCAM(one.module, [peers.target_layer(one)]) as extractor:
            theirs = extractor(one.batch, target_idx=label)[0]
        planes, gradient, _ = peers.captured(one, _weighted_target(label))
        weights = gradient.mean(axis=tuple(range(1, gradient.ndim)))
        emulated = np.tensordot(weights, planes, axes=1)
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(emulated, one.grid), theirs, rtol=0, atol=TOLERANCE)
        differs = max(differs, np.abs(peers.as_pytorch_grad_cam(raw, one.grid) - theirs).max())
    assert differs > 0.01
