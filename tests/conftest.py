"""What every test folder shares: programs that may be missing, real images, and results built from them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
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


def _postgresql_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@pytest.fixture(scope="session")
def postgresql_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of its own on a free loopback port, as an unprivileged account (it refuses root)."""
    programs = _postgresql_programs()
    if programs is None:
        message = "PostgreSQL is not installed (Debian: postgresql)"
        if os.environ.get("CAMNODE_REQUIRE_COMPONENTS") == "1":
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(f"/tmp/camnode-pg-{os.getpid()}")
    folder.mkdir(mode=0o755)
    account = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    if account:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"
    subprocess.run(
        [programs / "initdb", "-D", data, "-U", "camnode", "--auth=trust", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd=folder,
        **account,
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        **account,
    )
    try:
        _wait_for(port)
        yield f"postgresql+psycopg://camnode@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)  # "immediate": nothing in it is kept
        server.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(0.3)
                return
        time.sleep(0.05)
    raise TimeoutError("PostgreSQL did not start")


@pytest.fixture
def postgresql_database(postgresql_url: str) -> str:
    """The URL of an empty database of its own."""
    from sqlalchemy import create_engine, text

    name = f"t{time.time_ns()}"
    engine = create_engine(postgresql_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return postgresql_url.rsplit("/", 1)[0] + f"/{name}"
