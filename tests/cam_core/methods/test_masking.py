"""Score-CAM, SS-CAM and IS-CAM, each against plain loops over torch's own interpolation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from small_evidence import asked

from cam_core.errors import ExplanationFailed
from cam_core.method import Subject, method_named
from cam_core.methods.is_cam import MASKS as GROWING
from cam_core.methods.masking import NoisyMasks, PlaneMasks, ScaledMasks, masked_scores
from cam_core.methods.ss_cam import MASKS as NOISY
from cam_core.registration import Registration, input_registration

DEAD, CONSTANT = 3, 8
GRIDS = pytest.mark.parametrize(("grid", "cells"), [((16, 20), (8, 5)), ((4, 8, 12), (2, 4, 3))])


def model(batch: np.ndarray) -> np.ndarray:
    """Three logits that are no linear function of the input."""
    flat = batch.reshape(len(batch), -1).astype(np.float64)
    front = flat[:, : flat.shape[1] // 3]
    return np.stack([flat.mean(axis=1), np.tanh(-9 * front.mean(axis=1)) - 0.2, flat.std(axis=1)], axis=1).astype(
        np.float32
    )


def subject(grid: tuple[int, ...], cells: tuple[int, ...], channels: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """An input (2, *grid) and planes of which one is dead and one constant."""
    source = np.random.default_rng(4)
    planes = np.maximum(source.normal(size=(channels, *cells)), 0).astype(np.float32)
    planes[DEAD], planes[CONSTANT] = 0.0, 0.7
    return source.normal(size=(2, *grid)).astype(np.float32), planes


def mask_of(plane: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    mode = "bilinear" if plane.ndim == 2 else "trilinear"
    given = torch.from_numpy(plane)[None, None]
    spread = torch.nn.functional.interpolate(given, tuple(grid), mode=mode, align_corners=False)[0, 0].numpy()
    return (spread - spread.min()) / (spread.max() - spread.min())


def useful(planes: np.ndarray) -> list[int]:
    return [k for k in range(len(planes)) if k not in (DEAD, CONSTANT)]


def joined(weights: Sequence[float], planes: np.ndarray) -> np.ndarray:
    total = np.zeros(planes.shape[1:])
    for weight, k in zip(weights, useful(planes), strict=True):
        total += float(weight) * planes[k].astype(float)
    return np.maximum(total, 0)


def softmax(scores: Sequence[float]) -> np.ndarray:
    powers = np.exp(np.asarray(scores, float) - max(scores))
    return powers / powers.sum()


def near(slow: np.ndarray) -> object:
    return pytest.approx(slow, rel=1e-4, abs=1e-5 * float(np.abs(slow).max()))


@GRIDS
def test_score_cam_delta_and_paper_by_loops(grid: tuple[int, ...], cells: tuple[int, ...]) -> None:
    given, planes = subject(grid, cells)
    scores = np.stack([model((given * mask_of(planes[k], grid))[None])[0] for k in useful(planes)]).astype(float)
    baseline = model(np.zeros_like(given)[None])[0]
    evidence = asked(model, given, planes, labels=(1, 0))
    delta, paper = method_named("score-cam").maps(evidence), method_named("score-cam:paper").maps(evidence)
    for index, label in enumerate((1, 0)):
        assert delta.values[index] == near(joined(scores[:, label] - baseline[label], planes))
        assert paper.values[index] == near(joined(softmax(scores[:, label]), planes))
    assert delta.values.max() > 0
    assert delta.baseline is not None
    assert "masked out" in delta.baseline


@GRIDS
@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_score_cam_original_by_loops(grid: tuple[int, ...], cells: tuple[int, ...], activation: str) -> None:
    """As the authors' code: the probability times the plane spread over the input, summed, cut at 0."""
    given, planes = subject(grid, cells)
    planes[5] -= 1
    found = method_named("score-cam:original").maps(asked(model, given, planes, labels=(2, 1), activation=activation))
    totals = np.zeros((3, *grid))
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    for k in useful(planes):
        logits = model((given * mask_of(planes[k], grid))[None])[0].astype(float)
        chances = softmax(list(logits)) if activation == "softmax" else 1 / (1 + np.exp(-logits))
        plane = torch.from_numpy(planes[k])[None, None]
        spread = torch.nn.functional.interpolate(plane, grid, mode=mode, align_corners=False)[0, 0].numpy()
        totals += chances.reshape(-1, *[1] * len(grid)) * spread
    assert found.registration == input_registration(grid)
    assert found.baseline is None
    for index, label in enumerate((2, 1)):
        assert found.values[index] == near(np.maximum(totals[label], 0))
    constant = 0.7 * np.ones(grid)
    assert np.abs(found.values[0] - constant).min() > 0  # a constant plane is skipped, as in the authors' code


@GRIDS
def test_ss_cam_by_loops(grid: tuple[int, ...], cells: tuple[int, ...]) -> None:
    given, planes = subject(grid, cells)
    found = method_named("ss-cam").maps(asked(model, given, planes, labels=(1, 2)))
    means = []
    for k in useful(planes):
        source = np.random.default_rng((NOISY.seed, k))
        scores = np.zeros(3)
        for _ in range(NOISY.samples):
            mask = mask_of(planes[k], grid) + NOISY.deviation * source.standard_normal(grid, dtype=np.float32)
            scores += model((given * mask)[None].astype(np.float32))[0]
        means.append(scores / NOISY.samples)
    for index, label in enumerate((1, 2)):
        assert found.values[index] == near(joined(softmax([one[label] for one in means]), planes))


def test_noise_is_the_paper_s() -> None:
    given, planes = np.ones((1, 64, 64), np.float32), np.zeros((2, 8, 8), np.float32)
    planes[:, 2, 3] = 1
    place = Registration(start=(0.0, 0.0), step=(8.0, 8.0), measured=True)
    made = np.concatenate(list(NOISY.inputs(Subject(input=given, activations=planes, registration=place), 4)))
    plain = np.concatenate(list(PlaneMasks().inputs(Subject(input=given, activations=planes, registration=place), 4)))
    assert len(made) == 1 + 2 * NOISY.samples
    assert not made[0].any()
    noise = made[1:].reshape(2, NOISY.samples, -1) - plain[1:].reshape(2, 1, -1)
    assert noise.std() == pytest.approx(2.0, rel=0.02)
    assert noise.mean() == pytest.approx(0.0, abs=0.02)
    rows = noise.reshape(2 * NOISY.samples, -1)
    assert np.abs(np.corrcoef(rows) - np.eye(len(rows))).max() < 0.1


@GRIDS
def test_is_cam_by_loops(grid: tuple[int, ...], cells: tuple[int, ...]) -> None:
    given, planes = subject(grid, cells)
    found = method_named("is-cam").maps(asked(model, given, planes, labels=(0, 1)))
    baseline = model(np.zeros_like(given)[None])[0].astype(float)
    gains = []
    for k in useful(planes):
        total = np.zeros(3)
        for i in range(1, 11):
            grown = sum(j / 10 for j in range(i)) * given * mask_of(planes[k], grid)
            total += model(grown[None].astype(np.float32))[0] - baseline
        gains.append(total / 10)
    for index, label in enumerate((0, 1)):
        assert found.values[index] == near(joined(softmax([one[label] for one in gains]), planes))
    assert max(GROWING.scales) == pytest.approx(4.5)


@pytest.mark.parametrize("name", ["score-cam", "score-cam:paper", "score-cam:original", "ss-cam", "is-cam"])
@pytest.mark.parametrize("most", [1, 3, 7])
def test_the_size_of_a_pass_changes_no_map(name: str, most: int) -> None:
    given, planes = subject((16, 20), (8, 5))
    whole = method_named(name).maps(asked(model, given, planes, most=64)).values
    assert np.array_equal(method_named(name).maps(asked(model, given, planes, most=most)).values, whole)


@pytest.mark.parametrize("ask", [PlaneMasks(), NoisyMasks(samples=5, deviation=2.0), ScaledMasks(scales=(0.5, 1, 2))])
@pytest.mark.parametrize("most", [1, 2, 16])
def test_masks_are_made_in_blocks_and_dead_planes_cost_nothing(ask: PlaneMasks, most: int) -> None:
    given, planes = subject((16, 20), (8, 5))
    blocks = list(ask.inputs(Subject(input=given, activations=planes, registration=input_registration((8, 5))), most))
    each = {PlaneMasks: 1, NoisyMasks: 5, ScaledMasks: 3}[type(ask)]
    assert max(len(block) for block in blocks) <= most
    assert sum(len(block) for block in blocks) == 1 + each * len(useful(planes))
    assert all(block.dtype == np.float32 for block in blocks)


def test_masks_lie_where_the_cells_look() -> None:
    planes = np.zeros((1, 8, 8), np.float32)
    planes[0, 3, 4] = 1
    place = Registration(start=(0.0, 0.0), step=(4.0, 4.0), measured=True)
    shown = Subject(input=np.ones((1, 32, 32), np.float32), activations=planes, registration=place)
    baseline, mask = np.concatenate(list(PlaneMasks().inputs(shown, 2)))[:, 0]
    assert not baseline.any()
    assert np.unravel_index(mask.argmax(), mask.shape) == (12, 16)
    assert mask.max() == 1
    assert mask.min() == 0


def test_repeated_answers_are_averaged_in_the_channels_places() -> None:
    given, planes = subject((16, 20), (8, 5))
    ask = ScaledMasks(scales=(0.5, 1.0))
    found = masked_scores(asked(model, given, planes), ask, 2).scores
    assert np.isnan(found[[DEAD, CONSTANT]]).all()
    for k in useful(planes):
        masked = given * mask_of(planes[k], (16, 20))
        slow = (model((0.5 * masked)[None].astype(np.float32))[0].astype(float) + model(masked[None])[0]) / 2
        assert found[k] == pytest.approx(slow, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", ["score-cam", "score-cam:paper", "score-cam:original", "ss-cam", "is-cam"])
def test_constant_planes_only_and_broken_scores_fail_loudly(name: str) -> None:
    given, planes = subject((16, 20), (8, 5))
    with pytest.raises(ExplanationFailed, match="every feature plane is constant"):
        method_named(name).maps(asked(model, given, np.ones_like(planes)))
    broken = asked(lambda batch: np.full((len(batch), 3), np.nan, np.float32), given, planes)
    with pytest.raises(ExplanationFailed, match="not finite"):
        method_named(name).maps(broken)
