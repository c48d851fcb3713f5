from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journal import maintenance, schema
from journal.errors import JournalNewer
from journal.log import Journal
from journal.reader import Reader
from tests.journal.journals import NOW_US, planned, reopen, settle, take

if TYPE_CHECKING:
    from sqlite_utils import Database
    from sqlite_utils.migrations import Migrations

GOLDEN = Path(__file__).parent / "golden"
NEXT = schema.SCHEMA_VERSION + 1


def next_migrations() -> Migrations:
    """The released history and one more: a column on a projection."""
    migrations = schema.journal_migrations()

    @migrations(name="999_test_adds_a_column")
    def add_column(database: Database) -> None:
        database.execute("ALTER TABLE segment ADD COLUMN note TEXT")

    return migrations


def broken_migrations() -> Migrations:
    migrations = next_migrations()

    @migrations(name="999_test_fails")
    def fail(database: Database) -> None:
        database.execute("ALTER TABLE segment ADD COLUMN other TEXT")
        raise RuntimeError("the migration is wrong")

    return migrations


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source, 5)
    settle(journal, [1, 2])
    journal.close()
    return tmp_path / "journal.db"


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    connection.close()
    return int(found)


def test_the_schema_version_is_the_number_of_migrations(path: Path) -> None:
    from sqlite_utils import Database

    database = Database(memory=True)
    assert len(schema.journal_migrations().pending(database)) == schema.SCHEMA_VERSION
    database.close()
    assert version(path) == schema.SCHEMA_VERSION


def test_an_older_journal_is_backed_up_then_upgraded_and_both_are_on_record(path: Path) -> None:
    with Journal.open(path, now_us=NOW_US, history=schema.History(NEXT, next_migrations)) as journal:
        assert journal.latest_note("schema_migrated") == {
            "from": schema.SCHEMA_VERSION,
            "applied": ["999_test_adds_a_column"],
            "backup": f"journal.db.before-schema-{NEXT}",
        }
        journal.recover(now_us=NOW_US)
        assert journal.counts()["source-1"].stored == 2
    assert version(path) == NEXT
    copy = path.with_name(f"journal.db.before-schema-{NEXT}")
    assert (version(copy), copy.stat().st_mode & 0o777) == (schema.SCHEMA_VERSION, 0o600)
    assert maintenance.check(copy) == []
    with reopen(copy) as journal:
        assert journal.counts()["source-1"].stored == 2


def test_an_upgrade_that_fails_leaves_the_journal_as_it_was(path: Path) -> None:
    with pytest.raises(RuntimeError, match="wrong"):
        Journal.open(path, now_us=NOW_US, history=schema.History(NEXT + 1, broken_migrations))
    assert version(path) == schema.SCHEMA_VERSION
    assert maintenance.check(path) == []
    with Journal.open(path, now_us=NOW_US, history=schema.History(NEXT, next_migrations)) as journal:
        assert journal.counts()["source-1"].stored == 2


def test_an_upgrade_keeps_every_guard(path: Path) -> None:
    Journal.open(path, now_us=NOW_US, history=schema.History(NEXT, next_migrations)).close()
    connection = sqlite3.connect(path)
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'"))
    connection.close()
    assert found == schema.GUARDS


def test_an_older_program_refuses_the_upgraded_journal(path: Path) -> None:
    Journal.open(path, now_us=NOW_US, history=schema.History(NEXT, next_migrations)).close()
    with pytest.raises(JournalNewer):
        reopen(path)
    with pytest.raises(JournalNewer):
        Reader.open(path)


def test_there_is_a_golden_journal_of_every_released_schema() -> None:
    assert [file.name for file in sorted(GOLDEN.glob("*.db"))] == [
        f"schema-{number}.db" for number in range(1, schema.SCHEMA_VERSION + 1)
    ]


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("*.db")), ids=lambda file: file.stem)
def test_a_golden_journal_opens_replays_to_the_same_projections_and_goes_on(
    golden: Path, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    shutil.copy(golden, path)
    expected = json.loads(golden.with_suffix(".json").read_text())
    with reopen(path) as journal:
        assert _facts(journal) == expected
    assert maintenance.check(path) == []
    maintenance.rebuild(path)
    assert maintenance.check(path) == []
    with reopen(path) as journal:
        assert _facts(journal) == expected
        journal.start_session(now_us=NOW_US, facts={})
        assert journal.recover(now_us=NOW_US).recovered == sum(
            counts["in_flight"] for counts in expected["counts"].values()
        )
        journal.requeue(who="op", now_us=NOW_US)
        for record in journal.sources.values():
            while claim := journal.claim(record.id, limit=100, window=100, now_us=NOW_US):
                settle(journal, [key.ordinal for key in claim.keys])
        assert journal.complete(now_us=NOW_US)


def test_a_golden_journal_has_every_kind_of_event_of_its_release(tmp_path: Path) -> None:
    """Kept true for the newest: a kind that no golden journal has would be free to change."""
    from journal.events import Kind

    # A copy: even a reader leaves SQLite's side files beside a journal.
    path = shutil.copy(GOLDEN / f"schema-{schema.SCHEMA_VERSION}.db", tmp_path / "journal.db")
    with Reader.open(path) as reader:
        found = {event.kind for event in reader.events()}
    assert found == {kind.value for kind in Kind} - {Kind.SCHEMA_MIGRATED.value}


def _facts(journal: Journal) -> dict[str, object]:
    from dataclasses import asdict

    return {
        "name": journal.name,
        "order": journal.order.value,
        "cutoff_us": journal.cutoff_us,
        "sources": {name: asdict(record) for name, record in journal.sources.items()},
        "counts": {name: asdict(counts) for name, counts in journal.counts().items()},
    }
