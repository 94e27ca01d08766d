"""The libraries that cam_core is compared with: importing them safely, their maps, their post-processing; tests only.

Versions: pytorch-grad-cam 1.5, torchcam 0.5, captum 0.9, MONAI 1.6. Their maps come with display policy built in, so a
comparison either asks for the raw map or applies the same policy to ours; the policies are the functions `as_*`.
"""

import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Protocol

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

PEERS = {
    "pytorch-grad-cam": "pytorch_grad_cam",
    "torchcam": "torchcam.methods",
    "captum": "captum.attr",
    "monai": "monai.visualize",
}
"""Name to the module that holds its methods."""

#: operators that torchvision's Python code describes further when imported, and so must exist by name
TORCHVISION_OPERATORS = (
    "nms",
    "qnms",
    *(
        name
        for plain in ("deform_conv2d", "ps_roi_align", "ps_roi_pool", "roi_align", "roi_pool")
        for name in (plain, f"_{plain}_backward")
    ),
)

_declared: list[torch.library.Library] = []


@cache
def peer(name: str) -> ModuleType:
    """The module of a peer; ImportError when it isn't installed."""
    make_torchvision_importable()
    module = import_module(PEERS[name])
    if name == "pytorch-grad-cam":  # it draws a progress bar for every map
        for part in ("score_cam", "ablation_cam"):
            import_module(f"pytorch_grad_cam.{part}").tqdm = SimpleNamespace(tqdm=iter)
    return module


def needed(name: str) -> ModuleType:
    """As `peer`, for tests: without it they are skipped, or fail where CAMNODE_REQUIRE_COMPONENTS=1."""
    try:
        return peer(name)
    except ImportError as error:
        message = f"{name} is not installed ({error}); see deploy/oracle-requirements.txt"
        if os.environ.get("CAMNODE_REQUIRE_COMPONENTS") == "1":
            pytest.fail(message)
        pytest.skip(message)


@cache
def make_torchvision_importable() -> None:
    """Import torchvision although its compiled part doesn't load beside a torch of another build.

    The wheel of the package index is made for the CUDA build of torch. Next to the CPU build its operators are missing
    and the import itself fails when it describes them. Models and transforms need none of them: declared by name,
    without any implementation, they let the import pass, and calling one still fails.
    """
    if find_spec("torchvision") is None:
        return
    try:
        import_module("torchvision")
    except RuntimeError:
        for loaded in [one for one in sys.modules if one.partition(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        library = torch.library.Library("torchvision", "DEF")
        for operator in TORCHVISION_OPERATORS:
            library.define(f"{operator}(Tensor input) -> Tensor")
        _declared.append(library)  # a library that is collected takes its declarations with it
        import_module("torchvision")


# Models of full size, without any downloaded weights.


def densenet121(*, side: int = 224, labels: int = 14) -> nn.Module:
    """MONAI's DenseNet121 for grey pictures; target layer ``class_layers.relu``."""
    make_torchvision_importable()
    networks = import_module("monai.networks.nets")
    return settled(lambda: networks.DenseNet121(spatial_dims=2, in_channels=1, out_channels=labels), (1, side, side))


def resnet50(*, side: int = 224, labels: int = 14) -> nn.Module:
    """torchvision's ResNet50 for colour pictures; target layer ``layer4``."""
    make_torchvision_importable()
    models = import_module("torchvision.models")
    return settled(lambda: models.resnet50(weights=None, num_classes=labels), (3, side, side))


def settled(build: Callable[[], nn.Module], shape: Sequence[int], *, seed: int = 7) -> nn.Module:
    """A module with seeded random weights whose batch norms have the statistics of noise of that shape.

    Fresh statistics (mean 0, variance 1) let the activations of a deep random network explode or die; those of one
    batch keep every layer at work, as training would.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = build()
        norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.3, 0.3)
        module.train()(torch.randn(4, *shape))
    return module.eval()


class Asked(Protocol):
    """A module, the name of its target layer and what it is shown; `small_networks.Case` is one."""

    @property
    def module(self) -> nn.Module: ...

    @property
    def target(self) -> str: ...

    @property
    def batch(self) -> Tensor:
        """(1, C, *grid)."""


def target_layer(asked: Asked) -> nn.Module:
    return asked.module.get_submodule(asked.target)


Goal = int | Callable[[Tensor], Tensor]
"""A label, or a number made of all logits (K,)."""


def captured(asked: Asked, goal: Goal) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Activations A and gradients dy/dA, both (Ch, *cells), and y, the logit of a label or another goal.

    What every formula starts from, by plain autograd and without any library. A is a copy of the target layer's output
    as the layer gave it, before any in-place change.
    """
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()

    hook = target_layer(asked).register_forward_hook(keep)
    try:
        logits = asked.module(asked.batch)[0]
        reached = logits[goal] if isinstance(goal, int) else goal(logits)
        (gradient,) = torch.autograd.grad(reached, kept[0])
    finally:
        hook.remove()
    return kept[0][0].detach().double().numpy(), gradient[0].double().numpy(), float(reached.detach())


# The peers' own maps.


def pytorch_grad_cam_map(method: str, asked: Asked, label: int, **options: object) -> NDArray[np.float32]:
    """Map (*grid) 0..1 of one label, as pytorch-grad-cam hands it out."""
    library = peer("pytorch-grad-cam")
    goal = import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(label)
    with getattr(library, method)(asked.module, [target_layer(asked)]) as extractor:
        for name, value in options.items():
            setattr(extractor, name, value)
        made: NDArray[np.float32] = extractor(input_tensor=asked.batch, targets=[goal])[0]
    return made


def torchcam_map(
    method: str, asked: Asked, label: int, *, normalised: bool = True, **options: object
) -> NDArray[np.float32]:
    """Map (*cells) of one label, as torchcam hands it out: 0..1, or raw after its ReLU."""
    extractor_class = getattr(peer("torchcam"), method)
    with extractor_class(asked.module, asked.target, input_shape=tuple(asked.batch.shape[1:]), **options) as extractor:
        scores = asked.module(asked.batch)
        found = extractor(label, scores, normalized=normalised)[0][0]
    made: NDArray[np.float32] = found.detach().cpu().numpy()
    return made


def captum_grad_cam(asked: Asked, label: int) -> NDArray[np.float32]:
    """Raw map (*cells) of one label after ReLU, by captum's LayerGradCam."""
    method = peer("captum").LayerGradCam(asked.module, target_layer(asked))
    found = method.attribute(asked.batch, label, relu_attributions=True)[0, 0]
    made: NDArray[np.float32] = found.detach().cpu().numpy()
    return made


def monai_map(method: str, asked: Asked, label: int, **options: object) -> NDArray[np.float32]:
    """Map (*grid) of one label, as MONAI hands it out: 0 is the most evidence, 1 the least."""
    extractor = getattr(peer("monai"), method)(asked.module, asked.target, **options)
    try:
        found = extractor(asked.batch, class_idx=torch.tensor([label]))[0, 0]
    finally:
        target_layer(asked)._forward_hooks.clear()  # MONAI never takes its hooks off
        target_layer(asked)._backward_hooks.clear()
    made: NDArray[np.float32] = found.detach().cpu().numpy()
    return made


# Their post-processing, for a raw map of ours.


def as_pytorch_grad_cam(raw: NDArray[np.floating], grid: Sequence[int]) -> NDArray[np.float32]:
    """ReLU, min-max, resized to the grid (bilinear by OpenCV; cubic spline in 3D), and min-max once more."""
    low = _min_max_with_epsilon(np.maximum(raw, 0))
    if len(grid) == 2:
        spread = import_module("cv2").resize(np.float32(low), (grid[1], grid[0]))
    else:
        zoom = import_module("scipy.ndimage").zoom
        spread = zoom(np.float32(low), [wanted / has for has, wanted in zip(low.shape, grid, strict=True)])
    return _min_max_with_epsilon(np.maximum(np.float32(spread), 0))


def _min_max_with_epsilon(values: NDArray[np.floating]) -> NDArray[np.float32]:
    lifted = values - np.min(values)
    return np.float32(lifted / (1e-7 + np.max(lifted)))


def as_torchcam(raw: NDArray[np.floating], *, relu: bool = True) -> NDArray[np.float32]:
    """ReLU (all but its CAM), then min-max on the cells themselves."""
    kept = np.maximum(raw, 0) if relu else np.asarray(raw)
    lifted = kept - kept.min()
    return np.float32(lifted / (lifted.max() + 1e-8))


def as_monai(raw: NDArray[np.floating], grid: Sequence[int]) -> NDArray[np.float32]:
    """Resized to the grid (bilinear or trilinear), then min-max turned upside down."""
    spread = nn.functional.interpolate(
        torch.from_numpy(np.array(raw, dtype=np.float32))[None, None],
        size=tuple(grid),
        mode="bilinear" if len(grid) == 2 else "trilinear",
        align_corners=False,
    )[0, 0].numpy()
    width = spread.max() - spread.min()
    return np.float32(1 - (spread - spread.min()) / width) if width > 0 else np.float32(spread)


def as_shown(raw: NDArray[np.floating]) -> NDArray[np.float64]:
    """Positive part over its maximum, 0..1: two raw maps in any units compared as they would be shown."""
    positive = np.maximum(np.asarray(raw, dtype=np.float64), 0)
    return positive / positive.max() if positive.max() > 0 else positive
