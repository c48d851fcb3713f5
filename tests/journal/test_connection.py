"""How the journal's file is opened, copied and deleted, and what each of SQLite's errors becomes."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journal import connection as module
from journal.connection import (
    JournalConnection,
    backup_into,
    failed_in_midrun,
    open_reader,
    open_writer,
    opening,
    prepare_writer,
    reading_back,
    remove_database,
    spill_into,
    sync_directory,
)
from journal.errors import RESTORE_BACKUP, JournalCorrupt, JournalError, JournalFailed, JournalFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHECK = f"run `backfillctl journal check`, or {RESTORE_BACKUP}"
EXTENDED = 3 << 8
"""What SQLite adds to an error's code to tell it more precisely."""


def create(path: Path, rows: int = 1) -> Path:
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
        made.executemany("INSERT INTO t VALUES (?, ?)", ((n, "x" * 100) for n in range(rows)))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create(tmp_path / "journal.db")


@pytest.fixture
def writer(path: Path) -> Iterator[JournalConnection]:
    with closing(open_writer(path)) as connection:
        yield connection


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[JournalConnection]:
    """A journal whose first page is whole, and the first row of its table, and no page behind them."""
    path = create(tmp_path / "damaged.db", 200)
    content = path.read_bytes()
    path.write_bytes(content[: 3 * 4096] + b"\xff" * (len(content) - 3 * 4096))
    with closing(open_writer(path)) as connection:
        yield connection


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def an_error(code: int | None, name: str | None = None) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("it went wrong")
    if code is not None:
        error.sqlite_errorcode = code
    if name is not None:
        error.sqlite_errorname = name
    return error


def first_row(connection: sqlite3.Connection) -> object:
    return connection.execute("SELECT n FROM t WHERE n = 150")


def all_rows(connection: sqlite3.Connection) -> object:
    return connection.execute("SELECT n FROM t").fetchall()


def row_by_row(connection: sqlite3.Connection) -> object:
    return list(connection.execute("SELECT n FROM t"))


def one_row_at_a_time(connection: sqlite3.Connection) -> object:
    found = connection.execute("SELECT n FROM t")
    while found.fetchone():
        pass
    return found


def many_statements(connection: sqlite3.Connection) -> object:
    return connection.executemany("UPDATE t SET text = 'y' WHERE n = ?", [(150,), (160,)])


READS = [first_row, all_rows, row_by_row, one_row_at_a_time, many_statements]


@pytest.mark.parametrize("read", READS)
def test_damage_that_any_statement_or_row_comes_upon_is_named_with_the_file(
    damaged: JournalConnection, read: Callable[[sqlite3.Connection], object]
) -> None:
    with pytest.raises(JournalCorrupt, match=r"^read journal .*damaged\.db: .*malformed") as refused:
        read(damaged)
    assert refused.value.hint == CHECK


@pytest.mark.parametrize("read", READS)
def test_damage_in_mid_run_is_a_failure_that_the_next_start_explains(
    damaged: JournalConnection, read: Callable[[sqlite3.Connection], object]
) -> None:
    damaged.in_midrun = True
    with pytest.raises(JournalFailed, match=r"^read journal .*damaged\.db: .*malformed") as failed:
        read(damaged)
    assert "start again" in failed.value.hint


def test_text_that_is_not_utf_8_is_damage(writer: JournalConnection) -> None:
    with pytest.raises(JournalCorrupt, match="decode"):
        writer.execute("SELECT CAST(x'ff' AS TEXT)").fetchall()


def test_a_mistake_in_a_statement_is_no_damage(writer: JournalConnection) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        writer.execute("SELECT * FROM nowhere")
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        writer.executemany("INSERT INTO t VALUES (?, '')", [(0,)])


def test_statements_run_with_their_parameters_and_give_their_rows(writer: JournalConnection) -> None:
    writer.executemany("INSERT INTO t VALUES (?, ?)", [(7, "seven"), (8, "eight")])
    found = writer.execute("SELECT text FROM t WHERE n > ?", (6,))
    assert (next(found), found.fetchone(), found.fetchone()) == (("seven",), ("eight",), None)
    assert writer.cursor(sqlite3.Cursor).execute("SELECT count(*) FROM t").fetchall() == [(3,)]


def test_the_writer_is_set_up_to_lose_nothing_and_to_stay_within_bounds(
    writer: JournalConnection, path: Path
) -> None:
    prepare_writer(writer, path)
    found = {
        name: pragma(writer, name)
        for name in (
            "journal_mode",
            "synchronous",
            "recursive_triggers",
            "trusted_schema",
            "cell_size_check",
            "cache_size",
            "wal_autocheckpoint",
            "journal_size_limit",
            "temp_store",
            "temp_store_directory",
        )
    }
    assert found == {
        "journal_mode": "wal",
        "synchronous": 2,
        "recursive_triggers": 1,
        "trusted_schema": 0,
        "cell_size_check": 1,
        "cache_size": -16 * 1024,
        "wal_autocheckpoint": 4000,
        "journal_size_limit": 64 * 1024 * 1024,
        "temp_store": 1,
        "temp_store_directory": str(path.parent.resolve()),
    }


def test_a_file_that_can_have_no_wal_gets_no_writer(path: Path) -> None:
    with (
        closing(sqlite3.connect(":memory:")) as memory,
        pytest.raises(JournalError, match=r"journal\.db: expected journal mode wal, found memory") as refused,
    ):
        prepare_writer(memory, path)
    assert "local disk" in refused.value.hint


def test_every_connection_waits_for_others_and_trusts_no_schema(path: Path) -> None:
    for connection in (
        open_writer(path),
        open_reader(path, immutable=False),
        open_reader(path, immutable=True),
    ):
        with closing(connection):
            names = ("busy_timeout", "trusted_schema", "temp_store")
            assert [pragma(connection, name) for name in names] == [5000, 0, 1]


def test_a_connection_serves_another_thread_and_begins_no_transaction_by_itself(
    writer: JournalConnection,
) -> None:
    def insert() -> None:
        writer.execute("INSERT INTO t VALUES (5, '')")
        done.append(writer.in_transaction)

    done: list[bool] = []
    thread = threading.Thread(target=insert)
    thread.start()
    thread.join()
    assert done == [False]


def test_a_journal_is_opened_under_whatever_name_it_has(tmp_path: Path) -> None:
    path = create(tmp_path / "50%41 of a?mode=memory#b.db", 3)
    for connection in (open_writer(path), open_reader(path, immutable=True)):
        with closing(connection):
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (3,)


@pytest.mark.parametrize("opened", [open_writer, lambda path: open_reader(path, immutable=False)])
def test_opening_a_journal_that_is_not_there_makes_none(
    tmp_path: Path, opened: Callable[[Path], sqlite3.Connection]
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        opened(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("immutable", [False, True])
def test_a_reader_can_write_nothing(path: Path, immutable: bool) -> None:
    with closing(open_reader(path, immutable=immutable)) as reader:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute("DELETE FROM t")
        assert reader.execute("SELECT count(*) FROM t").fetchone() == (1,)


def test_only_an_immutable_reader_leaves_the_wal_out(writer: JournalConnection, path: Path) -> None:
    prepare_writer(writer, path)
    writer.execute("INSERT INTO t VALUES (7, '')")
    counts = []
    for immutable in (False, True):
        with closing(open_reader(path, immutable=immutable)) as reader:
            counts.append(reader.execute("SELECT count(*) FROM t").fetchone()[0])
    assert counts == [2, 1]


def test_temporary_files_go_where_they_are_sent_and_nothing_is_set_twice(tmp_path: Path) -> None:
    place = tmp_path / "an operator's"
    place.mkdir()
    with closing(sqlite3.connect(":memory:")) as connection:
        statements: list[str] = []
        connection.set_trace_callback(statements.append)
        for _ in range(2):
            spill_into(connection, place)
        changes = [statement for statement in statements if "=" in statement]
        assert pragma(connection, "temp_store_directory") == str(place.resolve())
        spill_into(connection, tmp_path)
    assert len(changes) == 1


def test_a_copy_is_one_whole_file_for_its_owner_only_in_place_of_an_earlier_one(
    writer: JournalConnection, path: Path, tmp_path: Path
) -> None:
    prepare_writer(writer, path)
    writer.execute("INSERT INTO t VALUES (7, 'new')")
    copies = tmp_path / "co?pies"
    copies.mkdir()
    for name in ("copy.db", "copy.db.partial", "copy.db.partial-journal"):
        (copies / name).write_text("of yesterday")
    backup_into(writer, copies / "copy.db")
    assert [file.name for file in copies.iterdir()] == ["copy.db"]
    assert stat.S_IMODE((copies / "copy.db").stat().st_mode) == 0o600
    with closing(open_reader(copies / "copy.db", immutable=True)) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(0,), (7,)]
        assert pragma(copy, "journal_mode") == "delete"


def test_a_copy_outlasts_a_power_cut(
    writer: JournalConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_directory", synced.append)
    backup_into(writer, tmp_path / "copy.db")
    assert synced == [tmp_path / "copy.db"]


def test_a_copy_to_where_nothing_can_be_made_is_refused(writer: JournalConnection, tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"copy\.db: No such file or directory") as refused:
        backup_into(writer, tmp_path / "missing" / "copy.db")
    assert refused.value.hint == "choose another destination"


@pytest.mark.parametrize(
    ("code", "expected", "told"),
    [
        (sqlite3.SQLITE_FULL, JournalFull, "the disk is full"),
        (sqlite3.SQLITE_FULL | EXTENDED, JournalFull, "the disk is full"),
        (sqlite3.SQLITE_IOERR, JournalError, "it went wrong"),
        (sqlite3.SQLITE_CORRUPT, sqlite3.OperationalError, "it went wrong"),
        (sqlite3.SQLITE_CORRUPT | EXTENDED, sqlite3.OperationalError, "it went wrong"),
        (sqlite3.SQLITE_NOTADB, sqlite3.OperationalError, "it went wrong"),
        (None, JournalError, "it went wrong"),
    ],
)
def test_a_copy_that_fails_leaves_nothing_and_blames_the_journal_for_its_own_damage_only(
    writer: JournalConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int | None,
    expected: type[Exception],
    told: str,
) -> None:
    def fails(_: object, partial: Path) -> None:
        partial.write_text("half of it")
        raise an_error(code)

    monkeypatch.setattr(module, "_copy", fails)
    with pytest.raises(expected, match=told) as failed:
        backup_into(writer, tmp_path / "copy.db")
    assert type(failed.value) is expected
    assert [file.name for file in tmp_path.iterdir()] == ["journal.db"]


def test_a_database_is_deleted_after_its_side_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[str] = []
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: deleted.append(f"{path.name} {missing_ok}"))
    remove_database(tmp_path / "j")
    assert deleted == ["j-wal True", "j-shm True", "j-journal True", "j True"]


def test_the_directory_that_holds_a_name_is_synced_and_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: dict[int, os.stat_result] = {}
    monkeypatch.setattr(os, "fsync", lambda fd: synced.setdefault(fd, os.fstat(fd)))
    sync_directory(tmp_path / "journal.db")
    assert [os.path.samestat(found, tmp_path.stat()) for found in synced.values()] == [True]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(*synced)


@pytest.mark.parametrize(
    ("code", "expected", "told"),
    [
        (sqlite3.SQLITE_FULL, JournalFull, "open journal j: the disk is full"),
        (sqlite3.SQLITE_FULL | EXTENDED, JournalFull, "open journal j: the disk is full"),
        (sqlite3.SQLITE_CORRUPT | EXTENDED, JournalCorrupt, "open journal j: it went wrong"),
        (sqlite3.SQLITE_NOTADB, JournalCorrupt, "open journal j: it went wrong"),
        (sqlite3.SQLITE_IOERR | EXTENDED, JournalFailed, "open journal j: it went wrong (SQLITE_X)"),
        (sqlite3.SQLITE_CANTOPEN, JournalError, "open journal j: it went wrong"),
        (None, JournalError, "open journal j: it went wrong"),
    ],
)
def test_what_sqlite_raises_at_opening_is_told_apart(
    code: int | None, expected: type[JournalError], told: str
) -> None:
    with pytest.raises(JournalError) as refused, opening(Path("j")):
        raise an_error(code, "SQLITE_X")
    assert (type(refused.value), refused.value.problem) == (expected, told)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("code", "expected", "told"),
    [
        (sqlite3.SQLITE_FULL, JournalFull, "nothing of this batch is recorded"),
        (sqlite3.SQLITE_FULL | EXTENDED, JournalFull, "nothing of this batch is recorded"),
        (
            sqlite3.SQLITE_IOERR,
            JournalFailed,
            "it went wrong (SQLITE_X); whether the last batch was committed",
        ),
        (sqlite3.SQLITE_CORRUPT, JournalFailed, "whether the last batch was committed is unknown"),
        (None, JournalFailed, "whether the last batch was committed is unknown"),
    ],
)
def test_only_a_full_disk_leaves_a_failed_write_known(
    code: int | None, expected: type[JournalError], told: str
) -> None:
    failed = failed_in_midrun(Path("j"), an_error(code, "SQLITE_X"))
    assert type(failed) is expected
    assert failed.problem.startswith("write to journal j: ")
    assert told in failed.problem
    assert "start again" in failed.hint


@pytest.mark.parametrize("shape", [TypeError, ValueError, KeyError, AttributeError])
def test_what_has_not_the_shape_of_what_was_written_is_damage_if_the_file_is_damaged(
    damaged: JournalConnection, shape: type[Exception]
) -> None:
    with (
        pytest.raises(JournalCorrupt, match=r"(?s)^read journal j: .*[Pp]age") as refused,
        reading_back(Path("j"), damaged),
    ):
        raise shape
    assert refused.value.hint == CHECK


@pytest.mark.parametrize("shape", [TypeError, ValueError, KeyError, AttributeError])
def test_it_is_a_mistake_of_the_program_if_the_file_is_whole(
    writer: JournalConnection, shape: type[Exception]
) -> None:
    with pytest.raises(shape), reading_back(Path("j"), writer):
        raise shape
