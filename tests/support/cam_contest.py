"""The same work by cam_core and by the libraries beside it, for timing; measures nothing itself."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path

import numpy as np
import peers
import torch
from numpy.typing import NDArray
from small_networks import Case, card, picture
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cam_core.classifier import EXACT, Classifier, ForwardOptions
from cam_core.explanation import explain
from cam_core.image import Image
from cam_core.method import Method, Subject, method_named
from cam_core.methods.masking import PlaneMasks, masking_channels
from cam_core.passes import scored
from cam_core.plan import gather
from cam_core.prediction import predict
from cam_core.runtimes.torch_runtime import TorchClassifier

FINDINGS = 14
GRADIENTS = ("grad-cam", "grad-cam++:paper", "hirescam", "layercam", "xgrad-cam")
PYTORCH_GRAD_CAM = ("GradCAM", "GradCAMPlusPlus", "HiResCAM", "LayerCAM", "XGradCAM")
TORCHCAM = ("GradCAM", "GradCAMpp", "LayerCAM", "XGradCAM")
SCORE_CAM = "score-cam:delta"
PANEL = ("cam", "grad-cam", "grad-cam++:paper", SCORE_CAM)
MODELS: dict[str, tuple[Callable[..., nn.Module], str, int]] = {
    "densenet121": (peers.densenet121, "class_layers.relu", 1),
    "resnet50": (peers.resnet50, "layer4", 3),
}
DEMONSTRATION = Path(__file__).parents[2] / "deploy" / "models" / "chest-demo"


def contested(model: str, side: int) -> Case:
    """A network of full size, on the GPU when there is one."""
    build, target, channels = MODELS[model]
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return Case(
        name=model,
        module=build(side=side, labels=FINDINGS).to(device),
        target=target,
        image=picture((side, side), channels),
        labels=FINDINGS,
        channels=channels,
        device=device,
    )


def plain_forward(case: Case) -> Callable[[], torch.Tensor]:
    """The model's pass alone, as anyone would run it."""

    @torch.inference_mode()
    def forward() -> torch.Tensor:
        answer: torch.Tensor = case.module(case.batch)
        return answer

    return forward


def operations(case: Case) -> int:
    """Floating point operations of one pass of one input."""
    with FlopCounterMode(display=False) as counter:
        plain_forward(case)()
    return int(counter.get_total_flops())


# Ours.


def with_engine(case: Case, forward: ForwardOptions = EXACT) -> TorchClassifier:
    """The case's classifier with another engine for its many passes.

    Raises
    ------
    ModelLoadError
        When there is no such engine here.
    """
    if forward == EXACT:
        return case.classifier
    paper = card(target=case.target, channels=case.channels, grid=case.grid, labels=case.labels)
    return TorchClassifier(paper, case.module, case.device, forward)


def input_of(case: Case) -> NDArray[np.float32]:
    """(1, C, *grid), as every classifier of ours takes it."""
    return case.batch.cpu().numpy()


@cache
def _methods(names: tuple[str, ...]) -> tuple[Method, ...]:
    """Looked up once, as a caller does."""
    return tuple(method_named(name) for name in names)


def raw_maps(
    classifier: Classifier, batch: NDArray[np.float32], names: Sequence[str], labels: int = FINDINGS
) -> list[NDArray[np.float32]]:
    """Raw maps (labels, *cells) by several methods: all passes and all formulas, but no regions."""
    methods = _methods(tuple(names))
    gathered = gather(
        classifier,
        batch,
        tuple(range(labels)),
        methods,
        lambda _: classifier.registration,
        lambda _: None,
    )
    return [method.maps(gathered.evidence[0]).values for method in methods]


def explained(case: Case, names: Sequence[str]) -> None:
    """Everything that a caller gets: maps and their places, regions, equivalences."""
    findings = predict(case.image, case.classifier).findings
    found = explain(case.image, case.classifier, _methods(tuple(names)), findings)
    if found[0].failures:
        raise RuntimeError(f"not explained: {found[0].failures}")
    for one in found:
        _ = one.regions  # they are found when they are asked for


def live_subject(case: Case, channels: int | None = None) -> Subject:
    """The picture with the planes that make masks, or the first so many of them."""
    planes = case.classifier.activations(input_of(case)).activations[0]
    return Subject(
        input=input_of(case)[0],
        activations=planes[masking_channels(planes)[:channels]],
        registration=case.classifier.registration,
    )


def masked_passes(classifier: Classifier, subject: Subject, blocks: int | None = None) -> NDArray[np.float32]:
    """Logits of the baseline and of every masked input, or of the first so many blocks of them."""
    size = classifier.micro_batch
    return scored(classifier.perturbed_scores, islice(PlaneMasks().inputs(subject, size), blocks), size)


class Counting:
    """A classifier that counts the inputs of its many passes."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier, self.inputs = classifier, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._classifier, name)

    def perturbed_scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.inputs += len(batch)
        return self._classifier.perturbed_scores(batch)


# Theirs.


def pytorch_grad_cam_loop(case: Case, labels: int = FINDINGS) -> None:
    """Five methods, one call for each and each finding: it takes one target for one image."""
    for name in PYTORCH_GRAD_CAM:
        for label in range(labels):
            peers.pytorch_grad_cam_map(name, case, label)


def torchcam_loop(case: Case) -> None:
    """Four methods in torchcam's best use: one forward pass for each, one backward pass for each finding."""
    library = peers.peer("torchcam")
    for name in TORCHCAM:
        with getattr(library, name)(case.module, case.target, input_shape=tuple(case.batch.shape[1:])) as extractor:
            scores = case.module(case.batch)
            for label in range(FINDINGS):
                extractor(label, scores, retain_graph=True)


def pytorch_grad_cam_masked(case: Case, planes: NDArray[np.float32], labels: int) -> None:
    """Score-CAM's weights of some planes (Ch, *cells), by the library's own code."""
    library, layer = peers.peer("pytorch-grad-cam"), peers.target_layer(case)
    goals = import_module("pytorch_grad_cam.utils.model_targets")
    with library.ScoreCAM(case.module, [layer]) as extractor:
        for label in range(labels):
            extractor.get_cam_weights(case.batch, layer, [goals.ClassifierOutputTarget(label)], planes[None], None)


def torchcam_masked(case: Case, planes: NDArray[np.float32], labels: int) -> None:
    """Score-CAM's weights of some planes (Ch, *cells), by the library's own code."""
    shape = tuple(case.batch.shape[1:])
    with peers.peer("torchcam").ScoreCAM(case.module, case.target, input_shape=shape) as extractor, torch.no_grad():
        case.module(case.batch)
        extractor.hook_a = [torch.from_numpy(planes[None]).to(case.device)]
        for label in range(labels):
            extractor._get_weights(label)


class Enough(Exception):
    """So many passes show what a library holds while it works."""


def stopped(case: Case, work: Callable[[], object], passes: int = 6) -> None:
    """Run a work until the model has been run so often: what it holds at most, it holds by then."""
    left = passes

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Enough

    hook = case.module.register_forward_pre_hook(count)
    try:
        work()
    except Enough:
        pass
    finally:
        hook.remove()


# Pictures on which maps mean something.


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def phantoms(count: int, seed: int = 50_001) -> list[Image]:
    """Films of procedural chests, drawn by the demonstration model's own scripts and never used in its training."""
    with _importable(DEMONSTRATION):
        dataset, thorax = import_module("dataset"), import_module("thorax")
    films = []
    for number in range(count):
        source = np.random.default_rng([seed, number])
        film = dataset.compose(source, thorax.thorax(source), 0)
        films.append(Image(pixels=film.image.astype(np.float32) / 255, spacing_mm=None))
    return films
