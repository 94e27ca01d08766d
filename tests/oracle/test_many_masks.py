"""SS-CAM and IS-CAM against torchcam, on cells whose masks are the same for both."""

from itertools import accumulate

import numpy as np
import peers
import pytest
import torch
from small_networks import Case

from cam_core.methods.is_cam import STEPS
from cam_core.methods.ss_cam import MASKS as NOISE

TOLERANCE = 1e-5
CASES = ("one pixel cells", "five pixel cells", "volume one pixel cells")
LABELS_COMPARED = (0, 1)


class OurNoise:
    """Stands in for torchcam's source of noise: hands out what ours draws, by channel."""

    def __init__(self, one: Case) -> None:
        channels = one.classifier.activations(one.batch.numpy()).activations.shape[1]
        self._draws = np.stack(
            [
                np.random.default_rng((NOISE.seed, channel)).standard_normal((NOISE.samples, *one.grid), np.float32)
                for channel in range(channels)
            ]
        )
        self._next = 0

    def sample(self, size: torch.Size) -> torch.Tensor:
        noise = torch.from_numpy(self._draws[:, self._next] * np.float32(NOISE.deviation))[None]
        assert noise.shape == size
        self._next += 1
        return noise


@pytest.mark.parametrize("name", CASES)
def test_torchcam_ss_cam_with_the_same_noise(case, ours, name):
    library = peers.needed("torchcam")
    one = case(name)
    for label in LABELS_COMPARED:
        shape = tuple(one.batch.shape[1:])
        with library.SSCAM(one.module, one.target, num_samples=NOISE.samples, input_shape=shape) as extractor:
            assert extractor.std == NOISE.deviation
            extractor._distrib = OurNoise(one)
            one.module(one.batch)
            theirs = extractor(label)[0][0].numpy()
        raw = ours(one, "ss-cam")[label]
        np.testing.assert_allclose(peers.as_torchcam(raw), theirs, rtol=0, atol=TOLERANCE)


def is_cam(one: Case, scales: list[float]) -> np.ndarray:
    """``softmax_k(1/N sum_i Y(s_i X U(A_k)))`` as raw maps (labels, *cells), for cells that are pixels."""
    planes = torch.from_numpy(one.classifier.activations(one.batch.numpy()).activations[0])
    every = tuple(range(1, planes.ndim))
    low, high = planes.amin(every, keepdim=True), planes.amax(every, keepdim=True)
    masked = one.batch * ((planes - low) / (high - low + 1e-8))[:, None]
    with torch.no_grad():
        scores = sum(one.module(masked * scale).double().numpy() for scale in scales) / STEPS
    powers = np.exp(scores - scores.max(axis=0))
    return np.maximum(np.tensordot((powers / powers.sum(axis=0)).T, planes.double().numpy(), axes=1), 0)


def sums(first: int, last: int) -> list[float]:
    """For N masks, the sums over j of j/N that grow by one term each."""
    return list(accumulate(step / STEPS for step in range(first, last + 1)))


@pytest.mark.parametrize("name", ("one pixel cells", "volume one pixel cells"))
def test_is_cam_is_the_paper_and_torchcam_is_one_step_further(case, ours, name):
    """The paper sums j from 0 to i - 1, as torchcam's documentation has it; its code sums from 1 to i."""
    peers.needed("torchcam")
    one = case(name)
    paper, further = is_cam(one, sums(0, STEPS - 1)), is_cam(one, sums(1, STEPS))
    differs = 0.0
    for label in LABELS_COMPARED:
        raw = ours(one, "is-cam")[label]
        theirs = peers.torchcam_map("ISCAM", one, label, num_samples=STEPS)
        np.testing.assert_allclose(peers.as_torchcam(raw), peers.as_torchcam(paper[label]), rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(peers.as_torchcam(further[label]), theirs, rtol=0, atol=TOLERANCE)
        differs = max(differs, np.abs(peers.as_torchcam(raw) - theirs).max())
    assert differs > 0.001
