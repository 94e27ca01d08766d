"""Every storage test runs on every database: SQLite, and PostgreSQL where its programs are installed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import Database
from storage.spool import Spool


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'camnode.db'}"
    return str(request.getfixturevalue("postgresql_database"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")
