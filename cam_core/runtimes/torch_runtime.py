"""A classifier run by torch: weights into a named architecture, one tap on the target layer; knows no methods."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from cam_core.card import ModelCard
from cam_core.classifier import Capability, Capture, Numerics
from cam_core.errors import ModelLoadError, OutOfMemory, UnknownArchitecture, UnknownTargetLayer
from cam_core.extension import load_named, table_with_entry_points
from cam_core.registration import Probe, Registration, gradient_field, measure
from cam_core.runtimes.layout import from_planes, to_planes
from cam_core.runtimes.linear_head import linear_head
from cam_core.runtimes.tap import Tap

ENTRY_POINT_GROUP = "camnode.architectures"

ARCHITECTURES: dict[str, str] = {
    "residual-gap": "cam_core.runtimes.architectures.residual_gap:build",
}
"""Name to ``"module:name"`` of a function from options to a module whose forward gives logits (N, K)."""


class TorchClassifier:
    """A torch module with its card; see `cam_core.classifier.Classifier`.

    Parameters
    ----------
    card : ModelCard
    module : nn.Module
        Stays as it is: its structure is copied, its weights are shared and never written to. It may be in training
        mode, frozen, of lower precision or made under ``inference_mode``.
    device : str

    Raises
    ------
    ModelLoadError
        When the module can't be copied.
    UnknownTargetLayer, UnusableTargetLayer
    """

    def __init__(self, card: ModelCard, module: nn.Module, device: str = "cpu") -> None:
        self.card = card
        self.capabilities = frozenset(Capability)
        self.device = device
        self.runtime = f"torch {torch.__version__}"
        self.numerics = Numerics()
        self.micro_batch = 16
        self._memory = _memory_format(device, len(card.input.grid))
        own = _own(card, module).to(device)
        self._module: nn.Module = own.to(memory_format=self._memory)  # type: ignore[call-overload]
        self._dtype = next((one.dtype for one in self._module.parameters() if one.is_floating_point()), torch.float32)
        name = card.target_layer or ""
        self._tap = Tap(_named_layer(self._module, name), name)
        self._lock = threading.Lock()
        self._registration: Registration | None = None
        self._head: NDArray[np.float32] | None = None
        self._head_known = False

    def module_copy(self) -> nn.Module:
        """The model in evaluation mode without the tap, with weights of its own; for changing them."""
        return copy.deepcopy(self._module, self._tap.removed())

    def _run(self, batch: Tensor, answers: int | None = None) -> Tensor:
        """Logits (N, K), N being the number of inputs unless `answers` says otherwise."""
        try:
            logits = self._module(batch)
        except RuntimeError as error:
            if _out_of_memory(error):
                raise OutOfMemory(len(batch), self.device) from error
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
        return tensor.contiguous(memory_format=self._memory)

    def _planes(self, output: Tensor) -> Tensor:
        return to_planes(output, self.card.activations, len(self.card.input.grid), self.card.target_layer or "")

    def scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, K) of a batch (N, C, *grid)."""
        with _unrecorded():
            return _array(self._run(self._tensor(batch)))

    def perturbed_scores(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As `scores`."""
        return self.scores(batch)

    def activations(self, batch: NDArray[np.float32]) -> Capture:
        """Logits and target activations of a batch, in one pass."""
        with _unrecorded(), self._tap.listening() as heard:
            logits = self._run(self._tensor(batch))
            return Capture(scores=_array(logits), activations=_array(self._planes(heard())))

    def gradients(self, batch: NDArray[np.float32], labels: Sequence[int], *, curvature: bool = False) -> Capture:
        """Logits, target activations and derivatives of the asked logits; only the part after the target is recorded.

        Parameters
        ----------
        batch : (N, C, *grid) float32
        labels : sequence of int
            Output indices.
        curvature : bool
            Whether second derivatives are wanted, too.
        """
        with _unrecorded(), self._tap.listening(differentiable=True) as heard:
            logits = self._run(self._tensor(batch))
            leaf = heard()
            pairs = [_derivative(logits[:, label].sum(), leaf, curvature=curvature) for label in labels]
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
        planes = torch.from_numpy(np.ascontiguousarray(activations, dtype=np.float32)).to(self.device)

        def substitute(output: Tensor) -> Tensor:
            return from_planes(planes, output[:1], self.card.activations)

        with _unrecorded(), self._tap.listening(substitute=substitute):
            try:
                return _array(self._run(self._tensor(batch), len(activations)))
            except ModelLoadError:
                pass  # such a model needs as many inputs as it is given activations
        with _unrecorded(), self._tap.listening(substitute=substitute):
            return _array(self._run(self._tensor(np.repeat(batch, len(activations), axis=0))))

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
        """Derivatives (K, Ch, *cells) of all logits at arbitrary activations (Ch, *cells) of the target layer."""
        planes = torch.from_numpy(activations[None]).to(self.device)

        def substitute(output: Tensor) -> Tensor:
            return from_planes(planes, output, self.card.activations)

        with _unrecorded(), self._tap.listening(differentiable=True, substitute=substitute) as heard:
            logits = self._run(self._tensor(self._blank_batch()))
            found = [_derivative(logit, heard(), curvature=False)[0] for logit in logits[0]]
            return np.stack([_array(self._planes(one))[0] for one in found])

    def _linear_weights(self) -> list[NDArray[np.float32]]:
        return [
            _array(weight)
            for name, weight in self._module.named_parameters()
            if name.endswith("weight") and weight.ndim == 2
        ]

    def _blank_batch(self) -> NDArray[np.float32]:
        return np.zeros((1, self.card.input.channels, *self.card.input.grid), dtype=np.float32)

    def _activation_shape(self) -> tuple[int, ...]:
        return self.activations(self._blank_batch()).activations.shape[1:]

    @property
    def registration(self) -> Registration:
        """Centres of the target's cells on the input, measured by input gradients on first use and kept."""
        with self._lock:
            if self._registration is None:
                self._registration = measure(self._fields, self._activation_shape()[1:], self.card.input.grid)
            return self._registration

    def _fields(self, probes: Sequence[Probe]) -> NDArray[np.float64]:
        return np.stack([self._field(probe) for probe in probes])

    def _field(self, probe: Probe) -> NDArray[np.float64]:
        """Field of one cell's squared gradient, its channels mixed with random signs, on a random input."""
        source = np.random.default_rng(probe.seed)
        noise = source.standard_normal(self._blank_batch().shape).astype(np.float32)
        with torch.inference_mode(False), torch.enable_grad(), self._tap.listening() as heard:
            batch = self._tensor(noise).requires_grad_(True)
            self._run(batch)
            output = self._planes(heard())
            signs = torch.from_numpy(source.choice((-1.0, 1.0), output.shape[1])).to(output)
            cell = (output[0].movedim(0, -1)[probe.cell] * signs).sum()
            (gradient,) = torch.autograd.grad(cell, batch)
        return gradient_field(_array(gradient)[0])


@contextmanager
def _unrecorded() -> Iterator[None]:
    """Nothing is recorded but what a tap asks for, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _own(card: ModelCard, module: nn.Module) -> nn.Module:
    """The module's structure copied, its weights shared but frozen, in evaluation mode."""
    with torch.inference_mode(False):
        shared: dict[int, object] = {
            id(one): nn.Parameter(_plain(one), requires_grad=False) for one in module.parameters()
        }
        shared |= {id(one): _plain(one) for one in module.buffers()}
        try:
            own = copy.deepcopy(module, shared)
        except (RuntimeError, TypeError) as error:
            raise ModelLoadError(card.weights, f"the module can't be copied: {error}") from error
    return own.eval()


def _plain(tensor: Tensor) -> Tensor:
    """The same storage without its history; a copy where autograd couldn't use it."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _memory_format(device: str, axes: int) -> torch.memory_format:
    """Channels last on the CPU: a third less time for its convolutions, and as repeatable."""
    if device != "cpu":
        return torch.contiguous_format
    return torch.channels_last if axes == 2 else torch.channels_last_3d


def _out_of_memory(error: RuntimeError) -> bool:
    words = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in words or "allocate memory" in words


def _derivative(scalar: Tensor, leaf: Tensor, *, curvature: bool) -> tuple[Tensor, Tensor]:
    """Gradient of a scalar and, if asked, its derivative along the leaf itself: Hessian times leaf."""
    (first,) = torch.autograd.grad(
        scalar, leaf, retain_graph=True, create_graph=curvature, allow_unused=True, materialize_grads=True
    )
    if not curvature or not first.requires_grad:
        return first, torch.zeros_like(leaf)
    (second,) = torch.autograd.grad(
        (first * leaf.detach()).sum(), leaf, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return first, second


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
