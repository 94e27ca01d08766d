"""Programs from outside Python: a test that needs one is skipped without it, or fails where it is required."""

import os
import shutil
from collections.abc import Callable

import pytest


@pytest.fixture
def program() -> Callable[[str], str]:
    """Gives the path of a program. Missing: skips, or fails when CAMNODE_REQUIRE_COMPONENTS=1."""

    def _program(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            if os.environ.get("CAMNODE_REQUIRE_COMPONENTS") == "1":
                pytest.fail(f"{name} is not installed, but CAMNODE_REQUIRE_COMPONENTS=1")
            pytest.skip(f"{name} is not installed")
        return path

    return _program
