"""A model small enough for every test, and requests for the pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from node_bench import Pacs
from safetensors.torch import save_file

from cam_core.runtimes.architectures import residual_gap
from dicom_node.config import OutputConfig

OPTIONS = {
    "in_channels": 1,
    "n_labels": 2,
    "stem_channels": 4,
    "channels": [4, 8],
    "blocks": [1, 1],
    "strides": [2, 2],
    "dilations": [1, 1],
    "dropout": 0.0,
}

CARD = """
[model]
name = "tiny"
version = "0.1"
manufacturer = "tests"
description = "Random weights: every score is near one half."
demonstration_only = true
runtime = "torch"
weights = "weights.safetensors"
sha256 = "{digest}"
architecture = "residual-gap"
target_layer = "stages"
license = "Apache-2.0"

[model.architecture_options]
in_channels = 1
n_labels = 2
stem_channels = 4
channels = [4, 8]
blocks = [1, 1]
strides = [2, 2]
dilations = [1, 1]
dropout = 0.0

[input]
rows = 64
columns = 64
channels = 1
fit = "pad"
pad_value = 0.0
normalisation = "per-image"

[[labels]]
name = "Nodule"
code = {{ value = "27925004", scheme = "SCT", meaning = "Nodule" }}
threshold = {threshold}

[[labels]]
name = "Pleural effusion"
code = {{ value = "60046008", scheme = "SCT", meaning = "Pleural effusion" }}
threshold = 1.0

[output]
activation = "sigmoid"

[intended_use]
statement = "Tests only."
modalities = ["CR", "DX"]
body_parts = ["CHEST"]
views = ["PA", "AP"]

[training]
data = "none"
summary = "random"
"""


def write_card(folder: Path, *, threshold: float = 0.001) -> Path:
    """A model package whose first label is always present (or never, with a threshold of 1)."""
    torch.manual_seed(7)
    model = residual_gap.build(OPTIONS)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "weights.safetensors")
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    card = folder / "model.toml"
    card.write_text(CARD.format(digest=digest, threshold=threshold), encoding="utf-8")
    return card


@pytest.fixture(scope="session")
def tiny_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_card(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def quiet_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with thresholds that nothing reaches."""
    return write_card(tmp_path_factory.mktemp("quiet"), threshold=1.0)


@pytest.fixture
def request_for(tmp_path: Path, tiny_card: Path) -> Callable[..., dict[str, Any]]:
    """A job's request as the rows make it."""

    def make(files: Sequence[Path], **changes: Any) -> dict[str, Any]:
        staging = tmp_path / f"staging-{len(list(tmp_path.glob('staging-*')))}"
        staging.mkdir()
        return {
            "task": "answer",
            "job_id": "job-1",
            "study_uid": "1.2.3",
            "route": "chest",
            "created": "2026-03-04T05:06:07+00:00",
            "files": [{"path": str(path), "sop_instance_uid": "x"} for path in files],
            "card": str(tiny_card),
            "methods": ["cam", "grad-cam"],
            "output": asdict(OutputConfig(maximum_side=512)),
            "settings_digest": "s" * 64,
            "source_digest": "d" * 64,
            "staging": str(staging),
            "device": "cpu",
            "node": {"station_name": "TEST", "device_serial_number": "1"},
            **changes,
        }

    return make


@pytest.fixture
def pacs() -> Iterator[Pacs]:
    made = Pacs().start()
    yield made
    made.stop()
