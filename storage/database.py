"""The engine, its transactions and pragmas: the only place that knows the dialect. Knows no table's meaning."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, inspect, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from storage import schema
from storage.errors import DatabaseUnavailable, SchemaMismatch

#: SQLite before 3.51.3 can corrupt a WAL database that two connections write and checkpoint at the same moment
#: (https://sqlite.org/wal.html, "the WAL-reset bug"); `camnode check` reports it.
SQLITE_WITHOUT_WAL_RESET_BUG = (3, 51, 3)
_AUDIT_LOCK = 0x63616D61  # PostgreSQL advisory lock: one writer at the chain's end
_NODE_LOCK = 0x63616D6E  # held by the node that works on this database
_READ_ONLY = "camnode_read_only"

_SQLITE_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "recursive_triggers=ON",  # else REPLACE would get past the audit trail's triggers
    "busy_timeout=30000",
)
_SQLITE_TRIGGERS = (
    "CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit_event "
    "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit_event "
    "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END",
    "CREATE TRIGGER IF NOT EXISTS audit_in_order BEFORE INSERT ON audit_event "
    "WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_event) "
    "BEGIN SELECT RAISE(ABORT, 'audit events are appended in order'); END",
)
_POSTGRESQL_TRIGGERS = (
    "CREATE OR REPLACE FUNCTION audit_append_only() RETURNS trigger AS $$ BEGIN "
    "IF TG_OP = 'INSERT' AND NEW.seq = (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_event) THEN RETURN NEW; END IF; "
    "RAISE EXCEPTION 'the audit trail is append-only'; END $$ LANGUAGE plpgsql",
    "CREATE OR REPLACE TRIGGER audit_rows BEFORE INSERT OR UPDATE OR DELETE ON audit_event "
    "FOR EACH ROW EXECUTE FUNCTION audit_append_only()",
    "CREATE OR REPLACE TRIGGER audit_table BEFORE TRUNCATE ON audit_event "
    "FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()",
)


def make_engine(url: str, *, driver_begins: bool = False) -> Engine:
    """An engine that loses no committed transaction: SQLite in WAL with synchronous=FULL, PostgreSQL as it is.

    An error's text never holds the values of a statement: they may be a patient's. `driver_begins` leaves the beginning
    of SQLite's transactions to the driver, as DBOS expects of an engine handed in.
    """
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=8, max_overflow=24, hide_parameters=True)
    arguments = {"timeout": 30, "check_same_thread": False}
    engine = create_engine(url, connect_args=arguments, pool_size=16, max_overflow=64, hide_parameters=True)
    event.listen(engine, "connect", _sqlite_pragmas)
    if driver_begins:
        event.listen(engine, "connect", _driver_begins)
    else:
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def _driver_begins(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = "IMMEDIATE"


def _sqlite_pragmas(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions are begun by us (see _sqlite_begin), not by the driver
    for pragma in _SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: Connection) -> None:
    """A writer takes the write lock at once: upgrading a read transaction later would fail with SQLITE_BUSY."""
    read_only = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


class Database:
    """The rows of one node.

    Parameters
    ----------
    url : str
        ``sqlite:///<path>`` or ``postgresql+psycopg://<user>@<host>/<database>``.

    Raises
    ------
    DatabaseUnavailable, SchemaMismatch
    """

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self.dialect = self.engine.dialect.name
        with _translated():
            self._create_or_verify()

    def _create_or_verify(self) -> None:
        with self.engine.begin() as connection:
            if inspect(connection).has_table("schema_version"):
                found = connection.execute(select(schema.schema_version.c.version)).scalar_one()
                if found != schema.SCHEMA_VERSION:
                    raise SchemaMismatch(found, schema.SCHEMA_VERSION)
                return
            schema.metadata.create_all(connection)
            for statement in _SQLITE_TRIGGERS if self.dialect == "sqlite" else _POSTGRESQL_TRIGGERS:
                connection.execute(text(statement))
            connection.execute(insert(schema.schema_version).values(version=schema.SCHEMA_VERSION))

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One writing transaction: all of it or nothing. Raises `DatabaseUnavailable` when it can't be had."""
        with _translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent look at the rows, holding up no writer."""
        with _translated(), self.engine.connect().execution_options(**{_READ_ONLY: True}) as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def lock_audit_chain(connection: Connection) -> None:
    """Let one transaction at a time append to the chain (SQLite's writers are alone already)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _AUDIT_LOCK})


def lock_rows(statement: Any) -> Any:
    """The same SELECT, holding its rows until the transaction ends (SQLite's writers hold everything already)."""
    return statement.with_for_update()


def insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Insert a row unless one of its key is there; on PostgreSQL it waits for a transaction that is inserting it."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())


def hold_exclusively(database: "Database") -> Connection | None:
    """Claim the database for one node, for as long as the connection lives; None when another node has it.

    SQLite needs none: its file lies in the node's folder, which is locked.
    """
    if database.dialect != "postgresql":
        return database.engine.connect()
    connection = database.engine.connect()
    if connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _NODE_LOCK}).scalar_one():
        connection.commit()
        return connection
    connection.close()
    return None


def sqlite_warning(url: str) -> str | None:
    """A sentence for the administrator when the SQLite library has the WAL-reset bug; None when all is well."""
    if not url.startswith("sqlite") or sqlite3.sqlite_version_info >= SQLITE_WITHOUT_WAL_RESET_BUG:
        return None
    return (
        f"SQLite {sqlite3.sqlite_version} has a rare defect in write-ahead logging that 3.51.3 mends; "
        "back the database up, or use PostgreSQL"
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, DBAPIError) as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise DatabaseUnavailable(str(error.orig)) from error
        raise
