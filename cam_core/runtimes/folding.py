"""A module with its batch norms folded into the convolutions before them; knows no cards and no scores."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import fuse_conv_bn_eval

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def folded(module: nn.Module, example: Tensor) -> nn.Module:
    """The same function with fewer steps: ``norm(conv(x))`` is one convolution with scaled weights.

    Only a convolution whose output nothing else reads, and layers that run once in a pass, are folded.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode; its weights are not written to.
    example : Tensor
        Not needed to trace symbolically.

    Raises
    ------
    RuntimeError, TypeError, ValueError, AttributeError
        When the module can't be traced: its steps depend on the values that pass through.
    """
    traced = fx.symbolic_trace(module)
    layers = dict(traced.named_modules(remove_duplicate=False))
    uses = Counter(id(layers[str(node.target)]) for node in traced.graph.nodes if node.op == "call_module")
    for node in list(traced.graph.nodes):
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or not node.op == source.op == "call_module" or len(source.users) > 1:
            continue
        convolution, norm = layers[str(source.target)], layers[str(node.target)]
        if _foldable(convolution, norm) and uses[id(convolution)] == uses[id(norm)] == 1:
            traced.set_submodule(str(source.target), fuse_conv_bn_eval(convolution, norm))
            node.replace_all_uses_with(source)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.requires_grad_(False)


def _foldable(convolution: nn.Module, norm: nn.Module) -> bool:
    """Exact types only: a parametrised layer makes its weights anew in every pass, as one with a hook may."""
    return (
        type(convolution) in CONVOLUTIONS
        and type(norm) in NORMS
        and isinstance(norm.running_mean, torch.Tensor)
        and not (convolution._forward_hooks or convolution._forward_pre_hooks or norm._forward_hooks)
    )
