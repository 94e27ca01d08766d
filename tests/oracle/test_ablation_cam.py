"""Ablation-CAM against pytorch-grad-cam: the same for positive logits, its negative for negative ones."""

import copy

import numpy as np
import peers
import pytest
import torch
from small_networks import Case

TOLERANCE = 1e-5
CASES = ("linear head", "smooth head", "five pixel cells")


def drops(one: Case, ablated: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes (Ch, *cells), the logits (K,), and what they lose (Ch, K) when each channel is set to a value.

    One forward pass of the whole model a channel: slow and plain.
    """
    planes, _, _ = peers.captured(one, 0)
    found = []
    with torch.no_grad():
        whole = one.module(one.batch)[0].double().numpy()
        for channel in range(len(planes)):

            def without(_module: object, _inputs: object, output: torch.Tensor, channel: int = channel) -> torch.Tensor:
                changed = output.clone()
                changed[:, channel] = ablated
                return changed

            hook = peers.target_layer(one).register_forward_hook(without)
            found.append(one.module(one.batch)[0].double().numpy())
            hook.remove()
    return planes, whole, whole - np.array(found)


@pytest.mark.parametrize("name", ("linear head", "smooth head", "volume"))
def test_ours_is_the_formula_with_the_size_of_the_logit(case, ours, name):
    one = case(name)
    planes, logits, lost = drops(one)
    for label, raw in enumerate(ours(one, "ablation-cam")):
        expected = np.maximum(np.tensordot(lost[:, label], planes, axes=1), 0) / abs(logits[label])
        np.testing.assert_allclose(raw, expected, rtol=0, atol=TOLERANCE * max(expected.max(), 1e-3))


@pytest.mark.parametrize("name", CASES)
def test_pytorch_grad_cam_for_positive_logits(case, ours, name):
    peers.needed("pytorch-grad-cam")
    one = case(name)
    positive = [label for label, logit in enumerate(one.module(one.batch)[0]) if logit > 0]
    assert positive
    for label in positive:
        theirs = peers.pytorch_grad_cam_map("AblationCAM", one, label)
        raw = ours(one, "ablation-cam")[label]
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(raw, one.grid), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ("linear head", "smooth head"))
def test_deviation_negative_logits_turn_the_map_of_pytorch_grad_cam_around(case, ours, name):
    """Its weight is ``(y - y_k) / y``: it shows what speaks against a finding that the model calls unlikely."""
    peers.needed("pytorch-grad-cam")
    one = case(name)
    planes, logits, lost = drops(one)
    negative = [label for label, logit in enumerate(logits) if logit < 0]
    assert negative
    for label in negative:
        theirs = peers.pytorch_grad_cam_map("AblationCAM", one, label)
        turned = -np.tensordot(lost[:, label], planes, axes=1) / abs(logits[label])
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(turned, one.grid), theirs, rtol=0, atol=TOLERANCE)
        raw = ours(one, "ablation-cam")[label]
        assert not raw.any() or np.abs(peers.as_pytorch_grad_cam(raw, one.grid) - theirs).max() > 0.5


def test_deviation_pytorch_grad_cam_ablates_with_ever_larger_numbers_where_activations_are_negative(case, ours):
    """It writes the smallest activation minus 1e7, which is then the smallest one for the channel that follows."""
    peers.needed("pytorch-grad-cam")
    smooth = case("smooth head")
    one = Case(name="negative", module=smooth.module, target="after", image=smooth.image)
    planes, logits, _ = drops(one)
    assert planes.min() < 0
    values = [planes.min() - 1e7 * (channel + 1) for channel in range(len(planes))]
    lost = np.stack([drops(one, value)[2][channel] for channel, value in enumerate(values)])
    differs = 0.0
    for label, raw in enumerate(ours(one, "ablation-cam")):
        theirs = peers.pytorch_grad_cam_map("AblationCAM", one, label)
        emulated = np.tensordot(lost[:, label] / logits[label], planes, axes=1)
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(emulated, one.grid), theirs, rtol=0, atol=1e-3)
        differs = max(differs, np.abs(peers.as_pytorch_grad_cam(raw, one.grid) - theirs).max())
    assert differs > 0.1


@pytest.mark.parametrize("method", ["AblationCAM", "ScoreCAM"])
def test_deviation_pytorch_grad_cam_fails_on_volumes(case, method):
    peers.needed("pytorch-grad-cam")
    one = case("volume")
    own = Case(name="volume", module=copy.deepcopy(one.module), target=one.target, image=one.image)
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        peers.pytorch_grad_cam_map(method, own, 1)
