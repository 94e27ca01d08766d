"""What else the libraries do that cam_core must not; a test named a deviation fails once the library has mended it."""

import copy
import gc
import threading

import numpy as np
import peers
import pytest
import torch
from small_networks import Case, picture

CONCURRENT = ("grad-cam", "score-cam")


def _grad_cam(planes: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    weights = gradient.mean(axis=tuple(range(1, gradient.ndim)), keepdims=True)
    return np.maximum((weights * planes).sum(axis=0), 0)


@pytest.fixture
def own_case(case):
    """A copy of a case whose module a library may spoil."""

    def build(name: str) -> Case:
        one = case(name)
        return Case(name=one.name, module=copy.deepcopy(one.module), target=one.target, image=one.image)

    return build


# A target layer whose output is changed in place by the next one: `A` before or after, `g` before or after.


@pytest.fixture
def in_place(case):
    """The case, label 1, and the planes and gradients before and after the in-place ReLU."""
    one, label = case("in-place head"), 1
    before, gradient_before, _ = peers.captured(one, label)
    after_case = Case(name="after", module=one.module, target="after", image=one.image)
    after, gradient_after, _ = peers.captured(after_case, label)
    maps = {
        (a, g): _grad_cam(planes, gradient)
        for a, planes in (("before", before), ("after", after))
        for g, gradient in (("before", gradient_before), ("after", gradient_after))
    }
    return one, label, maps


def _matches(found: np.ndarray, maps: dict, process) -> set:
    return {key for key, raw in maps.items() if np.abs(process(raw) - found).max() < 1e-4}


def test_ours_takes_both_as_the_layer_gave_them(ours, in_place):
    one, label, maps = in_place
    assert _matches(peers.as_shown(ours(one, "grad-cam")[label]), maps, peers.as_shown) == {("before", "before")}


def test_captum_takes_both_as_the_layer_gave_them(in_place):
    peers.needed("captum")
    one, label, maps = in_place
    assert _matches(peers.as_shown(peers.captum_grad_cam(one, label)), maps, peers.as_shown) == {("before", "before")}


def test_deviation_pytorch_grad_cam_mixes_later_activations_with_earlier_gradients(in_place):
    """On the CPU its copy of the activations shares memory with what the ReLU then changes."""
    peers.needed("pytorch-grad-cam")
    one, label, maps = in_place
    found = peers.pytorch_grad_cam_map("GradCAM", one, label)
    assert _matches(found, maps, lambda raw: peers.as_pytorch_grad_cam(raw, one.grid)) == {("after", "before")}


def test_deviation_torchcam_takes_what_the_next_layer_made(in_place):
    peers.needed("torchcam")
    one, label, maps = in_place
    assert _matches(peers.torchcam_map("GradCAM", one, label), maps, peers.as_torchcam) == {("after", "after")}


def test_deviation_monai_raises(own_case):
    peers.needed("monai")
    with pytest.raises(RuntimeError, match="view and is being modified inplace"):
        peers.monai_map("GradCAM", own_case("in-place head"), 1)


# Failing.


def test_deviation_pytorch_grad_cam_swallows_a_label_that_does_not_exist(case, capsys):
    peers.needed("pytorch-grad-cam")
    one, reached = case("linear head"), []
    goal = peers.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(99)
    with peers.peer("pytorch-grad-cam").GradCAM(one.module, [peers.target_layer(one)]) as extractor:
        extractor(input_tensor=one.batch, targets=[goal])
        reached.append("a map")
    assert not reached
    assert "IndexError" in capsys.readouterr().out


def test_deviation_pytorch_grad_cam_gives_silent_zero_maps_when_targets_are_missing(case):
    peers.needed("pytorch-grad-cam")
    one = case("linear head")
    goal = peers.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(1)
    with peers.peer("pytorch-grad-cam").GradCAM(one.module, [peers.target_layer(one)]) as extractor:
        found = extractor(input_tensor=one.batch.repeat(4, 1, 1, 1), targets=[goal])
    assert found[0].max() > 0.99
    assert not found[1:].any()


def test_deviation_pytorch_grad_cam_leaves_the_model_broken_when_ablation_fails(own_case):
    """The target layer stays replaced by the one that ablates; the model then answers with stored activations."""
    peers.needed("pytorch-grad-cam")
    one = own_case("linear head")
    asked = []

    def goal(output: torch.Tensor) -> torch.Tensor:
        asked.append(output)
        if len(asked) > 1:
            raise MemoryError("no memory for the second pass")
        return output[1]

    with torch.no_grad():
        before = one.module(one.batch)
        with (
            pytest.raises(MemoryError),
            peers.peer("pytorch-grad-cam").AblationCAM(one.module, [peers.target_layer(one)]) as extractor,
        ):
            extractor(input_tensor=one.batch, targets=[goal])
        assert type(peers.target_layer(one)).__name__ == "AblationLayer"
        after = one.module(one.batch)
    assert not torch.equal(after[:1], before)


def test_deviation_gradients_of_frozen_parameters(own_case):
    """Three of four need parameters that want gradients, which a model in service has no reason to have."""
    for name in peers.PEERS:
        peers.needed(name)
    one = own_case("linear head")
    one.module.requires_grad_(False)
    with pytest.raises(RuntimeError):
        peers.pytorch_grad_cam_map("GradCAM", one, 1)
    with pytest.raises(RuntimeError):
        peers.torchcam_map("GradCAM", one, 1)
    with pytest.raises((RuntimeError, IndexError)):
        peers.monai_map("GradCAM", one, 1)
    assert peers.captum_grad_cam(one, 1).max() > 0


def test_deviation_monai_changes_the_model_and_never_takes_its_hooks_off(own_case):
    peers.needed("monai")
    one = own_case("in-place head")
    layer = one.module.after
    assert layer.inplace
    peers.peer("monai").GradCAM(one.module, "after")(one.batch, class_idx=torch.tensor([1]))
    gc.collect()
    assert not layer.inplace
    assert layer._forward_hooks
    assert layer._backward_hooks


# Two callers on one model.


def test_deviation_torchcam_gives_the_map_of_another_callers_picture(own_case):
    """Each caller has an extractor of its own, but hooks listen to whoever runs the model; the order is forced here."""
    peers.needed("torchcam")
    first = own_case("linear head")
    second = Case(name="second", module=first.module, target=first.target, image=picture(first.grid, seed=6))
    alone = [peers.torchcam_map("CAM", one, 1, fc_layer="head") for one in (first, second)]
    assert np.abs(alone[0] - alone[1]).max() > 0.1

    ran, other_ran = threading.Event(), threading.Event()
    found = {}

    def one_caller() -> None:
        extractor = peers.peer("torchcam").CAM(first.module, first.target, fc_layer="head", input_shape=(1, 32, 32))
        first.module(first.batch)
        ran.set()
        other_ran.wait(10)
        found["first"] = extractor(1)[0][0].numpy()
        extractor.remove_hooks()

    def other_caller() -> None:
        ran.wait(10)
        with torch.no_grad():
            second.module(second.batch)
        other_ran.set()

    threads = [threading.Thread(target=each) for each in (one_caller, other_caller)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    np.testing.assert_array_equal(found["first"], alone[1])


def test_ours_keeps_callers_apart(case, ours_anew):
    """One model asked about two pictures from four threads at once: every map is the picture's own, bit for bit."""
    one = case("smooth head")
    images = [one.image, picture(one.grid, seed=6)]
    expected = [[ours_anew(one, method, image) for method in CONCURRENT] for image in images]
    assert np.abs(expected[0][0] - expected[1][0]).max() > 0
    wrong = []

    def work(number: int) -> None:
        for turn in range(6):
            which = (number + turn) % 2
            for method, known in zip(CONCURRENT, expected[which], strict=True):
                if not np.array_equal(ours_anew(one, method, images[which]), known):
                    wrong.append((number, turn, method))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
