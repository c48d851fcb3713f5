"""How the file of a stage is opened and deleted, and what each error in it becomes."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from journal.errors import JournalError, JournalFailed, JournalFull
from journal.stage_file import (
    FORMAT,
    StageLost,
    check_format,
    closing_on_failure,
    connect,
    discard_stage,
    stage_path,
    translated,
)

EXTENDED = 3 << 8
"""What SQLite adds to an error's code to tell it more precisely."""


def an_error(code: int | None) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it went wrong")
    if code is not None:
        error.sqlite_errorcode = code
    return error


def test_a_stage_is_discarded_with_its_rollback_journal_and_nothing_else(tmp_path: Path) -> None:
    journal = tmp_path / "journal.db"
    for name in ("journal.db", "journal.db.stage", "journal.db.stage-journal", "journal.db-journal"):
        (tmp_path / name).touch()
    discard_stage(journal)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["journal.db", "journal.db-journal"]


def test_a_stage_is_set_up_for_one_process_to_lose_nothing_within_bounded_memory(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "stage")) as connection:
        found = {
            name: connection.execute(f"pragma {name}").fetchone()[0]
            for name in (
                "locking_mode",
                "journal_mode",
                "synchronous",
                "temp_store",
                "cache_size",
                "threads",
                "temp_store_directory",
            )
        }
    assert found == {
        "locking_mode": "exclusive",
        "journal_mode": "truncate",
        "synchronous": 2,
        "temp_store": 1,
        "cache_size": -4096,
        "threads": 2,
        "temp_store_directory": str(tmp_path.resolve()),
    }


def test_a_statement_on_a_stage_commits_by_itself_from_whatever_thread(tmp_path: Path) -> None:
    def write() -> None:
        connection.execute("create table t (n)")
        connection.execute("insert into t values (1)")
        done.append(connection.in_transaction)

    done: list[bool] = []
    with closing(connect(tmp_path / "stage")) as connection:
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert done == [False]


def test_a_stage_that_can_not_be_set_up_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stage").write_bytes(b"garbage" * 1000)
    opened: list[sqlite3.Connection] = []
    real = sqlite3.connect

    def remembered(*args: object, **kwargs: object) -> sqlite3.Connection:
        opened.append(real(*args, **kwargs))  # type: ignore[call-overload]
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", remembered)
    with pytest.raises(sqlite3.DatabaseError):
        connect(tmp_path / "stage")
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("select 1")


def test_a_connection_stays_open_unless_what_is_done_with_it_fails() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        with closing_on_failure(connection):
            pass
        connection.execute("select 1")
        with pytest.raises(KeyboardInterrupt), closing_on_failure(connection):
            raise KeyboardInterrupt
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("select 1")


@pytest.mark.parametrize(("version", "lost"), [(FORMAT, False), (FORMAT - 1, True), (FORMAT + 1, True)])
def test_only_a_stage_of_the_present_format_is_resumed(version: int, lost: bool) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"pragma user_version = {version}")
        if not lost:
            check_format(connection, Path("s"))
            return
        with pytest.raises(StageLost, match=f"from s: it is of format {version}, expected {FORMAT}"):
            check_format(connection, Path("s"))


@pytest.mark.parametrize(
    ("error", "expected", "told"),
    [
        (an_error(sqlite3.SQLITE_FULL), JournalFull, "read s: the disk is full"),
        (an_error(sqlite3.SQLITE_FULL | EXTENDED), JournalFull, "read s: the disk is full"),
        (an_error(sqlite3.SQLITE_CORRUPT | EXTENDED), StageLost, "read s: it went wrong"),
        (an_error(sqlite3.SQLITE_NOTADB), StageLost, "read s: it went wrong"),
        (an_error(sqlite3.SQLITE_ERROR), StageLost, "read s: it went wrong"),
        (an_error(sqlite3.SQLITE_READONLY), StageLost, "read s: it went wrong"),
        (an_error(None), StageLost, "read s: it went wrong"),
        (an_error(sqlite3.SQLITE_IOERR | EXTENDED), JournalFailed, "read s: it went wrong"),
        (an_error(sqlite3.SQLITE_BUSY), JournalFailed, "read s: it went wrong"),
        (
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
            StageLost,
            "read s: the file holds no text where it should",
        ),
        (OSError(5, "Input/output error"), JournalFailed, "read s: Input/output error"),
    ],
)
def test_each_error_in_a_stage_costs_a_scan_or_tells_of_the_disk(
    error: Exception, expected: type[JournalError], told: str
) -> None:
    with pytest.raises(JournalError) as refused, translated(Path("s"), "read"):
        raise error
    assert (type(refused.value), refused.value.problem) == (expected, told)


def test_a_stage_lies_beside_its_journal() -> None:
    assert stage_path(Path("a/b.db")) == Path("a/b.db.stage")
