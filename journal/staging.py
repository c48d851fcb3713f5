"""Stage the keys of one planning pass unsorted, then hand them out in processing order.

`<journal>.stage` is a throw-away SQLite file: its loss costs a new scan, never a key. It is no part of the
event log, so it may be deleted, and it is as soon as its pass is sealed. Rows and the progress of the block
range that brought them are stored in one transaction, so planning resumes where it was killed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from journal.checkpoint import Order
from journal.connection import spill_into
from journal.errors import JournalError, JournalFailed, JournalFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

PAGE_ROWS_MAX = 10_000
"""Rows handed out at once: one chunk of the plan."""
CACHE_KIB = 4 * 1024
"""Page cache, and with it the memory that SQLite's sorter, and each of its threads, fills before it spills to a temporary
file. With 32 MiB planning took 90 MB more, and no less time."""
SORTER_THREADS = 2
"""Threads of SQLite's external sort; measured: 343 k rows/s staged and sorted with two, 302 k with none."""

StagedRow: TypeAlias = tuple[str, int | None, int]
"""Row key, created_at in microseconds since 1970-01-01 UTC or None, size in bytes."""


class StageLost(JournalError):  # noqa: N818 -- the name is the message
    """The stage is damaged: only the scan is to be repeated, the journal is whole."""


@dataclass(frozen=True, slots=True)
class StageIdentity:
    """What a stage belongs to; a file with another identity is stale and is discarded.

    Attributes:
        source: the source's id in the journal.
        number: the pass of that source.
        scope: digest of all that decides which rows a scan yields, so that no pass mixes two rules.
        order: processing order of the migration.
    """

    source: int
    number: int
    scope: str
    order: Order


class RelationProgress(NamedTuple):
    """How far a relation has been swept; `next_block` is None once its last range is in."""

    filenode: int
    next_block: int | None


@dataclass(frozen=True, slots=True)
class StageTotals:
    """What a stage holds.

    Attributes:
        seen: rows the scans returned, excluded ones included.
        excluded: rows left out, by reason.
        rows, size: keys handed out and the bytes of their values; before `sort`, repeated reads count too.
        repeated: reads of a key beyond its first; known after `sort`.
    """

    seen: int
    excluded: dict[str, int]
    rows: int
    size: int
    repeated: int


def stage_path(journal: Path) -> Path:
    """Return where the stage of the journal at `journal` lies."""
    return journal.with_name(journal.name + ".stage")


def discard_stage(journal: Path) -> None:
    """Delete the stage of the journal at `journal`, if there is one, and free its disk.

    Raises:
        JournalFailed: it can't be deleted.
    """
    path = stage_path(journal)
    with _translated(path, "delete"):
        for leftover in (path.with_name(path.name + "-journal"), path):
            leftover.unlink(missing_ok=True)


class Stage:
    """The open stage of one pass; one thread at a time; every method is one transaction.

    Attributes:
        memo: what the planner must not forget while the pass lasts, as it gave it at creation.
        is_sorted: `sort` has been completed; nothing can be added any more.
    """

    def __init__(self, journal: Path, connection: sqlite3.Connection, identity: StageIdentity) -> None:
        self._journal = journal
        self._db = connection
        self._identity = identity
        with self._guarded("read"):
            self.memo, is_sorted = connection.execute("select memo, is_sorted from pass").fetchone()
        self.is_sorted = bool(is_sorted)

    @classmethod
    def create(cls, journal: Path, identity: StageIdentity, *, memo: str) -> Stage:
        """Begin an empty stage beside `journal`; what was staged before is discarded.

        Raises:
            JournalFull, JournalFailed: the file can't be written.
        """
        discard_stage(journal)
        path = stage_path(journal)
        with _translated(path, "create"):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            connection = _connect(path)
            with _closing_on_failure(connection):
                with connection:
                    connection.execute("begin immediate")
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
                    row = (identity.source, identity.number, identity.scope, identity.order.value, memo)
                    connection.execute("insert into pass values (?, ?, ?, ?, ?, 0, 0)", row)
                return cls(journal, connection, identity)

    @classmethod
    def resume(cls, journal: Path, identity: StageIdentity) -> Stage:
        """Open the stage that an earlier process left.

        Raises:
            StageLost: there is none, it is damaged, or it belongs to something else.
        """
        path = stage_path(journal)
        if not path.exists():
            raise StageLost(f"resume planning from {path}: the file is gone")
        with _translated(path, "resume"):
            connection = _connect(path)
            with _closing_on_failure(connection):
                _check_identity(connection, path, identity)
                return cls(journal, connection, identity)

    def close(self) -> None:
        """Close the file and keep it, to be resumed."""
        self._db.close()

    def discard(self) -> None:
        """Close and delete the file: its pass is sealed, or given up."""
        self._db.close()
        discard_stage(self._journal)

    def progress(self) -> dict[int, RelationProgress]:
        """Return how far each relation that was begun has been swept."""
        with self._guarded("read"):
            last = self._db.execute(
                "select relation, filenode, next_block from swept"
                " where rowid in (select max(rowid) from swept group by relation)"
            )
            return {relation: RelationProgress(filenode, following) for relation, filenode, following in last}

    def add(
        self,
        rows: Iterable[StagedRow],
        *,
        relation: int,
        filenode: int,
        first_block: int,
        next_block: int | None,
        seen: int,
        excluded: Mapping[str, int],
    ) -> None:
        """Keep the rows of one range and that the range was read, in one transaction.

        Batches of a cursor are ranges of a relation 0, numbered from 0.

        Raises:
            ValueError: the range does not follow the last one of its relation, or the relation's filenode
                has changed: rows would be missing without a trace.
        """
        with self._guarded("write"), self._db:
            self._db.execute("begin immediate")
            last = self._db.execute(
                "select filenode, next_block from swept where relation = ? order by rowid desc limit 1",
                (relation,),
            ).fetchone()
            if (last or (filenode, 0)) != (filenode, first_block) or self.is_sorted:
                raise ValueError(
                    f"range at block {first_block} of {relation}/{filenode} does not follow {last}"
                )
            before = self._db.total_changes
            insert = f"insert into staged values (?, ?, ?, {relation:d})"  # noqa: S608 -- an integer
            self._db.executemany(insert, rows)
            self._db.execute(
                "insert into swept values (?, ?, ?, ?, ?, ?, ?)",
                (
                    relation,
                    filenode,
                    first_block,
                    next_block,
                    seen,
                    self._db.total_changes - before,
                    json.dumps(dict(excluded)),
                ),
            )

    def restart_relation(self, relation: int) -> None:
        """Forget what was read of `relation`: it was rewritten in mid-sweep, or has left the table."""
        with self._guarded("write"), self._db:
            self._db.execute("begin immediate")
            self._db.execute("delete from staged where relation = ?", (relation,))
            self._db.execute("delete from swept where relation = ?", (relation,))

    def sort(self) -> StageTotals:
        """Put the rows in processing order, each key once: of repeated reads the last one counts.

        Raises:
            StageLost: rows are missing that a range had brought.
        """
        with self._guarded("sort"), self._db:
            self._db.execute("begin immediate")
            (staged,) = self._db.execute("select count(*) from staged").fetchone()
            (swept,) = self._db.execute("select coalesce(sum(kept), 0) from swept").fetchone()
            if staged != swept:
                raise StageLost(f"sort {stage_path(self._journal)}: {staged} rows, expected {swept}")
            self._db.execute(
                "insert into repeated select row_key, max(rowid) from staged group by row_key having count(*) > 1"
            )
            repeated = self._db.execute(
                "delete from staged where exists (select 1 from repeated"
                " where repeated.row_key = staged.row_key and repeated.kept <> staged.rowid)"
            ).rowcount
            direction = "desc" if self._identity.order is Order.NEWEST_FIRST else "asc"
            for part in (
                f"where created_at is not null order by created_at {direction}, row_key {direction}",
                "where created_at is null order by row_key",
            ):
                ordered = f"insert into sorted select null, row_key, created_at, size from staged {part}"  # noqa: S608 -- constants
                self._db.execute(ordered)
            self._db.execute("update pass set is_sorted = 1, repeated = ?", (max(0, repeated),))
        self.is_sorted = True
        return self.totals()

    def totals(self) -> StageTotals:
        """Count what is staged."""
        table = "sorted" if self.is_sorted else "staged"
        with self._guarded("count"):
            rows, size = self._db.execute(f"select count(*), coalesce(sum(size), 0) from {table}").fetchone()  # noqa: S608 -- one of two names
            (seen,) = self._db.execute("select coalesce(sum(seen), 0) from swept").fetchone()
            excluded = self._db.execute(
                "select reason.key, sum(reason.value) from swept, json_each(excluded) as reason group by 1"
            ).fetchall()
            (repeated,) = self._db.execute("select repeated from pass").fetchone()
        return StageTotals(seen, dict(excluded), rows, size, repeated)

    def page(self, after: int, limit: int = PAGE_ROWS_MAX) -> list[StagedRow]:
        """Return up to `limit` rows in processing order that follow the `after`-th; empty at the end."""
        with self._guarded("read"):
            return self._db.execute(
                "select row_key, created_at, size from sorted where position > ? order by position limit ?",
                (after, limit),
            ).fetchall()

    def position_of(self, row_key: str) -> int:
        """Return the place of `row_key` in processing order, from 1.

        Raises:
            StageLost: it is not in the stage, so the stage is not the one it was sealed from.
        """
        with self._guarded("read"):
            found = self._db.execute("select position from sorted where row_key = ?", (row_key,)).fetchone()
        if found is None:
            raise StageLost(
                f"continue sealing from {stage_path(self._journal)}: the last sealed key is not in it"
            )
        return int(found[0])

    def repeated_key(self) -> str | None:
        """Return one key that was read more than once, or None."""
        with self._guarded("read"):
            found = self._db.execute("select row_key from repeated limit 1").fetchone()
        return None if found is None else str(found[0])

    def suspects(
        self, *, longer_than: int, reserved: str, after: int, limit: int = PAGE_ROWS_MAX
    ) -> list[tuple[int, str]]:
        """Return place and row key of rows after the `after`-th whose object key may be unusable.

        The condition is a superset that holds for every layout: SQLite filters ten million plain keys while
        Python would look at a fraction of them. No NUL among the characters: PostgreSQL's text holds none.

        Args:
            longer_than: bytes in UTF-8 up to which a row key can't be too long.
            reserved: what no object key may end with; it may stand backwards in a row key, or only begin in
                the prefix.
            after: place to continue after; 0 at first.
            limit: suspects returned at most.
        """
        with self._guarded("read"):
            return self._db.execute(
                "select position, row_key from sorted where position > ? and (row_key glob ? or row_key in ('', '.')"
                " or instr(row_key, '..') or instr(row_key, '\"\"') or length(cast(row_key as blob)) > ?"
                " or instr(row_key, ?) or instr(row_key, ?) or instr(?, row_key) or instr(?, row_key))"
                " order by position limit ?",
                (after, _SUSPECT_GLOB, longer_than, *(reserved, reserved[::-1]) * 2, limit),
            ).fetchall()

    @contextmanager
    def _guarded(self, operation: str) -> Iterator[None]:
        with _translated(stage_path(self._journal), operation):
            yield


_SUSPECT_GLOB = "*[/\\\x01-\x1f\x7f-\x9f]*"
_SCHEMA = """
create table pass (source integer not null, number integer not null, scope text not null,
    sort_order text not null, memo text not null, is_sorted integer not null, repeated integer not null) strict;
create table staged (row_key text not null, created_at integer, size integer not null,
    relation integer not null) strict;
create table swept (relation integer not null, filenode integer not null, first_block integer not null,
    next_block integer, seen integer not null, kept integer not null, excluded text not null) strict;
create table repeated (row_key text primary key, kept integer not null) strict, without rowid;
create table sorted (position integer primary key, row_key text not null, created_at integer,
    size integer not null) strict
"""


def _check_identity(connection: sqlite3.Connection, path: Path, identity: StageIdentity) -> None:
    if connection.execute("select 1 from sqlite_schema where name = 'pass'").fetchone() is None:
        raise StageLost(f"resume planning from {path}: its creation was interrupted")
    found = connection.execute("select source, number, scope, sort_order from pass").fetchone()
    expected = (identity.source, identity.number, identity.scope, identity.order.value)
    if found != expected:
        raise StageLost(f"resume planning from {path}: it belongs to {found}, expected {expected}")


def _connect(path: Path) -> sqlite3.Connection:
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
    with _closing_on_failure(connection):
        for pragma in pragmas:
            connection.execute(f"pragma {pragma}")
        spill_into(connection, path.parent)
    return connection


@contextmanager
def _closing_on_failure(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


@contextmanager
def _translated(path: Path, operation: str) -> Iterator[None]:
    """Turn errors of SQLite and of the file system into the journal's."""
    try:
        yield
    except OSError as exc:
        raise JournalFailed(f"{operation} {path}: {exc.strerror}", "check the journal's directory") from exc
    except sqlite3.DatabaseError as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise JournalFull(
                f"{operation} {path}: the disk is full", "free space, then run again: planning resumes"
            ) from exc
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise StageLost(f"{operation} {path}: {exc}") from exc
        raise JournalFailed(
            f"{operation} {path}: {exc}", "check the disk, then run again: planning resumes"
        ) from exc
