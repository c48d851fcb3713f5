"""The file that a planning pass is staged in: `<journal>.stage`, a throw-away SQLite database.

Every row carries a checksum over its values, verified before it counts: the file outlives crashes and may lie on disks
that forget, and a key whose bits have turned would be planned as another one, so its own row would never be copied.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING

from journal.connection import spill_into
from journal.errors import JournalError, JournalFailed, JournalFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CACHE_KIB = 4 * 1024
"""Page cache, and with it the memory that SQLite's sorter, and each of its threads, fills before it spills to a temporary
file. With 32 MiB planning took 90 MB more, and no less time."""
SORTER_THREADS = 2
"""Threads of SQLite's external sort; measured, before rows had checksums: 343 k rows/s staged and sorted with two, 302 k with none."""
FORMAT = 2
"""`PRAGMA user_version` of a stage; one of another format is not resumed."""
SCHEMA = f"""
create table pass (source integer not null, number integer not null, scope text not null, sort_order text not null,
    memo text not null, crc integer not null) strict;
create table sorting (rows integer not null, seen integer not null, excluded text not null, repeated integer not null,
    repeated_key text, crc integer not null) strict;
create table staged (row_key text not null, created_at integer, size integer not null, relation integer not null,
    crc integer not null) strict;
create table swept (relation integer not null, filenode integer not null, first_block integer not null,
    next_block integer, seen integer not null, kept integer not null, excluded text not null,
    crc integer not null) strict;
create table sorted (position integer primary key, row_key text not null, created_at integer,
    size integer not null, crc integer not null) strict;
pragma user_version = {FORMAT}
"""
_DAMAGE = {
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB),
    # Its schema is wrong, or its header says that only newer versions may write: a disk that is read-only
    # would not let it be deleted either.
    *(sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY),
}
"""What SQLite answers where the file is wrong."""


class StageLost(JournalError):  # noqa: N818 -- the name is the message
    """The stage is damaged: only the scan is to be repeated, the journal is whole."""


def crc_of(*values: str | int | None) -> int:
    """Return the checksum that a row of these values carries: CRC-32, which finds every single flipped bit."""
    return zlib.crc32("\0".join(map(str, values)).encode())


def crc_of_key(row_key: str, created_at: int | None, size: int) -> int:
    """Return what `crc_of` does, in half the time: it is asked for twice for each key of a table."""
    return zlib.crc32(f"{row_key}\0{created_at}\0{size}".encode())


def stage_path(journal: Path) -> Path:
    """Return where the stage of the journal at `journal` lies."""
    return journal.with_name(journal.name + ".stage")


def discard_stage(journal: Path) -> None:
    """Delete the stage of the journal at `journal`, if there is one, and free its disk.

    Raises:
        JournalFailed: it can't be deleted.
    """
    path = stage_path(journal)
    with translated(path, "delete"):
        for leftover in (path.with_name(path.name + "-journal"), path):
            leftover.unlink(missing_ok=True)


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for one process alone; every statement commits at once unless a transaction is begun."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    # A rollback journal, not WAL: appended pages are written once, and a torn file is never taken for whole.
    pragmas = (
        "locking_mode = exclusive",
        "journal_mode = truncate",
        "synchronous = full",
        "temp_store = file",
        f"cache_size = -{CACHE_KIB}",
        f"threads = {SORTER_THREADS}",
    )
    with closing_on_failure(connection):
        for pragma in pragmas:
            connection.execute(f"pragma {pragma}")
        spill_into(connection, path.parent)
    return connection


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StageLost if the file is not a whole stage of the present format."""
    (found,) = connection.execute("pragma user_version").fetchone()
    if found != FORMAT:
        raise StageLost(f"resume planning from {path}: it is of format {found}, expected {FORMAT}")


@contextmanager
def closing_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    """Close the connection if what is done with it fails."""
    try:
        yield
    except BaseException:
        connection.close()
        raise


@contextmanager
def translated(path: Path, operation: str) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into the journal's."""
    try:
        yield
    except UnicodeDecodeError as exc:  # SQLite's message quotes what it found
        raise StageLost(f"{operation} {path}: the file holds no text where it should") from exc
    except OSError as exc:
        raise JournalFailed(f"{operation} {path}: {exc.strerror}", "check the journal's directory") from exc
    except sqlite3.DatabaseError as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise JournalFull(
                f"{operation} {path}: the disk is full", "free space, then run again: planning resumes"
            ) from exc
        if code in _DAMAGE:
            raise StageLost(f"{operation} {path}: {exc}") from exc
        raise JournalFailed(
            f"{operation} {path}: {exc}", "check the disk, then run again: planning resumes"
        ) from exc
