"""Bring batches of rows from the bucket into a table, each compared by the server before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from daemon.errors import BackfillError, UnreachableError
from daemon.layouts import Layout, object_key
from daemon.log_events import LogEvent, log_event
from daemon.restoring import Comparison, RestoreTally, compare, filled, tells_its_row
from daemon.retrying import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from daemon.describing import Session
    from daemon.drain import Drain
    from daemon.objects import ObjectFacts
    from daemon.restore_queries import RestoredRow, RestoreQueries

T = TypeVar("T")

_SIZE_GRACE = 1
"""One byte more than expected is enough to know that an object is another."""


class ReadObject(Protocol):
    """Reads one object, repeated as long as that helps."""

    async def __call__(self, key: str, size_max: int, /) -> tuple[ObjectFacts, bytes] | None:
        """Return it, None if nothing is there; raises Failure if it can't be had."""


async def asked(statement: Awaitable[T]) -> T:
    """Return what a statement brings.

    Raises:
        UnreachableError: the server did not answer; what it was asked may have been done.
        BackfillError: it refused.
    """
    try:
        return await statement
    except Failure as failure:
        if not failure.answered:
            raise UnreachableError(
                failure.message, "the same command goes on: rows that are there are only compared"
            ) from failure
        raise BackfillError(
            failure.message, "mend what the server names; the same command goes on"
        ) from failure


class Restoration:
    """One restore into one table, or a look at what it would do; `tally` says how far it is at any time."""

    def __init__(
        self,
        queries: RestoreQueries,
        session: Session,
        read: ReadObject,
        tally: RestoreTally,
        *,
        concurrency: int,
        tell_seconds: float,
        drain: Drain,
        layout: Layout,
        confirmed: bool,
    ) -> None:
        """Prepare.

        Args:
            queries: for a table that fits.
            session: may write, where `confirmed`.
            read: reads objects.
            tally: is counted up.
            concurrency: objects read at once.
            tell_seconds: between two log lines about how far it is.
            drain: once requested, no batch is begun any more.
            layout: names the objects.
            confirmed: write; else only compare.
        """
        self._queries = queries
        self._session = session
        self._read = read
        self._tally = tally
        self._concurrency = concurrency
        self._tell_seconds = tell_seconds
        self._drain = drain
        self._layout = layout
        self._confirmed = confirmed

    async def run(self, batches: Iterable[Sequence[RestoredRow]]) -> None:
        """Go through all batches.

        Raises:
            BackfillError: PostgreSQL or S3 lets nothing more be done.
        """
        told = trio.current_time()
        for batch in batches:
            if self._drain:
                return
            await self._restore(batch)
            if trio.current_time() - told >= self._tell_seconds:
                told = trio.current_time()
                self._tell_progress()

    async def _restore(self, batch: Sequence[RestoredRow]) -> None:
        self._tally.rows += len(batch)
        self._tally.bytes += sum(row.size for row in batch)
        before = await self._compared(batch)
        self._tally.equal += len(before.equal)
        for row in before.different:
            self._differs(row, "the table has another value under this key; it is left as it is")
        if not self._confirmed:
            self._tally.restored += len(before.missing)
            self._tally.restored_bytes += sum(row.size for row in before.missing)
            return
        rows = await self._filled(before.missing)
        if not rows:
            return
        written = await asked(
            self._session.fetch(self._queries.insert(), *self._queries.arguments(rows), operation="WRITE")
        )
        after = await self._compared(rows)
        # Who was faster has written the very same, or it shows as different.
        beside = len(rows) - len(written)
        self._tally.restored += len(after.equal) - min(beside, len(after.equal))
        self._tally.equal += min(beside, len(after.equal))
        self._tally.restored_bytes += sum(row.size for row in after.equal)
        if self._tally.ordinals is not None:
            self._tally.ordinals += [row.ordinal for row in after.equal]
        for row in [*after.different, *after.missing]:
            self._differs(row, "written, but the table has not that value: a trigger or a rule changes it")

    async def _compared(self, rows: Sequence[RestoredRow]) -> Comparison:
        found = await asked(
            self._session.fetch(self._queries.compare(), *self._queries.keys(rows), operation="COMPARE")
        )
        return compare(rows, [(row["place"], row["size"], row["md5"]) for row in found])

    async def _filled(self, rows: Sequence[RestoredRow]) -> list[RestoredRow]:
        """Return those rows whose object was read and is the one on record."""
        found: list[RestoredRow] = []
        waiting = iter(rows)

        async def work() -> None:
            for row in waiting:
                key = object_key(self._layout, row.row_key)
                try:
                    answer = await self._read(key, row.size + _SIZE_GRACE)
                    if answer is None:
                        self._unread(row, key, "its object is missing")
                        continue
                    facts, body = answer
                    found.append(filled(row, self._queries.spec, facts, body))
                    self._tally.bare += not tells_its_row(facts)
                except Failure as failure:
                    self._unread(row, key, failure.message)
                except ValueError as problem:
                    self._unread(row, key, f"its object differs: {problem}")

        async with trio.open_nursery() as nursery:
            for _ in range(min(self._concurrency, len(rows))):
                nursery.start_soon(work)
        return found

    def _unread(self, row: RestoredRow, key: str, problem: str) -> None:
        self._tally.unread += 1
        self._left(row, key, problem)

    def _differs(self, row: RestoredRow, problem: str) -> None:
        self._tally.different += 1
        self._left(row, object_key(self._layout, row.row_key), problem)

    def _left(self, row: RestoredRow, key: str, problem: str) -> None:
        self._tally.name(row.row_key, problem)
        log_event(
            LogEvent.ROW_LEFT,
            f"{self._queries.spec.name}: row {row.row_key} is not restored: {problem}",
            source=self._queries.spec.name,
            keys=(row.row_key, key),
        )

    def _tell_progress(self) -> None:
        tally = self._tally
        word = "restored" if self._confirmed else "would restore"
        log_event(
            LogEvent.RESTORE_PROGRESS,
            f"{word} {tally.restored} of {tally.rows} rows so far; {tally.equal} were there already",
            source=self._queries.spec.name,
            rows=tally.rows,
            restored=tally.restored,
            equal=tally.equal,
        )
