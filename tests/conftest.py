"""What every test folder shares: programs that may be missing, real images, and results built from them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def require_component() -> Callable[[str], str]:
    """Path of a program; without it the test is skipped, or fails where CAMNODE_REQUIRE_COMPONENTS=1."""

    def require(name: str) -> str:
        found = shutil.which(name) or shutil.which(name, path=sysconfig.get_path("scripts"))
        if found is None and os.environ.get("CAMNODE_REQUIRE_COMPONENTS") == "1":
            pytest.fail(f"{name} is not installed and CAMNODE_REQUIRE_COMPONENTS=1")
        if found is None:
            pytest.skip(f"{name} is not installed")
        return found

    return require


@pytest.fixture(scope="session")
def real_image() -> Callable[[str], Path]:
    """Path of a real DICOM file by name: from pydicom-data first, else from pydicom's own test files."""
    import data_store
    from pydicom.data import get_testdata_file

    def find(name: str) -> Path:
        path = Path(data_store.__file__).parent / "data" / name
        return path if path.is_file() else Path(str(get_testdata_file(name, download=False)))

    return find


@pytest.fixture(scope="session")
def results() -> ModuleType:
    """The module `results.py` beside this file: answers and objects made by hand from real images."""
    name = "camnode_test_results"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("results.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
