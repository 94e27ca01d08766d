"""Tests of where cells look: measured centres against the arithmetic of convolutions, in both runtimes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import law_models
import numpy as np
import pytest
import torch
from small_architectures import ARCHITECTURES, built, by_onnx, by_torch, paper
from torch import nn

from cam_core.card import ActivationLayout, ModelCard
from cam_core.classifier import Classifier
from cam_core.errors import UnusableTargetLayer
from cam_core.image import fit_to
from cam_core.registration import (
    Probe,
    Registration,
    cell_positions,
    cells_on_grid,
    gradient_field,
    library_registration,
    measure,
)
from cam_core.resample import sample_linear
from cam_core.runtimes.finite_differences import difference_fields
from cam_core.runtimes.onnx_runtime import OnnxClassifier, open_onnx
from cam_core.runtimes.torch_runtime import TorchClassifier

SIDE = 48


class Planes(nn.Module):
    """Positive symmetric kernels, so that the centroid is exactly the centre of the receptive field."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.planes = nn.Sequential(*layers)
        self.head = nn.Linear(4, 3)
        for module in self.planes.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.constant_(module.weight, 0.1)
                nn.init.constant_(module.bias, 5.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.planes(x).mean((2, 3)))
        return logits


def odd() -> nn.Module:
    return Planes(nn.Conv2d(1, 4, 7, 2, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())


def valid() -> nn.Module:
    return Planes(nn.Conv2d(1, 4, 5, 2, 0), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 0))


def even() -> nn.Module:
    return Planes(nn.Conv2d(1, 4, 4, 4, 0), nn.ReLU(), nn.AvgPool2d(2, 2))


def dilated() -> nn.Module:
    return Planes(nn.Conv2d(1, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 1, 2, dilation=2), nn.ReLU())


CASES = {
    # centre of cell 0 = sum over layers of ((kernel - 1) * dilation / 2 - padding) * stride before; pitch = all strides
    "odd kernels, padded by half": (odd, 0.0, 4),
    "valid": (valid, 2 + 1 * 2, 4),
    "even kernel and pooling": (even, 1.5 + 0.5 * 4, 8),
    "dilated": (dilated, 0.0, 2),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, float, int]:
    build, start, step = request.param
    torch.manual_seed(0)
    return build().eval(), start, step


def as_onnx(module: nn.Module, write_card: Callable[..., ModelCard], export: Callable[..., bytes]) -> OnnxClassifier:
    weights = export(module, 1, SIDE)
    return open_onnx(write_card(weights, runtime="onnx", target=None, side=SIDE), weights, "cpu")


def test_measured_centres_are_those_of_the_arithmetic(
    case: tuple[nn.Module, float, int], write_card: Callable[..., ModelCard], export: Callable[..., bytes]
) -> None:
    module, start, step = case
    by_torch = TorchClassifier(write_card(target="planes", side=SIDE), module).registration
    by_onnx = as_onnx(module, write_card, export).registration
    for found in (by_torch, by_onnx):
        assert found.measured
        assert found.step == (step, step)
        assert found.start == pytest.approx((start, start), abs=1e-3)
    assert by_onnx.start == pytest.approx(by_torch.start, abs=1e-3)


def test_finite_differences_find_the_same_centres(
    case: tuple[nn.Module, float, int], write_card: Callable[..., ModelCard], export: Callable[..., bytes]
) -> None:
    module, start, step = case
    classifier = as_onnx(module, write_card, export)
    cells = classifier.activations(np.zeros((1, 1, SIDE, SIDE), np.float32)).activations.shape[2:]
    found = measure(
        lambda probes: difference_fields(
            lambda batch: classifier.activations(batch).activations, (1, 1, SIDE, SIDE), probes
        ),
        (cells[0], cells[1]),
        (SIDE, SIDE),
    )
    assert found.step == pytest.approx((step, step), rel=0.1)
    middle = (cells[0] - 1) / 2
    assert found.start[0] + middle * found.step[0] == pytest.approx(start + middle * step, abs=1.0)


def test_a_stimulus_is_painted_where_it_was(write_card: Callable[..., ModelCard]) -> None:
    """The planted pixel lies on the centre of cell (5, 7); the map of its answer must peak on that very pixel."""
    classifier = TorchClassifier(write_card(target="planes", side=SIDE), odd().eval())
    still = np.zeros((1, 1, SIDE, SIDE), np.float32)
    shown = still.copy()
    shown[0, 0, 20, 28] = 3.0
    answer = (classifier.activations(shown).activations - classifier.activations(still).activations)[0].sum(axis=0)
    painted = cells_on_grid(answer, classifier.registration, (SIDE, SIDE))
    assert np.unravel_index(painted.argmax(), painted.shape) == (20, 28)
    centroid = gradient_field(np.sqrt(painted)[None])[:, 0]
    assert centroid == pytest.approx([20, 28], abs=0.05)
    library = cells_on_grid(answer, library_registration((12, 12), (SIDE, SIDE)), (SIDE, SIDE))
    assert gradient_field(np.sqrt(library)[None])[0, 0] > 21


EXACT = ("residual", "mobile", "dense", "vgg", "valid")
"""Those with fields that lie inside the input for some cell; the others' reach everywhere or are cut on all sides."""


@pytest.fixture(scope="module", params=[(name, kind) for name in ARCHITECTURES for kind in ("torch", "onnx")], ids=str)
def architecture(request: pytest.FixtureRequest) -> tuple[str, Classifier]:
    name, kind = request.param
    return name, by_torch(name) if kind == "torch" else by_onnx(name)


def test_every_architecture_s_cells_look_where_the_arithmetic_says(architecture: tuple[str, Classifier]) -> None:
    name, classifier = architecture
    declared, found = ARCHITECTURES[name], classifier.registration
    assert found.measured
    assert found.step == declared.step
    off = np.abs(np.array(found.start) - declared.start) / declared.step
    assert off.max() < (1e-9 if name in EXACT else 0.25)


def test_a_stimulus_is_answered_where_every_architecture_is_said_to_look(
    architecture: tuple[str, Classifier],
) -> None:
    """A pixel of noise is changed; the cells' answers, put where the registration says, lie about that pixel.

    The mean over inputs and places of the answers' centroid, those everywhere taken off, against the pixel's place.
    """
    name, classifier = architecture
    grid, registration = ARCHITECTURES[name].grid, classifier.registration
    source = np.random.default_rng(4)
    errors = []
    for _ in range(24):
        pixel = tuple(int(source.integers(size // 2 - size // 8, size // 2 + size // 8 + 1)) for size in grid)
        still = source.standard_normal((1, 1, *grid)).astype(np.float32)
        both = np.repeat(still, 2, axis=0)
        both[1, 0][pixel] += 4.0
        planes = classifier.activations(both).activations
        energy = np.square(planes[1] - planes[0]).sum(axis=0)
        energy = np.maximum(energy - np.median(energy), 0)
        cells = np.indices(energy.shape).reshape(energy.ndim, -1) @ energy.reshape(-1) / energy.sum()
        errors.append((np.array(registration.start) + cells * registration.step - pixel) / registration.step)
    error = np.mean(errors, axis=0)
    assert np.abs(error).max() < 0.3
    library = library_registration(energy.shape, grid)
    moved = (np.array(library.start) - registration.start) / registration.step
    if np.abs(moved).max() > 0.4:
        assert np.abs(error + moved).max() > 0.3  # the usual upsampling would miss the pixel


def test_random_weights_come_near_the_arithmetic(torch_classifier: Callable[..., TorchClassifier]) -> None:
    found = torch_classifier("linear").registration
    assert found.step == (4, 4)
    assert found.start == pytest.approx((0, 0), abs=1e-6)


def test_both_runtimes_measure_the_same_on_random_weights(
    torch_classifier: Callable[..., TorchClassifier], onnx_classifier: Callable[..., OnnxClassifier]
) -> None:
    by_torch, by_onnx = torch_classifier("layers").registration, onnx_classifier("layers").registration
    assert by_onnx.start == pytest.approx(by_torch.start, abs=1e-3)
    assert by_onnx.step == by_torch.step


def test_it_is_measured_once(torch_classifier: Callable[..., TorchClassifier]) -> None:
    classifier = torch_classifier("linear")
    assert classifier.registration is classifier.registration


def test_library_alignment_is_torchs_interpolation() -> None:
    values = np.random.default_rng(1).random((2, 5, 7), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None], (40, 63), mode="bilinear", align_corners=False
    )[0].numpy()
    found = cells_on_grid(values, library_registration((5, 7), (40, 63)), (40, 63))
    assert np.abs(found - expected).max() < 1e-5


def test_cells_on_a_picture_go_through_the_fit() -> None:
    values = np.zeros((8, 8), np.float32)
    values[4, 2] = 1.0
    registration = Registration(start=(0.0, 0.0), step=(8.0, 8.0), measured=True)
    fit = fit_to((256, 128), (64, 64), "pad")
    placed = sample_linear(values, cell_positions(registration, fit, (256, 128)))
    row, column = np.unravel_index(placed.argmax(), placed.shape)
    # grid pixel 32 is image rows 128..132; grid pixel 16 is image columns (16 - 16) * 4 ..
    assert row in (129, 130)
    assert column in (1, 2)


def test_silent_cells_leave_the_library_alignment_unmeasured() -> None:
    found = measure(lambda probes: np.full((len(probes), 2, 3), np.nan), (8, 8), (64, 64))
    assert found == Registration(start=(3.5, 3.5), step=(8.0, 8.0), measured=False)


def test_pitches_that_are_not_whole_are_kept() -> None:
    def centroids(probes: list[Probe]) -> np.ndarray:
        return np.array(
            [[[1 + 7.5 * probe.cell[0], np.nan, np.nan], [2 + 8.1 * probe.cell[1], np.nan, np.nan]] for probe in probes]
        )

    found = measure(centroids, (8, 8), (66, 66))  # type: ignore[arg-type]
    assert found.step == pytest.approx((7.5, 8.0))
    assert found.start[0] == pytest.approx(1)


def noisy(offset: float, middle: float) -> Callable[[list[Probe]], np.ndarray]:
    """Fields whose centroids scatter by half a pixel about 8 i + offset and whose middles are 8 i + middle."""

    def fields(probes: list[Probe]) -> np.ndarray:
        source = np.random.default_rng(1)
        found = np.empty((len(probes), 2, 3))
        for index, probe in enumerate(probes):
            for axis in (0, 1):
                centre = 8 * probe.cell[axis]
                found[index, axis] = (centre + offset + source.normal(0, 0.5), centre + middle - 9, centre + middle + 9)
        return found

    return fields


def test_the_exact_middle_is_taken_only_when_the_centroids_allow_it() -> None:
    assert measure(noisy(0.1, 0.0), (32, 32), (256, 256)).start == (0.0, 0.0)  # type: ignore[arg-type]
    apart = measure(noisy(3.0, 0.0), (32, 32), (256, 256))  # type: ignore[arg-type]
    assert apart.start == pytest.approx((3, 3), abs=0.5)


def test_a_field_that_reaches_the_border_has_no_exact_extent() -> None:
    gradient = np.zeros((1, 9, 9))
    gradient[0, 2:5, 0:3] = 1
    field = gradient_field(gradient)
    assert field[0].tolist() == [3, 2, 4]
    assert field[1, 0] == 1
    assert np.isnan(field[1, 1:]).all()
    assert np.isnan(gradient_field(np.zeros((1, 4, 4)))).all()


SHAPES_OF_OTHERS = {
    "flat": ("vision transformer", ActivationLayout(layout="tokens", token_grid=(4, 16), prefix_tokens=3)),
    "tall": ("vision transformer", ActivationLayout(layout="tokens", token_grid=(16, 4), prefix_tokens=3)),
    "planes as channels last": ("mobile", ActivationLayout(layout="channels-last")),
    "channels last as planes": ("shifted windows", ActivationLayout()),
}


@pytest.mark.parametrize("named", SHAPES_OF_OTHERS.values(), ids=SHAPES_OF_OTHERS.keys())
def test_a_layout_of_the_same_size_that_is_not_the_layers_is_refused(named: tuple[str, ActivationLayout]) -> None:
    name, layout = named
    classifier = TorchClassifier(replace(paper(name), activations=layout), built(name))
    with pytest.raises(UnusableTargetLayer, match=r"'target' .*check activations.layout, token_grid"):
        _ = classifier.registration


def patches_of(rows: int, columns: int, prefix: int) -> Callable[[list[Probe]], np.ndarray]:
    """Fields of 65 tokens, an 8 x 8 grid of patches of 4 pixels behind one class token, read as another grid."""

    def fields(probes: list[Probe]) -> np.ndarray:
        found = np.full((len(probes), 2, 3), np.nan)
        for index, probe in enumerate(probes):
            token = prefix + probe.cell[0] * columns + probe.cell[1] - 1
            noise = np.random.default_rng(probe.seed).normal(0, 0.7, 2)
            found[index, :, 0] = 16 + 0.8 * (4 * np.array(divmod(token, 8)) - 14.5) + noise
        return found

    return fields


@pytest.mark.parametrize(("rows", "columns", "prefix"), [(13, 5, 0), (5, 13, 0), (4, 16, 1), (16, 4, 1)])
def test_a_wrong_token_grid_is_refused(rows: int, columns: int, prefix: int) -> None:
    with pytest.raises(UnusableTargetLayer, match="token_grid and prefix_tokens"):
        measure(patches_of(rows, columns, prefix), (rows, columns), (32, 32), "blocks")  # type: ignore[arg-type]
    right = measure(patches_of(8, 8, 1), (8, 8), (32, 32), "blocks")  # type: ignore[arg-type]
    assert right.step == (4, 4)


def test_exchanged_axes_are_refused() -> None:
    def fields(probes: list[Probe]) -> np.ndarray:
        centres = np.array([[8 * probe.cell[1], 8 * probe.cell[0]] for probe in probes], np.float64)
        return np.stack([centres + np.random.default_rng(0).normal(0, 1, centres.shape)] + [centres * np.nan] * 2, -1)

    with pytest.raises(UnusableTargetLayer):
        measure(fields, (8, 8), (64, 64), "blocks")  # type: ignore[arg-type]


@pytest.mark.parametrize("axes", [2, 3])
def test_cells_that_look_at_everything_are_not_refused(axes: int) -> None:
    """Centroids of pure noise, many times over: none may look like a wrong layout."""
    for seed in range(300):
        source = np.random.default_rng(seed)

        def fields(probes: list[Probe], source: np.random.Generator = source) -> np.ndarray:
            found = np.full((len(probes), axes, 3), np.nan)
            found[..., 0] = source.normal(112, 8, (len(probes), axes))
            return found

        measure(fields, (14,) * axes, (224,) * axes)  # type: ignore[arg-type]


class Turned(Planes):
    """Sees its input from right to left."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.flip(-1))


def test_a_model_that_turns_its_input_has_a_negative_step(write_card: Callable[..., ModelCard]) -> None:
    turned = Turned(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU()).eval()
    found = TorchClassifier(write_card(target="planes", side=SIDE), turned).registration
    assert found.step == pytest.approx((2, -2))
    assert found.start == pytest.approx((0, SIDE - 1), abs=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5, 6, 7, 8, 12, 14, 16, 28])
def test_probed_cells_are_symmetric_about_the_middle(count: int) -> None:
    asked: list[Probe] = []

    def fields(probes: list[Probe]) -> np.ndarray:
        asked.extend(probes)
        return np.full((len(probes), 3, 3), np.nan)

    measure(fields, (count, count + 1, 4), (64, 64, 64))  # type: ignore[arg-type]
    cells = np.array([probe.cell for probe in asked])
    for axis, size in enumerate((count, count + 1, 4)):
        assert sorted(cells[:, axis]) == sorted(size - 1 - cells[:, axis])


def test_an_upsampled_layer_is_placed_by_its_centroids(write_card: Callable[..., ModelCard]) -> None:
    """Its even and odd cells reach differently far, so the extents alone give another pitch."""
    module = Planes(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2, mode="bilinear")).eval()
    found = TorchClassifier(write_card(target="planes", side=SIDE), module).registration
    assert found.step == (1, 1)
    assert found.start == pytest.approx((-0.5, -0.5), abs=0.1)


class Quarters(nn.Module):
    """Patches of 4 x 4, mixed within windows of 2 x 2 of them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.target = nn.Conv2d(1, 8, 4, 4), nn.Conv2d(32, 32, 1)
        self.planes, self.head = nn.Identity(), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        planes = self.patches(x)
        mixed = nn.functional.pixel_shuffle(self.target(nn.functional.pixel_unshuffle(planes, 2)), 2)
        logits: torch.Tensor = self.head(self.planes(planes + mixed).mean((2, 3)))
        return logits


def test_windows_do_not_change_the_pitch(write_card: Callable[..., ModelCard]) -> None:
    torch.manual_seed(0)
    mixed = TorchClassifier(write_card(target="planes", side=SIDE), Quarters().eval())
    for classifier in (mixed, law_models.classifier_of("shifted windows")):
        assert classifier.registration.step == (4, 4)
        assert classifier.registration.start == pytest.approx((1.5, 1.5), abs=1)
