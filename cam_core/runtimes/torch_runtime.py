"""A classifier run by torch: weights into a named architecture, one tap on the target layer; knows no methods.

The tap acts on the calling thread only, so any number of threads may share a model. It takes the target layer's output
as the layer gave it and hands a copy on: what follows may change it in place without harm.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from cam_core.card import ModelCard
from cam_core.classifier import Capability, Capture
from cam_core.errors import ModelLoadError, UnknownArchitecture, UnknownTargetLayer
from cam_core.extension import load_named, table_with_entry_points
from cam_core.registration import Probe, Registration, gradient_field, measure
from cam_core.runtimes.linear_head import linear_head

ENTRY_POINT_GROUP = "camnode.architectures"

ARCHITECTURES: dict[str, str] = {
    "residual-gap": "cam_core.runtimes.architectures.residual_gap:build",
}
"""Name to ``"module:name"`` of a function from options to a module whose forward gives logits (N, K)."""


class _Tap(threading.local):
    """What the target layer's hook has to do for the calling thread."""

    def __init__(self) -> None:
        self.listening = False
        self.differentiable = False
        self.replacement: Tensor | None = None
        self.output: Tensor | None = None


class TorchClassifier:
    """A torch module with its card; see `cam_core.classifier.Classifier`.

    Parameters
    ----------
    card : ModelCard
    module : nn.Module
        Taken over: put in evaluation mode, its parameters frozen. Give a copy to keep yours as it is.
    device : str
    """

    def __init__(self, card: ModelCard, module: nn.Module, device: str = "cpu") -> None:
        self.card = card
        self.capabilities = frozenset(Capability)
        self.device = device
        self.runtime = f"torch {torch.__version__}"
        # channels last: a third less time for the CPU's convolutions, and as repeatable
        self._memory = torch.channels_last if device == "cpu" else torch.contiguous_format
        placed: nn.Module = module.to(device).to(memory_format=self._memory)  # type: ignore[call-overload]
        self._module = placed.eval().requires_grad_(False)
        self._tap = _Tap()
        self._lock = threading.Lock()
        self._registration: Registration | None = None
        self._head: NDArray[np.float32] | None = None
        self._head_known = False
        _named_layer(self._module, card.target_layer or "").register_forward_hook(self._listen)

    def _listen(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        """Forward hook: keep the layer's output for the calling thread and go on with a copy of it."""
        tap = self._tap
        if not tap.listening:
            return None
        if tap.output is not None:
            raise ModelLoadError(self.card.weights, f"target layer {self.card.target_layer!r} runs more than once")
        if tap.differentiable:
            torch.set_grad_enabled(True)
            source = output if tap.replacement is None else tap.replacement
            tap.output = source.detach().clone().requires_grad_(True)
            return tap.output * 1
        tap.output = output if output.requires_grad else output.clone()
        return output.clone() if output.requires_grad else None

    @contextmanager
    def _tapped(self, *, differentiable: bool = False, replacement: Tensor | None = None) -> Iterator[_Tap]:
        tap = self._tap
        tap.listening, tap.differentiable, tap.replacement, tap.output = True, differentiable, replacement, None
        try:
            yield tap
        finally:
            tap.listening, tap.differentiable, tap.replacement, tap.output = False, False, None, None

    def _run(self, batch: Tensor) -> Tensor:
        try:
            logits: Tensor = self._module(batch)
        except RuntimeError as error:
            raise ModelLoadError(self.card.weights, f"the model can't be run: {error}") from error
        if logits.ndim != 2 or logits.shape[1] != len(self.card.labels):
            raise ModelLoadError(
                self.card.weights, f"the model gives {tuple(logits.shape)}, the card has {len(self.card.labels)} labels"
            )
        return logits

    def _tensor(self, batch: NDArray[np.float32]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(self.device)
        return tensor.contiguous(memory_format=self._memory) if tensor.ndim == 4 else tensor

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, H, W)."""
        with torch.inference_mode(False), torch.no_grad():
            return _array(self._run(self._tensor(batch)))

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch, in one pass."""
        with torch.inference_mode(False), torch.no_grad(), self._tapped() as tap:
            logits = self._run(self._tensor(batch))
            return Capture(scores=_array(logits), activations=_array(_heard(tap)))

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int]) -> Capture:
        """Logits, target activations and derivatives of the asked logits; only the part after the target is recorded.

        Parameters
        ----------
        batch : (N, C, H, W) float32
        labels : sequence of int
            Output indices.
        """
        with torch.inference_mode(False), torch.no_grad(), self._tapped(differentiable=True) as tap:
            logits = self._run(self._tensor(batch))
            leaf = _heard(tap)
            found = _derivatives(logits, leaf, labels)
            return Capture(scores=_array(logits), activations=_array(leaf), gradients=found)

    def head_weights(self) -> NDArray[np.float32] | None:
        """Weights (K, Ch) of a global-average-pooling and linear head, else None; found once and kept."""
        with self._lock:
            if not self._head_known:
                self._head = linear_head(
                    self._head_derivatives, self._activation_shape(), len(self.card.labels), self._linear_weights()
                )
                self._head_known = True
            return self._head

    def _head_derivatives(self, activations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Derivatives (K, Ch, h, w) of all logits at arbitrary activations (Ch, h, w) of the target layer."""
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            self._tapped(differentiable=True, replacement=self._tensor(activations[None])) as tap,
        ):
            logits = self._run(self._tensor(self._blank_batch()))
            found: NDArray[np.float32] = _derivatives(logits, _heard(tap), range(len(self.card.labels)))[0]
            return found

    def _linear_weights(self) -> list[NDArray[np.float32]]:
        return [
            _array(weight)
            for name, weight in self._module.named_parameters()
            if name.endswith("weight") and weight.ndim == 2
        ]

    def _blank_batch(self) -> NDArray[np.float32]:
        size = self.card.input
        return np.zeros((1, size.channels, size.rows, size.columns), dtype=np.float32)

    def _activation_shape(self) -> tuple[int, int, int]:
        channels, rows, columns = self.activations(self._blank_batch()).activations.shape[1:]
        return channels, rows, columns

    @property
    def registration(self) -> Registration:
        """Centres of the target's cells on the input, measured by input gradients on first use and kept."""
        with self._lock:
            if self._registration is None:
                cells = self._activation_shape()[1:]
                self._registration = measure(self._fields, cells, (self.card.input.rows, self.card.input.columns))
            return self._registration

    def _fields(self, probes: Sequence[Probe]) -> NDArray[np.float64]:
        return np.stack([self._field(probe) for probe in probes])

    def _field(self, probe: Probe) -> NDArray[np.float64]:
        """Field of one cell's squared gradient, its channels mixed with random signs, on a random input."""
        source = np.random.default_rng(probe.seed)
        noise = source.standard_normal(self._blank_batch().shape).astype(np.float32)
        with torch.inference_mode(False), torch.enable_grad(), self._tapped() as tap:
            batch = self._tensor(noise).requires_grad_(True)
            self._run(batch)
            output = _heard(tap)
            signs = self._tensor(source.choice((-1.0, 1.0), output.shape[1]).astype(np.float32))
            cell = (output[0, :, probe.cell[0], probe.cell[1]] * signs).sum()
            (gradient,) = torch.autograd.grad(cell, batch)
        return gradient_field(_array(gradient)[0])


def _heard(tap: _Tap) -> Tensor:
    if tap.output is None:
        raise UnknownTargetLayer("the target layer does not take part in the forward pass", ())
    if tap.output.ndim != 4:
        raise UnknownTargetLayer(f"the target layer gives {tap.output.ndim} dimensions, not 4", ())
    return tap.output


def _derivatives(logits: Tensor, leaf: Tensor, labels: Sequence[int]) -> NDArray[np.float32]:
    """Derivatives (N, L, Ch, h, w) of logits (N, K) with respect to the leaf (N, Ch, h, w)."""
    found = [
        torch.autograd.grad(logits[:, label].sum(), leaf, retain_graph=True, allow_unused=True)[0] for label in labels
    ]
    return np.stack([np.zeros(leaf.shape, np.float32) if one is None else _array(one) for one in found], axis=1)


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy(), dtype=np.float32)


def _named_layer(module: nn.Module, name: str) -> nn.Module:
    layers: dict[str, nn.Module] = dict(module.named_modules())
    if not name or name not in layers:
        raise UnknownTargetLayer(name, tuple(layer for layer in layers if layer))
    return layers[name]


def open_torch(card: ModelCard, weights: bytes, device: str = "auto") -> TorchClassifier:
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
    chosen = _device(card, device)
    if chosen.startswith("cuda"):
        _use_exact_arithmetic()
    return TorchClassifier(card, module, chosen)


def _use_exact_arithmetic() -> None:
    """Keep CUDA convolutions in full single precision and repeatable, so that maps don't depend on the device."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def _device(card: ModelCard, asked: str) -> str:
    if asked == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise ModelLoadError(card.weights, f"device {asked!r} was asked for, there is no CUDA device")
    return asked
