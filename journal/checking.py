"""Check a journal against itself: structure, guards, chain, plan hashes, and the projections folded again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal import schema
from journal.chunks import is_sealed
from journal.connection import reading_back
from journal.errors import JournalCorrupt
from journal.events import CHAIN_START, StoredEvent, decode, link
from journal.projections import Projector

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from journal.reader import Reader

PROBLEMS_MAX = 20
"""After so many problems the check stops: one flipped page makes hundreds."""
EVENTS_PER_PAGE = 200
"""Events read and folded in one transaction."""
KEYS_PER_PAGE = 50_000
"""Ordinals compared in one transaction."""

_PROJECTION = "projection"
"""How every problem begins that concerns projections alone."""

_LARGE = ("outcome", "key_event")
_SMALL = tuple(table for table in schema.PROJECTIONS if table not in _LARGE)


def problems(reader: Reader) -> list[str]:
    """Return what is wrong with the journal, at most about PROBLEMS_MAX findings; empty if it is sound."""
    with reader.working_connection() as connection:
        check = _Check(connection)
        if reader.owner() is None:
            check.structure()
        if check.found:
            # What is read through broken pages means nothing.
            return check.found
        with reading_back(reader.path, connection):
            check.guards(reader)
            if check.log():
                check.plan()
                check.projections()
        return check.found


def mended_by_rebuild(found: Sequence[str]) -> bool:
    """Say whether all of these problems concern projections, so that the log is sound and gives them anew."""
    return all(problem.startswith(_PROJECTION) for problem in found)


class _Check:
    """One check in progress; `found` collects the problems."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.found: list[str] = []
        self._connection = connection
        schema.create_temporary_projections(connection)
        self._projector = Projector(connection)
        self._seq = 0
        self._chain = CHAIN_START

    @property
    def _enough(self) -> bool:
        return len(self.found) >= PROBLEMS_MAX

    def structure(self) -> None:
        """Let SQLite check its pages and indexes; it may take minutes, so only while no daemon is kept from checkpointing."""
        for (line,) in self._connection.execute(f"PRAGMA main.integrity_check({PROBLEMS_MAX})"):
            if line != "ok":
                self.found.append(f"structure: {line}")

    def guards(self, reader: Reader) -> None:
        """Check that the log could not be edited unnoticed."""
        try:
            schema.check_guards(self._connection, reader.path)
        except JournalCorrupt as error:
            self.found.append(error.problem)

    def log(self) -> bool:
        """Check the chain over all events and fold each; False if it breaks, and nothing after it means anything."""
        (head_seq,) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
        while self._seq < head_seq:
            if not self._page():
                return False
        return True

    def _page(self) -> bool:
        self._connection.execute("BEGIN")
        try:
            for row in self._connection.execute(
                "SELECT seq, ts, kind, version, source, data, chain FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
                (self._seq, EVENTS_PER_PAGE),
            ).fetchall():
                seq, ts_us, kind, version, source, text, chain = row
                expected = link(self._chain, seq, ts_us, kind, version, source, text)
                if seq != self._seq + 1 or chain != expected:
                    self.found.append(f"chain: event {seq} does not continue the chain of event {self._seq}")
                    return False
                self._projector.apply(StoredEvent(seq, ts_us, kind, version, source, decode(seq, text)), text)
                self._seq, self._chain = seq, chain
            self._projector.mark_projected(self._seq)
        except JournalCorrupt as error:
            self.found.append(f"log: {error.problem}")
            return False
        finally:
            self._connection.execute("COMMIT")
        return True

    def plan(self) -> None:
        """Check every chunk of the plan that the log tells of against its hash, and that there is nothing else."""
        last = 0
        for lo, hi, digest in self._connection.execute(
            "SELECT lo, hi, digest FROM temp.chunk ORDER BY lo"
        ).fetchall():
            if self._enough:
                return
            rows = self._connection.execute(
                "SELECT row_key, created_at, size, supersedes FROM plan WHERE ordinal BETWEEN ? AND ?",
                (lo, hi),
            ).fetchall()
            if lo != last + 1 or not is_sealed(rows, digest):
                self.found.append(
                    f"plan: the chunk of ordinals {lo} to {hi} contradicts the hash in its event"
                )
            last = hi
        (planned,) = self._connection.execute(
            "SELECT count(*) FROM plan WHERE ordinal > ? AND NOT EXISTS"
            " (SELECT 1 FROM main.chunk c WHERE plan.ordinal BETWEEN c.lo AND c.hi)",
            (last,),
        ).fetchone()
        if planned:
            self.found.append(f"plan: {planned} rows after ordinal {last} are in no event")

    def projections(self) -> None:
        """Compare each projection with the fold of the same events."""
        self._connection.execute("BEGIN")
        try:
            (head_seq,) = self._connection.execute("SELECT projected_seq FROM main.progress").fetchone() or (
                0,
            )
            if head_seq < self._seq:
                self.found.append(
                    f"{_PROJECTION}s: they end at event {head_seq}, the log at event {self._seq};"
                    " opening the journal for writing brings them up"
                )
                return
        finally:
            self._connection.execute("COMMIT")
        (newest,) = self._connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
        if head_seq > newest:
            self.found.append(f"{_PROJECTION}s: they end at event {head_seq}, the log at event {newest}")
            return
        while self._seq < head_seq:
            if not self._page():
                return
        self._compare_small()
        (highest,) = self._connection.execute("SELECT coalesce(max(ordinal), 0) FROM plan").fetchone()
        for table in _LARGE:
            columns = "ordinal, code, seq, size" if table == "outcome" else "ordinal, seq"
            for lo in range(1, highest + 1, KEYS_PER_PAGE):
                if self._enough:
                    return
                where = f"WHERE ordinal BETWEEN {lo} AND {lo + KEYS_PER_PAGE - 1} AND seq <= {self._seq}"
                self._compare(table, columns, where)

    def _compare_small(self) -> None:
        """Compare the small tables in one snapshot, folding first what a daemon has added since."""
        self._connection.execute("BEGIN")
        try:
            rows = self._connection.execute(
                "SELECT seq, ts, kind, version, source, data, chain FROM event WHERE seq > ? ORDER BY seq",
                (self._seq,),
            ).fetchall()
            for seq, ts_us, kind, version, source, text, chain in rows:
                self._projector.apply(StoredEvent(seq, ts_us, kind, version, source, decode(seq, text)), text)
                self._seq, self._chain = seq, chain
            self._projector.mark_projected(self._seq)
            for table in _SMALL:
                self._compare(table, "*", "")
        except JournalCorrupt as error:
            self.found.append(f"log: {error.problem}")
        finally:
            self._connection.execute("COMMIT")

    def _compare(self, table: str, columns: str, where: str) -> None:
        stored = f"SELECT {columns} FROM main.{table} {where}"  # noqa: S608 -- our own names
        folded = f"SELECT {columns} FROM temp.{table} {where}"  # noqa: S608
        for first, second, verdict in (
            (stored, folded, "has rows that the log does not give"),
            (folded, stored, "lacks rows that the log gives"),
        ):
            rows = self._connection.execute(f"{first} EXCEPT {second} LIMIT 2").fetchall()
            if rows:
                self.found.append(f"{_PROJECTION} {table} {verdict}, such as {rows[0]!r}")
