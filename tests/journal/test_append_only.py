from __future__ import annotations

import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from journal.errors import JournalCorrupt, JournalExists, JournalMissing, JournalNewer
from journal.schema import GUARDS, SCHEMA_VERSION
from tests.journal.journals import create, planned, reopen, settle, take

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed journal with ten planned keys, five of them settled."""
    journal, source = planned(tmp_path / "journal.db")
    with journal:
        settle(journal, [key.ordinal for key in take(journal, source, 5).keys])
    return tmp_path / "journal.db"


FORBIDDEN = [
    "UPDATE event SET ts = 0 WHERE seq = 1",
    "DELETE FROM event WHERE seq = 1",
    "REPLACE INTO event SELECT seq, ts, 'forged', version, source, data, chain FROM event WHERE seq = 1",
    "INSERT OR IGNORE INTO event SELECT seq + 900, ts, kind, version, source, data, chain FROM event WHERE seq = 1",
    "UPDATE plan SET row_key = 'forged' WHERE ordinal = 1",
    "DELETE FROM plan",
    "REPLACE INTO plan SELECT ordinal, 'forged', created_at, size, supersedes FROM plan WHERE ordinal = 1",
    "INSERT INTO plan VALUES (99, 'forged', 1, 1, NULL)",
    "INSERT INTO plan VALUES (5, 'forged', 1, 1, NULL) ON CONFLICT DO UPDATE SET row_key = 'forged'",
]


@pytest.mark.parametrize("recursive_triggers", [True, False])
@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_log_refuses_to_be_rewritten_from_any_connection(
    path: Path, statement: str, recursive_triggers: bool
) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA recursive_triggers = {recursive_triggers:d}")
    before = (
        connection.execute("SELECT * FROM event").fetchall(),
        connection.execute("SELECT * FROM plan").fetchall(),
    )
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(statement)
    connection.rollback()
    after = (
        connection.execute("SELECT * FROM event").fetchall(),
        connection.execute("SELECT * FROM plan").fetchall(),
    )
    assert after == before
    connection.close()


@pytest.mark.parametrize("name", GUARDS)
def test_opening_notices_a_guard_that_is_gone(path: Path, name: str) -> None:
    _tamper(path, f"DROP TRIGGER {name}")
    with pytest.raises(JournalCorrupt, match=f"{name} is missing"):
        reopen(path)


def test_opening_notices_a_guard_that_was_weakened(path: Path) -> None:
    _tamper(
        path,
        "DROP TRIGGER plan_refuses_update",
        "CREATE TRIGGER plan_refuses_update BEFORE UPDATE ON plan BEGIN SELECT 1; END",
    )
    with pytest.raises(JournalCorrupt, match="plan_refuses_update is altered"):
        reopen(path)


@pytest.mark.parametrize(
    "column", ["ts = ts + 1", "kind = 'halted'", "data = data || ' '", "chain = zeroblob(32)"]
)
def test_opening_notices_an_event_of_the_tail_that_was_altered(path: Path, column: str) -> None:
    guard = GUARDS["event_refuses_update"]
    _tamper(path, "DROP TRIGGER event_refuses_update", f"UPDATE event SET {column} WHERE seq = 4", guard)
    with pytest.raises(JournalCorrupt, match="does not continue the chain"):
        reopen(path)


def test_opening_notices_planned_rows_that_no_event_knows(path: Path) -> None:
    _tamper(path, "INSERT INTO plan VALUES (11, 'forged', 1, 1, NULL)")
    with pytest.raises(JournalCorrupt, match="ordinal 11"):
        reopen(path)


def test_claiming_a_chunk_notices_a_row_key_that_was_altered(path: Path) -> None:
    guard = GUARDS["plan_refuses_update"]
    _tamper(
        path,
        "DROP TRIGGER plan_refuses_update",
        "UPDATE plan SET row_key = 'k00009x' WHERE ordinal = 10",
        guard,
    )
    with reopen(path) as journal:
        before = journal.statistics().head_seq
        with pytest.raises(JournalCorrupt, match="chunk 1 to 10"):
            take(journal, 1)
        assert (journal.statistics().head_seq, journal.in_flight) == (before, 0)


def test_claiming_a_requeued_key_checks_its_chunk_too(path: Path) -> None:
    with reopen(path) as journal:
        claim = take(journal, 1)
        journal.release([key.ordinal for key in claim.keys], now_us=1)
    _tamper(
        path,
        "DROP TRIGGER plan_refuses_update",
        "UPDATE plan SET size = 7 WHERE ordinal = 1",
        GUARDS["plan_refuses_update"],
    )
    with reopen(path) as journal, pytest.raises(JournalCorrupt, match="chunk 1 to 10"):
        take(journal, 1)


def test_every_table_is_strict(path: Path) -> None:
    connection = sqlite3.connect(path)
    loose = connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND NOT strict AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    ).fetchall()
    connection.close()
    assert loose == []


def test_every_file_of_the_journal_is_private(tmp_path: Path) -> None:
    with create(tmp_path / "journal.db") as journal:
        journal.add_source("a", {}, now_us=1)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("journal.db", "journal.db-wal", "journal.db-shm", "journal.db.lock"), 384)


def test_the_writer_syncs_every_commit_and_owns_checkpoints(tmp_path: Path) -> None:
    with create(tmp_path / "journal.db") as journal:
        found = {
            name: journal._connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "recursive_triggers", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "recursive_triggers": 1, "foreign_keys": 0}


def test_a_clean_close_leaves_one_file_and_its_lock(path: Path) -> None:
    assert sorted(file.name for file in path.parent.iterdir()) == ["journal.db", "journal.db.lock"]


def test_create_refuses_to_replace_a_file(path: Path) -> None:
    with pytest.raises(JournalExists):
        create(path)
    reopen(path).close()


def test_create_clears_what_an_interrupted_creation_left(tmp_path: Path) -> None:
    (tmp_path / "journal.db.new").write_bytes(b"half a journal")
    create(tmp_path / "journal.db").close()
    assert not (tmp_path / "journal.db.new").exists()


def test_open_without_a_journal_says_so_and_leaves_no_lock_behind(tmp_path: Path) -> None:
    with pytest.raises(JournalMissing, match="no such file"):
        reopen(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(JournalCorrupt, match="not a journal"):
        reopen(tmp_path / "journal.db")
    assert (tmp_path / "journal.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"not a database at all" * 100)
    with pytest.raises(JournalCorrupt, match="not a database"):
        reopen(tmp_path / "journal.db")


def test_a_newer_schema_is_refused(path: Path) -> None:
    newer = SCHEMA_VERSION + 1
    _tamper(path, f"PRAGMA user_version = {newer}")
    with pytest.raises(JournalNewer, match=f"schema version is {newer}"):
        reopen(path)


def _tamper(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
