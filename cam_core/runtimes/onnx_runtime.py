"""A classifier run by onnxruntime from a bare ONNX file; knows no methods and no architecture's code.

The target tensor is added to the graph's outputs, so one pass gives logits and activations. The gradient is exact: for
a global-average-pooling and linear head it is ``W[c] / (h * w)``; any other head is run again in torch.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from cam_core.card import ModelCard
from cam_core.classifier import Capability, Capture, Numerics
from cam_core.errors import MethodNotApplicable, ModelLoadError
from cam_core.registration import Probe, Registration, gradient_field, measure
from cam_core.runtimes.finite_differences import difference_fields
from cam_core.runtimes.linear_head import linear_head
from cam_core.runtimes.onnx_graph import OnnxPlan, plan
from cam_core.runtimes.onnx_replay import UnsupportedOperator, replay, supported

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
RUN_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.RuntimeException,
    ort_errors.NotImplemented,
    ort_errors.InvalidGraph,
    ort_errors.EPFail,
)


class OnnxClassifier:
    """An ONNX model with its card; see `cam_core.classifier.Classifier`."""

    def __init__(self, card: ModelCard, prepared: OnnxPlan, session: onnxruntime.InferenceSession) -> None:
        self.card = card
        self.device = _session_device(session)
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self.capabilities = frozenset(Capability) - {Capability.CURVATURES, Capability.HEAD}
        self.numerics = Numerics()
        self.micro_batch = 16
        self._plan = prepared
        self._session = session
        self._lock = threading.Lock()
        self._registration: Registration | None = None
        self._head: NDArray[np.float32] | None = None
        self._head_known = False

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, H, W)."""
        return self._run(batch, (self._plan.logits,))[0]

    def perturbed_scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`."""
        return self.scores(batch)

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch, in one pass."""
        scores, planes = self._run(batch, (self._plan.logits, self._plan.target))
        return Capture(scores=scores, activations=planes)

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int], *, curvature: bool = False) -> Capture:
        """Logits, target activations and exact derivatives of the asked logits.

        Raises
        ------
        MethodNotApplicable
            When the head has an operator that can't be differentiated, or depends on more than the target.
        """
        capture = self.activations(batch)
        planes = capture.activations
        weights = self.head_weights()
        if weights is not None:
            each = weights[list(labels)] / np.float32(planes.shape[2] * planes.shape[3])
            found = np.broadcast_to(each[None, :, :, None, None], (len(planes), *each.shape, *planes.shape[2:]))
            return Capture(scores=capture.scores, activations=planes, gradients=np.ascontiguousarray(found))
        return Capture(scores=capture.scores, activations=planes, gradients=self._derivatives(planes, labels))

    def head_weights(self) -> NDArray[np.float32] | None:
        """Weights (K, Ch) of a global-average-pooling and linear head, else None; found once and kept."""
        with self._lock:
            if not self._head_known:
                self._head = self._found_head()
                self._head_known = True
            return self._head

    def _found_head(self) -> NDArray[np.float32] | None:
        if not self._plan.separable or supported(self._plan.head) is not None:
            return None
        channels, rows, columns = self.activations(self._blank_batch()).activations.shape[1:]
        labels = range(len(self.card.labels))
        matrices = [one for one in self._plan.constants.values() if one.ndim == 2 and one.dtype == np.float32]
        candidates = [one.astype(np.float32) for matrix in matrices for one in (matrix, matrix.T)]
        try:
            return linear_head(
                lambda planes: self._derivatives(planes[None], labels)[0],
                (channels, rows, columns),
                len(labels),
                candidates,
            )
        except MethodNotApplicable:
            return None

    def _derivatives(self, planes: NDArray[np.float32], labels: Sequence[int]) -> NDArray[np.float32]:
        """Derivatives (N, L, Ch, h, w) of the asked logits at activations (N, Ch, h, w), one image at a time."""
        if not self._plan.separable:
            raise MethodNotApplicable("gradient", "a path from the input leads past the target to the logits")
        return np.stack([self._derivatives_of_one(one[None], labels) for one in planes])

    def _derivatives_of_one(self, planes: NDArray[np.float32], labels: Sequence[int]) -> NDArray[np.float32]:
        with torch.inference_mode(False), torch.enable_grad():
            leaf = torch.tensor(planes, requires_grad=True)
            try:
                logits = replay(self._plan.head, {self._plan.target: leaf}, self._plan.constants, self._plan.logits)
            except UnsupportedOperator as error:
                raise MethodNotApplicable("gradient", f"in the model's head, {error}") from error
            logits = logits.reshape(1, -1)
            return np.concatenate(
                [torch.autograd.grad(logits[0, label], leaf, retain_graph=True)[0].numpy() for label in labels]
            )

    def _blank_batch(self) -> NDArray[np.float32]:
        size = self.card.input
        return np.zeros((1, size.channels, size.rows, size.columns), dtype=np.float32)

    @property
    def registration(self) -> Registration:
        """Centres of the target's cells on the input, measured on first use and kept."""
        with self._lock:
            if self._registration is None:
                cells = self.activations(self._blank_batch()).activations.shape[2:]
                self._registration = measure(self._fields, cells, self.card.input.grid)
            return self._registration

    def _fields(self, probes: Sequence[Probe]) -> NDArray[np.float64]:
        """By the gradient of the trunk run in torch where every operator is known, else by finite differences."""
        try:
            return np.stack([self._field(probe) for probe in probes])
        except UnsupportedOperator:
            return difference_fields(
                lambda batch: self.activations(batch).activations, self._blank_batch().shape, probes
            )

    def _field(self, probe: Probe) -> NDArray[np.float64]:
        source = np.random.default_rng(probe.seed)
        noise = source.standard_normal(self._blank_batch().shape).astype(np.float32)
        with torch.inference_mode(False), torch.enable_grad():
            batch = torch.tensor(noise, requires_grad=True)
            output = replay(self._plan.trunk, {self._plan.input: batch}, self._plan.constants, self._plan.target)
            signs = torch.from_numpy(source.choice((-1.0, 1.0), output.shape[1]).astype(np.float32))
            cell = (output[0, :, probe.cell[0], probe.cell[1]] * signs).sum()
            (gradient,) = torch.autograd.grad(cell, batch)
        return gradient_field(gradient.numpy()[0])

    def _run(self, batch: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """Named tensors of a batch, in pieces of the size that the graph allows."""
        size = self._plan.fixed_batch or len(batch)
        pieces = [self._run_piece(batch[first : first + size], size, names) for first in range(0, len(batch), size)]
        return [np.concatenate(tensors) for tensors in zip(*pieces, strict=True)]

    def _run_piece(self, piece: NDArray[np.float32], size: int, names: Sequence[str]) -> list[NDArray[np.float32]]:
        filled = np.zeros((size, *piece.shape[1:]), dtype=np.float32)
        filled[: len(piece)] = piece
        try:
            tensors = self._session.run(list(names), {self._plan.input: filled})
        except RUN_ERRORS as error:
            raise ModelLoadError(self.card.weights, f"the model can't be run: {error}") from error
        if names[0] == self._plan.logits:
            tensors[0] = tensors[0].reshape(size, -1)
            if tensors[0].shape[1] != len(self.card.labels):
                raise ModelLoadError(
                    self.card.weights,
                    f"the model gives {tensors[0].shape[1]} scores, the card has {len(self.card.labels)} labels",
                )
        return [np.asarray(tensor[: len(piece)], dtype=np.float32) for tensor in tensors]


def _session_device(session: onnxruntime.InferenceSession) -> str:
    """Where a session really runs: onnxruntime falls back to the CPU by itself."""
    if session.get_providers()[0] != CUDA:
        return "cpu"
    return f"cuda:{session.get_provider_options()[CUDA].get('device_id', '0')}"


def open_onnx(card: ModelCard, weights: bytes, device: str = "auto") -> OnnxClassifier:
    """Prepare checked ONNX bytes for capture and start a session.

    Raises
    ------
    ModelLoadError, UnknownTargetLayer
    """
    prepared = plan(card, weights)
    there = onnxruntime.get_available_providers()
    if device.startswith("cuda") and CUDA not in there:
        raise ModelLoadError(card.weights, f"device {device!r} was asked for, onnxruntime has no CUDA here")
    providers: list[str | tuple[str, dict[str, str]]] = [CPU]
    if CUDA in there and device != "cpu":
        number = device.partition(":")[2] or "0"
        providers.insert(0, (CUDA, {"device_id": number, "use_tf32": "0"}))
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(prepared.encoded, options, providers=providers)
    except RUN_ERRORS as error:
        raise ModelLoadError(card.weights, f"onnxruntime can't load it: {error}") from error
    return OnnxClassifier(card, prepared, session)
