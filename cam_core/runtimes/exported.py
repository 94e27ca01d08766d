"""A torch module exported to ONNX once and run by onnxruntime; knows no cards and no scores."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cam_core.runtimes.onnx_session import Session

OPSET = 17

_exporting = threading.Lock()
"""torch's exporter keeps state of its own."""


def exported(module: nn.Module, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The module's passes through onnxruntime, with any number of inputs.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, single precision.
    example : (2, C, *grid) Tensor

    Raises
    ------
    TypeError
        When the module isn't of single precision.
    RuntimeError, ModelLoadError
        When it can't be exported or loaded.
    """
    if example.dtype is not torch.float32:
        raise TypeError(f"it is run in float32 only, not in {str(example.dtype).removeprefix('torch.')}")
    buffer: Any = io.BytesIO()  # which is taken, though its annotation says paths only
    with _exporting, torch.no_grad():
        torch.onnx.export(
            module,
            (example.contiguous(),),
            buffer,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "n"}, "logits": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
    session = Session(buffer.getvalue(), str(example.device), Path("exported"))

    def run(batch: Tensor) -> Tensor:
        given = np.ascontiguousarray(batch.to("cpu", torch.float32).numpy())
        (logits,) = session.run(("logits",), {"input": given})
        return torch.from_numpy(logits)

    return run
