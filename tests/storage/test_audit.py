"""The trail shows every alteration, and its own tables resist it."""

import threading

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from storage import audit
from storage.errors import AuditChainBroken


def fill(database, count=5):
    for number in range(count):
        with database.transaction() as connection:
            audit.append(connection, f"test.{number}", actor="me", study_uid="1.2", details={"number": number})


def test_an_untouched_trail_verifies(database):
    fill(database)
    verification = audit.verify(database)
    assert verification.events == 5
    assert audit.verify(database, expected_head=verification.head) == verification


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'other' WHERE seq = 2",
        "DELETE FROM audit_event WHERE seq = 5",
        "INSERT INTO audit_event SELECT 9, time, event, outcome, actor, study_uid, details, previous, hash "
        "FROM audit_event WHERE seq = 1",
    ],
)
def test_the_table_refuses_to_be_altered(database, statement):
    fill(database)
    with pytest.raises(DBAPIError), database.transaction() as connection:
        connection.execute(text(statement))
    assert audit.verify(database).events == 5


def test_sqlite_replace_does_not_get_past_the_triggers(database):
    if database.dialect != "sqlite":
        with pytest.raises(DBAPIError), database.transaction() as connection:
            connection.execute(text("TRUNCATE audit_event"))
        return
    fill(database)
    with pytest.raises(DBAPIError), database.transaction() as connection:
        connection.execute(
            text(
                "REPLACE INTO audit_event SELECT 5, time, event, outcome, 'x', study_uid, details, previous, hash "
                "FROM audit_event WHERE seq = 5"
            )
        )


def disarm(database):
    names = ["audit_no_update", "audit_no_delete", "audit_in_order"]
    with database.transaction() as connection:
        for name in names if database.dialect == "sqlite" else ["audit_rows", "audit_table"]:
            on = "" if database.dialect == "sqlite" else " ON audit_event"
            connection.execute(text(f"DROP TRIGGER {name}{on}"))


@pytest.mark.parametrize(
    ("statement", "seq"),
    [
        ("UPDATE audit_event SET actor = 'other' WHERE seq = 2", 2),
        ("UPDATE audit_event SET details = '{}' WHERE seq = 5", 5),
        ("UPDATE audit_event SET study_uid = NULL WHERE seq = 3", 3),
        ("UPDATE audit_event SET hash = previous WHERE seq = 4", 4),
        ("DELETE FROM audit_event WHERE seq = 3", 4),
        ("DELETE FROM audit_event WHERE seq = 1", 2),
        ("UPDATE audit_event SET seq = 9 WHERE seq = 5", 9),
    ],
)
def test_what_gets_past_the_triggers_shows_in_the_chain(database, statement, seq):
    fill(database)
    disarm(database)
    with database.transaction() as connection:
        connection.execute(text(statement))
    with pytest.raises(AuditChainBroken) as broken:
        audit.verify(database)
    assert broken.value.seq == seq


def test_a_trail_cut_short_shows_against_a_head_kept_elsewhere(database):
    fill(database)
    head = audit.verify(database).head
    disarm(database)
    with database.transaction() as connection:
        connection.execute(text("DELETE FROM audit_event WHERE seq > 3"))
    assert audit.verify(database).events == 3
    with pytest.raises(AuditChainBroken, match="cut"):
        audit.verify(database, expected_head=head)


def test_concurrent_writers_make_one_chain(database):
    threads = [threading.Thread(target=fill, args=(database, 10)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.verify(database).events == 40


def test_events_are_found_by_study_name_and_period(database):
    fill(database)
    with database.transaction() as connection:
        audit.append(connection, "job.done", actor="node", study_uid="1.3")
    assert [one.event for one in audit.events(database, study_uid="1.3")] == ["job.done"]
    assert len(tuple(audit.events(database, event="test."))) == 5
    assert [one.event for one in audit.events(database, last=2)] == ["test.4", "job.done"]
    assert not tuple(audit.events(database, since="2999-01-01"))
    first = next(iter(audit.events(database)))
    assert first.details == {"number": 0}
    assert len(tuple(audit.events(database, until=first.time))) == 0
