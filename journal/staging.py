"""Stage the keys of one planning pass unsorted, then hand them out in processing order.

`<journal>.stage` is a throw-away SQLite file: its loss costs a new scan, never a key. It is no part of the
event log, so it may be deleted, and it is as soon as its pass is sealed. Rows and the progress of the block
range that brought them are stored in one transaction, so planning resumes where it was killed.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from journal.checkpoint import Order
from journal.errors import JournalFailed
from journal.stage_file import (
    SCHEMA,
    StageLost,
    check_format,
    closing_on_failure,
    connect,
    crc_of,
    crc_of_key,
    discard_stage,
    stage_path,
    translated,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

PAGE_ROWS_MAX = 10_000
"""Rows handed out at once: one chunk of the plan."""

StagedRow: TypeAlias = tuple[str, int | None, int]
"""Row key, created_at in microseconds since 1970-01-01 UTC or None, size in bytes."""


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
        repeated: reads of a key beyond its first; known after `sort`.
        repeated_key: one key that was read more than once, or None.
    """

    seen: int
    excluded: dict[str, int]
    repeated: int = 0
    repeated_key: str | None = None


class Stage:
    """The open stage of one pass; one thread at a time; every change is one transaction.

    Attributes:
        memo: what the planner must not forget while the pass lasts, as it gave it at creation.
    """

    def __init__(self, journal: Path, connection: sqlite3.Connection, identity: StageIdentity) -> None:
        self._journal = journal
        self._db = connection
        self._identity = identity
        with self._guarded("read"):
            kept = list(self._checked(connection.execute("select * from pass")))
            done = list(self._checked(connection.execute("select * from sorting")))
        belongs = (identity.source, identity.number, identity.scope, identity.order.value)
        if len(kept) != 1 or kept[0][:-1] != belongs or len(done) > 1:
            raise self._lost(f"it belongs to {[row[:-1] for row in kept]}, expected {belongs}")
        self.memo: str = kept[0][-1]
        self._rows: int | None = None
        if done:
            self._rows, seen, excluded, repeated, key = done[0]
            self._totals = StageTotals(seen, json.loads(excluded), repeated, key)

    @classmethod
    def create(cls, journal: Path, identity: StageIdentity, *, memo: str) -> Stage:
        """Begin an empty stage beside `journal`; what was staged before is discarded.

        Raises:
            JournalFull, JournalFailed: the file can't be written.
        """
        discard_stage(journal)
        path = stage_path(journal)
        with translated(path, "create"):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            connection = connect(path)
            with closing_on_failure(connection):
                with connection:
                    connection.execute("begin immediate")
                    for statement in SCHEMA.split(";"):
                        connection.execute(statement)
                    row = (identity.source, identity.number, identity.scope, identity.order.value, memo)
                    connection.execute("insert into pass values (?, ?, ?, ?, ?, ?)", (*row, crc_of(*row)))
                try:
                    return cls(journal, connection, identity)
                except StageLost as lost:  # what was written this moment is read otherwise
                    raise JournalFailed(lost.problem, "check the disk, then run again") from lost

    @classmethod
    def resume(cls, journal: Path, identity: StageIdentity) -> Stage:
        """Open the stage that an earlier process left.

        Raises:
            StageLost: there is none, it is damaged, or it belongs to something else.
        """
        path = stage_path(journal)
        if not path.exists():
            raise StageLost(f"resume planning from {path}: the file is gone")
        with translated(path, "resume"):
            connection = connect(path)
            with closing_on_failure(connection):
                check_format(connection, path)
                return cls(journal, connection, identity)

    @property
    def is_sorted(self) -> bool:
        """Whether `sort` has been completed; nothing can be added any more."""
        return self._rows is not None

    def close(self) -> None:
        """Close the file and keep it, to be resumed."""
        self._db.close()

    def discard(self) -> None:
        """Close and delete the file: its pass is sealed, or given up."""
        self._db.close()
        discard_stage(self._journal)

    def progress(self) -> dict[int, RelationProgress]:
        """Return how far each relation that was begun has been swept.

        Raises:
            StageLost: a range is not as it was kept, or does not follow the one before.
        """
        return {swept[0]: RelationProgress(swept[1], swept[3]) for swept in self._swept()}

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
            last = (filenode, 0)
            for kept in self._checked(
                self._db.execute(
                    "select * from swept where relation = ? order by rowid desc limit 1", (relation,)
                )
            ):
                last = (kept[1], kept[3])
            if last != (filenode, first_block) or self.is_sorted:
                raise ValueError(
                    f"range at block {first_block} of {relation}/{filenode} does not follow {last}"
                )
            before = self._db.total_changes
            insert = f"insert into staged values (?, ?, ?, {relation:d}, ?)"  # noqa: S608 -- an integer
            self._db.executemany(
                insert, ((key, at, size, crc_of_key(key, at, size)) for key, at, size in rows)
            )
            added = self._db.total_changes - before
            swept = (relation, filenode, first_block, next_block, seen, added, json.dumps(dict(excluded)))
            self._db.execute("insert into swept values (?, ?, ?, ?, ?, ?, ?, ?)", (*swept, crc_of(*swept)))

    def restart_relation(self, relation: int) -> None:
        """Forget what was read of `relation`: it was rewritten in mid-sweep, or has left the table."""
        with self._guarded("write"), self._db:
            self._db.execute("begin immediate")
            self._db.execute("delete from staged where relation = ?", (relation,))
            self._db.execute("delete from swept where relation = ?", (relation,))

    def sort(self) -> None:
        """Put the rows in processing order, each key once: of repeated reads the last one counts.

        Raises:
            StageLost: rows are missing that a range had brought, or are not what it brought.
        """
        ranges = self._swept()
        totals = _counted(ranges)
        expected = sum(swept[5] for swept in ranges)
        with self._guarded("sort"), self._db:
            self._db.execute("begin immediate")
            (staged,) = self._db.execute("select count(*) from staged").fetchone()
            if staged != expected:
                raise self._lost(f"{staged} rows, expected {expected}")
            repeated, key = self._drop_repeats()
            direction = "desc" if self._identity.order is Order.NEWEST_FIRST else "asc"
            for part in (
                f"where created_at is not null order by created_at {direction}, row_key {direction}",
                "where created_at is null order by row_key",
            ):
                ordered = f"insert into sorted select null, row_key, created_at, size, crc from staged {part}"  # noqa: S608 -- constants
                self._db.execute(ordered)
            (rows,) = self._db.execute("select coalesce(max(position), 0) from sorted").fetchone()
            if rows != staged - repeated:
                raise self._lost(f"{rows} rows sorted of {staged}, {repeated} repeated")
            done = (rows, totals.seen, json.dumps(totals.excluded), repeated, key)
            self._db.execute("insert into sorting values (?, ?, ?, ?, ?, ?)", (*done, crc_of(*done)))
        self._rows, self._totals = rows, StageTotals(totals.seen, totals.excluded, repeated, key)

    def _drop_repeats(self) -> tuple[int, str | None]:
        """Delete all reads of a repeated key but the last; return how many, and one such key."""
        self._db.execute(
            "create temp table repeated (row_key text primary key, kept integer, dropped integer)"
        )
        self._db.execute(
            "insert into repeated select row_key, max(rowid), count(*) - 1 from staged group by row_key having count(*) > 1"
        )
        repeated, key = self._db.execute(
            "select coalesce(sum(dropped), 0), min(row_key) from repeated"
        ).fetchone()
        if repeated:
            # Only the order tells which read was the last, and a key with a flipped bit may be another's repeat.
            (found,) = self._db.execute("pragma quick_check(staged)").fetchone()
            if found != "ok":
                raise self._lost(str(found))
            reads = self._db.execute(
                "select row_key, created_at, size, crc from staged where row_key in (select row_key from repeated)"
            )
            for _ in self._checked(reads):
                pass
            self._db.execute(
                "delete from staged where row_key in (select row_key from repeated)"
                " and rowid not in (select kept from repeated)"
            )
        self._db.execute("drop table repeated")
        return repeated, key

    def totals(self) -> StageTotals:
        """Count what is staged.

        Raises:
            StageLost: a range is not as it was kept, or does not follow the one before.
        """
        if self.is_sorted:
            return self._totals
        return _counted(self._swept())

    def page(self, after: int, limit: int = PAGE_ROWS_MAX) -> list[StagedRow]:
        """Return up to `limit` rows in processing order that follow the `after`-th; empty at the end.

        Raises:
            StageLost: a row is missing, or not as it was staged.
        """
        with self._guarded("read"):
            found = self._db.execute(
                "select position, row_key, created_at, size, crc from sorted where position > ?"
                " order by position limit ?",
                (after, limit),
            ).fetchall()
        end = min(after + limit, self._rows or 0)
        if list(map(itemgetter(0), found)) != list(range(after + 1, end + 1)):
            raise self._lost(f"rows missing between {after + 1} and {end}")
        rows = [(key, at, size) for _, key, at, size, crc in found if crc_of_key(key, at, size) == crc]
        if len(rows) != len(found):
            raise self._lost(_ALTERED)
        return rows

    def position_of(self, row_key: str) -> int:
        """Return the place of `row_key` in processing order, from 1.

        Raises:
            StageLost: it is not in the stage, so the stage is not the one it was sealed from.
        """
        with self._guarded("read"):
            found = self._db.execute(
                "select position, row_key, created_at, size, crc from sorted where row_key = ?", (row_key,)
            ).fetchone()
            if found is None:
                raise self._lost("the last sealed key is not in it")
            position = int(found[0])
            list(self._checked([found[1:]]))
            (before,) = self._db.execute(
                "select count(*) from sorted where position < ?", (position,)
            ).fetchone()
        if before != position - 1:
            raise self._lost(f"{before} rows stand before the {position}th")
        return position

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

        Raises:
            StageLost: one is not as it was staged.
        """
        with self._guarded("read"):
            found = self._db.execute(
                "select position, row_key, created_at, size, crc from sorted where position > ? and (row_key glob ? or row_key in ('', '.')"
                " or instr(row_key, '..') or instr(row_key, '\"\"') or length(cast(row_key as blob)) > ?"
                " or instr(row_key, ?) or instr(row_key, ?) or instr(?, row_key) or instr(?, row_key))"
                " order by position limit ?",
                (after, _SUSPECT_GLOB, longer_than, *(reserved, reserved[::-1]) * 2, limit),
            ).fetchall()
        rows = self._checked(row[1:] for row in found)
        return [(row[0], key) for row, (key, _, _) in zip(found, rows, strict=True)]

    def _swept(self) -> list[tuple[Any, ...]]:
        """Read the ranges, each behind the one before of its relation."""
        with self._guarded("read"):
            ranges = list(self._checked(self._db.execute("select * from swept order by rowid")))
        ends: dict[int, tuple[int, int | None]] = {}
        for relation, filenode, first_block, next_block, *_ in ranges:
            if ends.get(relation, (filenode, 0)) != (filenode, first_block):
                raise self._lost(
                    f"range at block {first_block} of {relation}/{filenode} lacks the one before"
                )
            ends[relation] = (filenode, next_block)
        return ranges

    def _checked(self, rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
        """Yield rows without the checksum that each ends with."""
        for row in rows:
            *values, crc = row
            if crc_of(*values) != crc:
                raise self._lost(_ALTERED)
            yield tuple(values)

    def _lost(self, found: str) -> StageLost:
        return StageLost(f"read {stage_path(self._journal)}: {found}", "planning scans the table again")

    @contextmanager
    def _guarded(self, operation: str) -> Iterator[None]:
        with translated(stage_path(self._journal), operation):
            yield


def _counted(ranges: Iterable[Sequence[Any]]) -> StageTotals:
    excluded: Counter[str] = Counter()
    seen = 0
    for swept in ranges:
        seen += swept[4]
        excluded.update(json.loads(swept[6]))
    return StageTotals(seen, dict(excluded))


_ALTERED = "a row is not what was written"
_SUSPECT_GLOB = "*[/\\\x01-\x1f\x7f-\x9f]*"
