"""Grad-CAM, HiResCAM, LayerCAM, XGrad-CAM and CAM against the libraries that have them, every label, 2D and 3D."""

import numpy as np
import peers
import pytest
from small_networks import LABELS

TOLERANCE = 1e-5
PLANES = ("linear head", "smooth head")
VOLUMES = ("volume", "volume linear")
DEEP = ("densenet121", "resnet50")

PYTORCH_GRAD_CAM = {"grad-cam": "GradCAM", "hirescam": "HiResCAM", "layercam": "LayerCAM", "xgrad-cam": "XGradCAM"}
TORCHCAM = {"grad-cam": "GradCAM", "layercam": "LayerCAM", "xgrad-cam": "XGradCAM"}


@pytest.mark.parametrize("method", PYTORCH_GRAD_CAM)
@pytest.mark.parametrize("name", (*PLANES, *VOLUMES, *DEEP))
def test_pytorch_grad_cam(case, ours, name, method):
    peers.needed("pytorch-grad-cam")
    one = case(name)
    for label, raw in enumerate(ours(one, method)):
        theirs = peers.pytorch_grad_cam_map(PYTORCH_GRAD_CAM[method], one, label)
        np.testing.assert_allclose(peers.as_pytorch_grad_cam(raw, one.grid), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("method", TORCHCAM)
@pytest.mark.parametrize("name", (*PLANES, *VOLUMES, *DEEP))
def test_torchcam(case, ours, name, method):
    peers.needed("torchcam")
    one = case(name)
    for label, raw in enumerate(ours(one, method)):
        theirs = peers.torchcam_map(TORCHCAM[method], one, label)
        np.testing.assert_allclose(peers.as_torchcam(raw), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", (*PLANES, *VOLUMES, *DEEP))
def test_captum_grad_cam_has_the_same_raw_values(case, ours, name):
    peers.needed("captum")
    one = case(name)
    for label, raw in enumerate(ours(one, "grad-cam")):
        theirs = peers.captum_grad_cam(one, label)
        np.testing.assert_allclose(raw, theirs, rtol=0, atol=TOLERANCE * theirs.max())


@pytest.mark.parametrize("name", (*PLANES, *VOLUMES, *DEEP))
def test_monai_grad_cam(case, ours, name):
    peers.needed("monai")
    one = case(name)
    for label, raw in enumerate(ours(one, "grad-cam")):
        theirs = peers.monai_map("GradCAM", one, label)
        np.testing.assert_allclose(peers.as_monai(raw, one.grid), theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "layer"), [("linear head", "head"), ("volume linear", "head"), ("resnet50", "fc")])
def test_cam_by_torchcam_and_monai(case, ours, name, layer):
    """MONAI sends every cell through the linear layer with its bias, which its min-max then takes away again."""
    peers.needed("torchcam")
    peers.needed("monai")
    one = case(name)
    for label, raw in enumerate(ours(one, "cam")):
        theirs = peers.torchcam_map("CAM", one, label, fc_layer=layer)
        np.testing.assert_allclose(peers.as_torchcam(raw, relu=False), theirs, rtol=0, atol=TOLERANCE)
        upside_down = peers.monai_map("CAM", one, label, fc_layers=layer)
        np.testing.assert_allclose(peers.as_monai(raw, one.grid), upside_down, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", (*PLANES, "volume"))
def test_the_cases_tell_labels_apart(case, ours, name):
    """A comparison over labels is worth something only when their maps differ and show something."""
    shown = [peers.as_shown(raw) for raw in ours(case(name), "grad-cam")]
    assert sum(one.max() > 0 for one in shown) >= LABELS - 2
    assert all(np.abs(a - b).max() > 0.05 for i, a in enumerate(shown) for b in shown[:i] if a.max() > 0 < b.max())
