"""A classifier run by onnxruntime from a bare ONNX file; knows no methods and no architecture's code.

The target tensor is added to the graph's outputs, so one pass gives logits and activations. Derivatives are exact: for
a global-average-pooling and linear head the gradient is ``W[c] / cells``; any other head is run again in torch. Passes
through the head alone are onnxruntime's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

from cam_core.card import ModelCard
from cam_core.classifier import EXACT, Capability, Capture, Classifier, ForwardOptions, Numerics
from cam_core.errors import MethodNotApplicable, ModelLoadError
from cam_core.passes import in_pieces
from cam_core.registration import Probe, Registration, gradient_field, measure
from cam_core.runtimes.derivative import derivative
from cam_core.runtimes.finite_differences import difference_fields
from cam_core.runtimes.independence import independent
from cam_core.runtimes.layout import from_planes, to_planes
from cam_core.runtimes.linear_head import linear_head
from cam_core.runtimes.memory import enough_memory, micro_batch
from cam_core.runtimes.once import Once
from cam_core.runtimes.onnx_call import UnsupportedOperator
from cam_core.runtimes.onnx_graph import OnnxPlan, plan
from cam_core.runtimes.onnx_replay import replay, supported
from cam_core.runtimes.onnx_session import Session

SAME = 1e-3
"""Relative difference of the replayed logits from onnxruntime's beyond which the replay isn't the model's head."""


class OnnxClassifier:
    """An ONNX model with its card; see `cam_core.classifier.Classifier`."""

    def __init__(self, card: ModelCard, prepared: OnnxPlan, session: Session) -> None:
        self.card = card
        self.members: tuple[Classifier, ...] = ()
        self.device = session.device
        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        lacking = {Capability.CURVATURES} if supported(prepared.head) else set()
        self.capabilities = frozenset(Capability) - lacking
        self.numerics = Numerics()
        self._plan = prepared
        self._session = session
        self._once_registration = Once(self._measured_registration)
        self._once_head = Once(self._found_head)
        self._once_head_session = Once(lambda: Session(prepared.head_encoded, session.device, card.weights))
        self._once_micro_batch = Once(self._fitting_micro_batch)

    @property
    def micro_batch(self) -> int:
        """Inputs for one pass, from the memory that was free when first asked; see `Classifier.micro_batch`."""
        return self._once_micro_batch()

    def _fitting_micro_batch(self) -> int:
        fitting = micro_batch(self._plan.bytes_per_input, self.device)
        return fitting if fitting == 1 or independent(self.scores, self._blank_batch().shape[1:]) else 1

    @property
    def head_batch(self) -> int:
        """Activations for one head pass: the micro-batch, as the head never takes more memory than the whole."""
        return self.micro_batch

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, *grid)."""
        return self._run(batch, (self._plan.logits,))[0]

    def perturbed_scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`."""
        return self.scores(batch)

    def sampled_scores(self, batch: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """Not to be had: an ONNX file is exported without its dropout.

        Raises
        ------
        MethodNotApplicable
        """
        raise MethodNotApplicable("Monte Carlo dropout", "an ONNX model has no dropout any more")

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch, in one pass."""
        return self._captured(batch)[0]

    def _captured(self, batch: NDArray[np.float32]) -> tuple[Capture, NDArray[np.float32]]:
        """What one pass gives, and the target as the graph lays it out."""
        scores, output = self._run(batch, (self._plan.logits, self._plan.target))
        return Capture(scores=scores, activations=self._planes(torch.from_numpy(output))), output

    def _planes(self, output: Tensor) -> NDArray[np.float32]:
        planes = to_planes(output, self.card.activations, len(self.card.input.grid), self._plan.target)
        return np.ascontiguousarray(planes.numpy(), dtype=np.float32)

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int], *, curvature: bool = False) -> Capture:
        """Logits, target activations and exact derivatives of the asked logits.

        Raises
        ------
        MethodNotApplicable
            When the head has an operator that can't be differentiated.
        """
        capture, output = self._captured(batch)
        scores, planes = capture.scores, capture.activations
        weights = self.head_weights()
        if weights is not None:
            cells = planes.shape[2:]
            each = weights[list(labels)] / np.float32(np.prod(cells))
            flat = each.reshape(*each.shape, *[1] * len(cells))
            found = np.ascontiguousarray(np.broadcast_to(flat, (len(planes), *each.shape, *cells)))
            zeros = np.zeros_like(found) if curvature else None
            return Capture(scores=scores, activations=planes, gradients=found, curvatures=zeros)
        first, second = self._derivatives(batch, output, labels, curvature=curvature, expected=scores)
        return Capture(scores=scores, activations=planes, gradients=first, curvatures=second)

    def head_weights(self) -> NDArray[np.float32] | None:
        """Weights (K, Ch) of a global-average-pooling and linear head, else None; found once and kept."""
        return self._once_head()

    def _found_head(self) -> NDArray[np.float32] | None:
        if not self._plan.separable or supported(self._plan.head) is not None:
            return None
        blank = self._blank_batch()
        capture, output = self._captured(blank)
        labels = range(len(self.card.labels))
        matrices = [one for one in self._plan.constants.values() if one.ndim == 2 and one.dtype == np.float32]
        candidates = [one.astype(np.float32) for matrix in matrices for one in (matrix, matrix.T)]

        def derivatives(planes: NDArray[np.float32]) -> NDArray[np.float32]:
            found, _ = self._derivatives(blank, self._laid_out(planes[None], output), labels)
            one: NDArray[np.float32] = found[0]
            return one

        try:
            return linear_head(derivatives, capture.activations.shape[1:], len(labels), candidates)
        except MethodNotApplicable:
            return None

    def _laid_out(self, planes: NDArray[np.float32], like: NDArray[np.float32]) -> NDArray[np.float32]:
        """Planes (n, Ch, *cells) as the graph lays out its target."""
        output = from_planes(torch.from_numpy(planes), torch.from_numpy(like), self.card.activations)
        return np.ascontiguousarray(output.numpy())

    def _derivatives(
        self,
        batch: NDArray[np.float32],
        output: NDArray[np.float32],
        labels: Sequence[int],
        *,
        curvature: bool = False,
        expected: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """First and second derivatives (N, L, Ch, *cells) of the asked logits, as many images at a time as the graph's
        batch size is, else one."""
        size = self._plan.fixed_batch or 1
        pairs = []
        for start in range(0, len(output), size):
            stop = start + size
            given = {self._plan.target: output[start:stop], self._plan.input: batch[start:stop]}
            count = len(given[self._plan.target])
            leaf, logits = self._replayed({name: _filled(one, size) for name, one in given.items()})
            if expected is not None:
                self._check(logits.detach().numpy()[:count], expected[start:stop])
            with torch.inference_mode(False), torch.enable_grad():
                each = [derivative(logits[:count, label].sum(), leaf, curvature=curvature) for label in labels]
            pairs.append([[self._planes(one)[:count] for one in both] for both in each])
        first, second = (
            np.concatenate([np.stack([both[order] for both in piece], axis=1) for piece in pairs], dtype=np.float32)
            for order in (0, 1)
        )
        return first, second if curvature else None

    def _replayed(self, given: dict[str, NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """The target as a leaf and the logits (n, K) that the head makes of it, recorded."""
        target = self._plan.target
        size = len(given[target])
        with enough_memory(size, "cpu"), torch.inference_mode(False), torch.enable_grad():
            values = {name: torch.tensor(one) for name, one in given.items()}
            leaf = values[target].requires_grad_(True)
            try:
                logits = replay(self._plan.head, values, self._plan.constants, self._plan.logits)
            except UnsupportedOperator as error:
                raise MethodNotApplicable("gradient", f"in the model's head, {error}") from error
            return leaf, logits.reshape(size, -1)

    def _check(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        if not np.abs(found - expected).max() <= SAME * np.abs(expected).max():
            reason = "the model's head, run again for its derivatives, doesn't give the model's own logits"
            raise MethodNotApplicable("gradient", reason)

    def head_scores(self, batch: NDArray[np.float32], activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, K) with other activations (n, Ch, *cells) in the place of the target's own.

        Raises
        ------
        MethodNotApplicable
            When onnxruntime can't load that part of the graph.
        """
        try:
            session = self._once_head_session()
        except ModelLoadError as error:
            raise MethodNotApplicable("the head alone", error.reason) from error
        prefixed = self.card.activations.prefix_tokens > 0
        like = self._captured(batch)[1] if prefixed else np.zeros(0, np.float32)
        given = {self._plan.target: self._laid_out(activations, like)}
        if not self._plan.separable:
            given[self._plan.input] = np.repeat(batch, len(activations), axis=0)
        return self._run_with(session, given, (self._plan.logits,))[0]

    def _blank_batch(self) -> NDArray[np.float32]:
        return np.zeros((1, self.card.input.channels, *self.card.input.grid), dtype=np.float32)

    @property
    def registration(self) -> Registration:
        """Centres of the target's cells on the input, measured on first use and kept."""
        return self._once_registration()

    def _measured_registration(self) -> Registration:
        cells = self.activations(self._blank_batch()).activations.shape[2:]
        return measure(self._fields, cells, self.card.input.grid, self._plan.target)

    def _fields(self, probes: Sequence[Probe]) -> NDArray[np.float64]:
        """By the gradient of the trunk run in torch where every operator is known, else by finite differences."""
        try:
            return np.stack([self._field(probe) for probe in probes])
        except UnsupportedOperator:
            return difference_fields(self._piecewise_activations, self._blank_batch().shape, probes)

    def _piecewise_activations(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        captures, _ = in_pieces(self.activations, batch, self.micro_batch)
        return np.concatenate([one.activations for one in captures])

    def _field(self, probe: Probe) -> NDArray[np.float64]:
        source = np.random.default_rng(probe.seed)
        noise = source.standard_normal(self._blank_batch().shape).astype(np.float32)
        with enough_memory(1, "cpu"), torch.inference_mode(False), torch.enable_grad():
            batch = torch.tensor(_filled(noise, self._plan.fixed_batch or 1), requires_grad=True)
            output = replay(self._plan.trunk, {self._plan.input: batch}, self._plan.constants, self._plan.target)
            planes = to_planes(output, self.card.activations, len(self.card.input.grid), self._plan.target)
            signs = torch.from_numpy(source.choice((-1.0, 1.0), planes.shape[1]).astype(np.float32))
            cell = (planes[0].movedim(0, -1)[probe.cell] * signs).sum()
            (gradient,) = torch.autograd.grad(cell, batch)
        return gradient_field(gradient.numpy()[0])

    def _run(self, batch: NDArray[np.float32], names: Sequence[str]) -> list[NDArray[np.float32]]:
        return self._run_with(self._session, {self._plan.input: batch}, names)

    def _run_with(
        self, session: Session, given: dict[str, NDArray[np.float32]], names: Sequence[str]
    ) -> list[NDArray[np.float32]]:
        """Named tensors for named inputs of one length, in pieces of the size that the graph allows."""
        count = len(next(iter(given.values())))
        size = self._plan.fixed_batch or count
        pieces = []
        with enough_memory(size, self.device):
            for start in range(0, count, size):
                inputs = {name: _filled(one[start : start + size], size) for name, one in given.items()}
                pieces.append(self._checked(session.run(names, inputs), size))
            if len(pieces) == 1 and count == size:
                return pieces[0]
            return [np.concatenate(tensors)[:count] for tensors in zip(*pieces, strict=True)]

    def _checked(self, tensors: list[NDArray[np.float32]], size: int) -> list[NDArray[np.float32]]:
        """The tensors with the logits, which come first, as (size, K)."""
        found, wanted = tensors[0].size / size, len(self.card.labels)
        if found != wanted:
            raise ModelLoadError(self.card.weights, f"the model gives {found:g} scores, the card has {wanted} labels")
        return [tensors[0].reshape(size, -1), *tensors[1:]]


def _filled(piece: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A piece with zeros after it, so that it has the size that the graph wants."""
    if len(piece) == size:
        return np.ascontiguousarray(piece, dtype=np.float32)
    filled = np.zeros((size, *piece.shape[1:]), dtype=np.float32)
    filled[: len(piece)] = piece
    return filled


def open_onnx(card: ModelCard, weights: bytes, device: str = "auto", forward: ForwardOptions = EXACT) -> OnnxClassifier:
    """Prepare checked ONNX bytes for capture and start a session.

    Raises
    ------
    ModelLoadError, UnknownTargetLayer
    """
    if forward.engine not in ("model", "onnxruntime") or forward.precision != "fp32":
        raise ModelLoadError(card.weights, f"engine {forward.engine!r} in {forward.precision} can't run an ONNX model")
    prepared = plan(card, weights)
    return OnnxClassifier(card, prepared, Session(prepared.encoded, device, card.weights))
