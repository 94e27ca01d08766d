"""A classifier run by torch: weights into a named architecture, one tap on the target layer; knows no methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from cam_core.card import ModelCard
from cam_core.classifier import EXACT, Capability, Capture, Classifier, ForwardOptions, Numerics
from cam_core.errors import MethodNotApplicable, ModelLoadError, OutOfMemory, UnknownArchitecture, UnusableTargetLayer
from cam_core.extension import load_named, table_with_entry_points
from cam_core.passes import in_pieces
from cam_core.registration import Probe, Registration, gradient_field, measure
from cam_core.runtimes.derivative import derivative
from cam_core.runtimes.device import opened_device
from cam_core.runtimes.dropout import DropoutTap
from cam_core.runtimes.engines import PRECISIONS, Pass, deviation, open_engine
from cam_core.runtimes.finite_differences import difference_fields
from cam_core.runtimes.independence import independent
from cam_core.runtimes.layout import from_planes, to_planes
from cam_core.runtimes.linear_head import linear_head
from cam_core.runtimes.memory import (
    FAULTS,
    Footprint,
    enough_memory,
    footprint,
    head_batch,
    micro_batch,
    out_of_memory,
)
from cam_core.runtimes.once import Once
from cam_core.runtimes.private_copy import arranged, memory_format, private_copy
from cam_core.runtimes.tap import Tap, named_layer

ENTRY_POINT_GROUP = "camnode.architectures"

ARCHITECTURES: dict[str, str] = {
    "residual-gap": "cam_core.runtimes.architectures.residual_gap:build",
}
"""Name to ``"module:name"`` of a function from options to a module whose forward gives logits (N, K)."""

SAME = 1e-4
"""Relative difference of logits that two ways to the same answer may have."""


class TorchClassifier:
    """A torch module with its card; see `cam_core.classifier.Classifier`.

    Parameters
    ----------
    card : ModelCard
    module : nn.Module
        Stays as it is: its structure and buffers are copied, its weights are never written to (and shared, but for
        those that are laid out anew). It may be in training mode, frozen, of lower precision or made under
        ``inference_mode``. Its hooks are part of the model, as they may change what passes through, and are called in
        the copy's passes, too: take off those that only listen.
    device : str
    forward : ForwardOptions
        How `perturbed_scores` computes.

    Raises
    ------
    ModelLoadError
        When the module can't be copied, or there is no such engine for it.
    UnknownTargetLayer
    """

    def __init__(
        self, card: ModelCard, module: nn.Module, device: str = "cpu", forward: ForwardOptions = EXACT
    ) -> None:
        self.card = card
        self.members: tuple[Classifier, ...] = ()
        self.capabilities = frozenset(Capability)
        self.device = device
        self.runtime = f"torch {torch.__version__}"
        self._memory = memory_format(device, len(card.input.grid))
        try:
            self._module = arranged(private_copy(module).to(device), self._memory)
        except (RuntimeError, TypeError) as error:
            raise ModelLoadError(card.weights, f"the module can't be copied: {error}") from error
        self._dtype = next((one.dtype for one in self._module.parameters() if one.is_floating_point()), torch.float32)
        name = card.target_layer or ""
        self._tap = Tap(named_layer(self._module, name), name)
        self._once_registration = Once(self._measured_registration)
        self._once_head = Once(self._found_head)
        self._once_bytes = Once(lambda: footprint(lambda: self.scores(self._blank_batch())))
        self._once_independent = Once(lambda: independent(self.scores, self._blank_batch().shape[1:], self._dtype))
        self._once_micro_batch = Once(self._fitting_micro_batch)
        self._once_head_batch = Once(self._fitting_head_batch)
        self._once_trunk_alone = Once(self._trunk_alone)
        self._once_dropout = Once(self._tapped_dropout)
        self._engine: Pass = self._module
        self.numerics = Numerics(precision=PRECISIONS.get(self._dtype, str(self._dtype)))
        if forward != EXACT:
            self._engine, self.numerics = self._opened_engine(forward)

    def _opened_engine(self, forward: ForwardOptions) -> tuple[Pass, Numerics]:
        shape = self._blank_batch().shape[1:]
        example = self._tensor(np.zeros((2, *shape), np.float32))
        with self._pass(2):
            run = open_engine(self.card, self._untapped(), example, forward)
        off = deviation(self.scores, lambda batch: self._scored(run, batch), shape)
        if not np.isfinite(off):
            raise ModelLoadError(self.card.weights, f"{forward.engine} in {forward.precision} gives no finite logits")
        precision = self.numerics.precision if forward.precision == "fp32" else forward.precision
        return run, Numerics(engine=forward.engine, precision=precision, deviation=off)

    def module_copy(self) -> nn.Module:
        """The model in evaluation mode without the tap, with weights of its own; for changing them."""
        own = self._untapped()
        for one in (*own.parameters(), *own.buffers()):
            one.data = one.data.clone()
        return own

    def _untapped(self) -> nn.Module:
        """The model without the tap, with the same weights."""
        return private_copy(self._module, self._tap.removed())

    @contextmanager
    def _pass(self, inputs: int) -> Iterator[None]:
        """Nothing is recorded but what a tap asks for, whatever mode the caller is in."""
        kind = self.device.partition(":")[0]
        with (
            enough_memory(inputs, self.device),
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
        ):
            yield

    def _run(self, batch: Tensor, answers: int | None = None, run: Pass | None = None) -> Tensor:
        """Logits (N, K), N being the number of inputs unless `answers` says otherwise."""
        try:
            logits = (run or self._module)(batch)
        except FAULTS as error:
            if out_of_memory(error):
                raise
            raise ModelLoadError(self.card.weights, f"the model can't be run: {error}") from error
        wanted = (len(batch) if answers is None else answers, len(self.card.labels))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ModelLoadError(
                self.card.weights,
                f"the model gives {found} for {wanted[0]} input(s), the card has {wanted[1]} labels",
            )
        return logits

    def _tensor(self, batch: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(self.device, self._dtype)
        return self._arranged(tensor)

    def _arranged(self, tensor: Tensor) -> Tensor:
        """In the memory format that the model's own planes have, so that the same numbers give the same bits."""
        fits = tensor.ndim == len(self.card.input.grid) + 2
        return tensor.contiguous(memory_format=self._memory) if fits else tensor

    def _planes(self, output: Tensor) -> Tensor:
        return to_planes(output, self.card.activations, len(self.card.input.grid), self.card.target_layer or "")

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, *grid)."""
        return self._scored(self._module, batch)

    def perturbed_scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`, by the engine that `numerics` names."""
        return self._scored(self._engine, batch)

    def _scored(self, run: Pass, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._pass(len(batch)):
            return _array(self._run(self._tensor(batch), run=run))

    def sampled_scores(self, batch: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """Logits (N, K) with the model's dropout layers dropping, each input on its own; see `DropoutTap`.

        Raises
        ------
        MethodNotApplicable
            When the model has no dropout layer, or none that drops anything.
        """
        module, dropout = self._once_dropout()
        if not dropout.layers:
            raise MethodNotApplicable("Monte Carlo dropout", "the model has no dropout layer that drops anything")
        with self._pass(len(batch)), dropout.dropping(seed):
            return _array(self._run(self._tensor(batch), run=module))

    def _tapped_dropout(self) -> tuple[nn.Module, DropoutTap]:
        module = self._untapped()
        return module, DropoutTap(module)

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch, in one pass."""
        with self._pass(len(batch)), self._tap.listening() as heard:
            logits = self._run(self._tensor(batch))
            return Capture(scores=_array(logits), activations=_array(self._planes(heard())))

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int], *, curvature: bool = False) -> Capture:
        """Logits, target activations and derivatives of the asked logits; only the part after the target is recorded.

        What leads there isn't: the private copy's weights are frozen.

        Parameters
        ----------
        batch : (N, C, *grid) float32
        labels : sequence of int
            Output indices.
        curvature : bool
            Whether second derivatives are wanted, too.

        Raises
        ------
        MethodNotApplicable
            When the model runs and its part after the target can't be differentiated.
        """
        try:
            return self._differentiated(batch, labels, curvature=curvature)
        except ModelLoadError as error:
            self.scores(batch)  # a model that can't be run at all says so itself
            raise MethodNotApplicable("gradient", f"while it is differentiated, {error.reason}") from error

    def _differentiated(self, batch: NDArray[np.float32], labels: Sequence[int], *, curvature: bool) -> Capture:
        # recording all along, so that a part of the model that runs under ``no_grad`` doesn't end it on its way out
        with self._pass(len(batch)), torch.enable_grad(), self._tap.listening(differentiable=True) as heard:
            logits = self._run(self._tensor(batch))
            leaf = heard()
            pairs = [derivative(logits[:, label].sum(), leaf, curvature=curvature) for label in labels]
            return Capture(
                scores=_array(logits),
                activations=_array(self._planes(leaf)),
                gradients=np.stack([_array(self._planes(first)) for first, _ in pairs], axis=1),
                curvatures=np.stack([_array(self._planes(second)) for _, second in pairs], axis=1)
                if curvature
                else None,
            )

    def head_scores(self, batch: NDArray[np.float32], activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (n, K) with other activations (n, Ch, *cells) in the place of the target's own.

        The part before the target runs once, on the one input; where the model's way around the target doesn't allow
        that, it runs once for each.
        """
        if len(activations) == 1 or self._once_trunk_alone():
            return self._substituted(batch, activations)
        return self._substituted(np.repeat(batch, len(activations), axis=0), activations)

    def _substituted(self, batch: NDArray[np.float32], activations: NDArray[np.float32]) -> NDArray[np.float32]:
        with self._pass(len(activations)), self._tap.listening(substitute=self._replacing(activations)):
            return _array(self._run(self._tensor(batch), len(activations)))

    def _replacing(self, activations: NDArray[np.float32]) -> Callable[[Tensor], Tensor]:
        planes = torch.from_numpy(np.ascontiguousarray(activations, dtype=np.float32)).to(self.device)

        def replaced(output: Tensor) -> Tensor:
            laid = from_planes(planes, output[:1], self.card.activations)
            return self._arranged(laid) if output.is_contiguous(memory_format=self._memory) else laid.contiguous()

        return replaced

    def _trunk_alone(self) -> bool:
        """Whether one input gives the same logits for three activations as three of it do."""
        shape = self._activation_shape()
        source = np.random.default_rng(0)
        planes = source.standard_normal((3, *shape)).astype(np.float32)
        batch = source.standard_normal(self._blank_batch().shape).astype(np.float32)
        try:
            sure = self._substituted(np.repeat(batch, 3, axis=0), planes)
            found = self._substituted(batch, planes)
        except (ModelLoadError, OutOfMemory):
            return False
        return bool(np.abs(found - sure).max() <= SAME * np.abs(sure).max())

    def head_weights(self) -> NDArray[np.float32] | None:
        """Weights (K, Ch) of a global-average-pooling and linear head, else None; found once and kept."""
        return self._once_head()

    def _found_head(self) -> NDArray[np.float32] | None:
        matrices = [
            _array(weight)
            for name, weight in self._module.named_parameters()
            if name.endswith("weight") and weight.ndim == 2
        ]
        try:
            return linear_head(self._head_derivatives, self._activation_shape(), len(self.card.labels), matrices)
        except (MethodNotApplicable, ModelLoadError):  # it can't be differentiated
            return None

    def _head_derivatives(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Derivatives (K, Ch, *cells) of all logits at arbitrary activations (Ch, *cells) of the target layer."""
        replacing = self._replacing(activations[None])
        taps = self._tap.listening(differentiable=True, substitute=replacing)
        with self._pass(1), torch.enable_grad(), taps as heard:
            logits = self._run(self._tensor(self._blank_batch()))
            found = [derivative(logit, heard(), curvature=False)[0] for logit in logits[0]]
            return np.stack([_array(self._planes(one))[0] for one in found])

    def _blank_batch(self) -> NDArray[np.float32]:
        return np.zeros((1, self.card.input.channels, *self.card.input.grid), dtype=np.float32)

    def _activation_shape(self) -> tuple[int, ...]:
        return self.activations(self._blank_batch()).activations.shape[1:]

    @property
    def micro_batch(self) -> int:
        """Inputs for one pass, from the memory that was free when first asked; see `Classifier.micro_batch`."""
        return self._once_micro_batch()

    def _fitting_micro_batch(self) -> int:
        fitting = micro_batch(self._once_bytes(), self.device)
        return fitting if fitting == 1 or self._once_independent() else 1

    @property
    def head_batch(self) -> int:
        """Activations for one head pass, as many as take no more memory than a pass of the micro-batch."""
        return self._once_head_batch()

    def _fitting_head_batch(self) -> int:
        if not self._once_independent():
            return 1
        if not self._once_trunk_alone():
            return self.micro_batch
        planes = np.zeros((1, *self._activation_shape()), np.float32)
        replaced, seen = self._replacing(planes), Footprint()

        def restarted(output: Tensor) -> Tensor:
            seen.restart()
            return replaced(output)

        with self._pass(1), seen, self._tap.listening(substitute=restarted):
            self._run(self._tensor(self._blank_batch()))
        return head_batch(self.micro_batch, self._once_bytes(), seen.peak + planes.nbytes)

    @property
    def registration(self) -> Registration:
        """Centres of the target's cells on the input, measured by input gradients on first use and kept."""
        return self._once_registration()

    def _measured_registration(self) -> Registration:
        return measure(self._fields, self._activation_shape()[1:], self.card.input.grid, self.card.target_layer or "")

    def _fields(self, probes: Sequence[Probe]) -> NDArray[np.float64]:
        """By the gradient of the part up to the target, or by finite differences where it can't be differentiated."""
        try:
            return np.stack([self._field(probe) for probe in probes])
        except (MethodNotApplicable, UnusableTargetLayer):
            return difference_fields(self._piecewise_activations, self._blank_batch().shape, probes)

    def _piecewise_activations(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        captures, _ = in_pieces(self.activations, batch, self.micro_batch)
        return np.concatenate([one.activations for one in captures])

    def _field(self, probe: Probe) -> NDArray[np.float64]:
        """Field of one cell's squared gradient, its channels mixed with random signs, on a random input."""
        source = np.random.default_rng(probe.seed)
        noise = source.standard_normal(self._blank_batch().shape).astype(np.float32)
        with self._pass(1), torch.enable_grad(), self._tap.listening() as heard:
            batch = self._tensor(noise).requires_grad_(True)
            with suppress(ModelLoadError):  # what follows the target needn't be differentiable
                self._run(batch)
            output = self._planes(heard())
            signs = torch.from_numpy(source.choice((-1.0, 1.0), output.shape[1])).to(output)
            cell = (output[0].movedim(0, -1)[probe.cell] * signs).sum()
            gradient, _ = derivative(cell, batch, curvature=False)
        return gradient_field(_array(gradient)[0])


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy(), dtype=np.float32)


def open_torch(
    card: ModelCard, weights: bytes, device: str = "auto", forward: ForwardOptions = EXACT
) -> TorchClassifier:
    """Build the card's architecture and load checked weights into it, strictly.

    Raises
    ------
    UnknownArchitecture, UnknownTargetLayer, DuplicateName
    ModelLoadError
        When the options don't fit the architecture, the weights don't fit the module, or the device isn't there.
    """
    table = table_with_entry_points("architecture", ARCHITECTURES, ENTRY_POINT_GROUP)
    if card.architecture not in table:
        raise UnknownArchitecture(card.architecture or "", tuple(sorted(table)))
    build = load_named(table[card.architecture])
    if not callable(build):
        raise UnknownArchitecture(card.architecture, tuple(sorted(table)))
    try:
        module: nn.Module = build(dict(card.architecture_options))
        module.load_state_dict(load_safetensors(weights), strict=True)
    except (RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise ModelLoadError(card.weights, f"can't be loaded into {card.architecture!r}: {error}") from error
    return TorchClassifier(card, module, opened_device(card, device), forward)
