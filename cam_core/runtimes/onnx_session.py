"""One onnxruntime session: where it runs, how its errors are told, and its arena; knows no graphs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from cam_core.errors import ModelLoadError, OutOfMemory
from cam_core.runtimes.memory import out_of_memory

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
RUN_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.RuntimeException,
    ort_errors.NotImplemented,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.EPFail,
    RuntimeError,
    MemoryError,
)


class Session:
    """A graph made ready to run.

    Parameters
    ----------
    encoded : bytes
        The ONNX model.
    device : str
        ``auto``, ``cpu`` or ``cuda:N``.
    path : Path
        Of the model's weights, for messages.

    Raises
    ------
    ModelLoadError
        When onnxruntime can't load it or has no such device.
    OutOfMemory
    """

    def __init__(self, encoded: bytes, device: str, path: Path) -> None:
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(encoded, _options(), providers=_providers(device, path))
        except RUN_ERRORS as error:
            if out_of_memory(error):
                raise OutOfMemory(0, device) from error
            raise ModelLoadError(path, f"onnxruntime can't load it: {error}") from error
        self.device = self._found_device()

    def _found_device(self) -> str:
        """Where it really runs: onnxruntime falls back to the CPU by itself."""
        if self._session.get_providers()[0] != CUDA:
            return "cpu"
        return f"cuda:{self._session.get_provider_options()[CUDA].get('device_id', '0')}"

    def run(self, names: Sequence[str], inputs: dict[str, NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Named tensors for named inputs, as float32.

        Raises
        ------
        ModelLoadError
            When the model can't be run on them.
        OutOfMemory
        """
        try:
            tensors = self._session.run(list(names), inputs)
        except RUN_ERRORS as error:
            if out_of_memory(error):
                raise OutOfMemory(max(len(one) for one in inputs.values()), self.device) from error
            raise ModelLoadError(self._path, f"the model can't be run: {error}") from error
        return [np.asarray(tensor, dtype=np.float32) for tensor in tensors]


def _options() -> onnxruntime.SessionOptions:
    """Repeatable. The arena keeps what its largest pass needed: giving it back after each costs 6 % of the time."""
    options = onnxruntime.SessionOptions()
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()  # one setting for both runtimes
    return options


def _providers(device: str, path: Path) -> list[str | tuple[str, dict[str, str]]]:
    there = onnxruntime.get_available_providers()
    if device.startswith("cuda") and CUDA not in there:
        raise ModelLoadError(path, f"device {device!r} was asked for, onnxruntime has no CUDA here")
    providers: list[str | tuple[str, dict[str, str]]] = [CPU]
    if CUDA in there and device != "cpu":
        number = device.partition(":")[2] or "0"
        providers.insert(0, (CUDA, {"device_id": number, "use_tf32": "0"}))
    return providers
