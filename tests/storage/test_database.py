"""Transactions that last, and a schema that is never taken for another."""

import pytest
from sqlalchemy import select, text, update

from storage import audit, schema
from storage.database import Database, hold_exclusively, make_engine, sqlite_warning
from storage.errors import DatabaseUnavailable, SchemaMismatch


def test_sqlite_waits_for_the_disk(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.reading() as connection:
        pragmas = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar() for name in ("journal_mode", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2}


def test_a_second_opening_keeps_the_rows(database, database_url):
    with database.transaction() as connection:
        audit.append(connection, "node.started", actor="test")
    again = Database(database_url)
    assert [event.event for event in audit.events(again)] == ["node.started"]
    again.close()


def test_another_schema_version_is_refused(database, database_url):
    with database.transaction() as connection:
        connection.execute(update(schema.schema_version).values(version=99))
    with pytest.raises(SchemaMismatch) as refused:
        Database(database_url)
    assert (refused.value.found, refused.value.expected) == (99, schema.SCHEMA_VERSION)


def test_a_failed_transaction_leaves_nothing(database):
    with pytest.raises(RuntimeError), database.transaction() as connection:
        audit.append(connection, "node.started", actor="test")
        raise RuntimeError
    with database.reading() as connection:
        assert connection.execute(select(schema.audit_event.c.seq)).first() is None


def test_an_unreachable_database_says_so(tmp_path):
    with pytest.raises(DatabaseUnavailable):
        Database(f"sqlite:///{tmp_path / 'no' / 'folder' / 'x.db'}")
    with pytest.raises(DatabaseUnavailable):
        Database("postgresql+psycopg://nobody@127.0.0.1:1/none")


def test_an_engine_handed_to_dbos_begins_nothing_itself(tmp_path):
    engine = make_engine(f"sqlite:///{tmp_path / 'x.db'}", driver_begins=True)
    with engine.begin() as connection:
        connection.execute(text("BEGIN IMMEDIATE"))  # would fail inside a transaction
        connection.execute(text("CREATE TABLE t (x)"))
    engine.dispose()


def test_the_sqlite_warning_is_for_sqlite_only(monkeypatch):
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 40, 1))
    assert "3.51.3" in (sqlite_warning("sqlite:///x.db") or "")
    assert sqlite_warning("postgresql+psycopg://x@y/z") is None
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 52, 0))
    assert sqlite_warning("sqlite:///x.db") is None


def test_one_postgresql_database_is_for_one_node(postgresql_database):
    first, second = Database(postgresql_database), Database(postgresql_database)
    claim = hold_exclusively(first)
    assert claim is not None
    assert hold_exclusively(second) is None
    claim.invalidate()
    again = hold_exclusively(second)
    assert again is not None
    again.invalidate()
    first.close()
    second.close()
