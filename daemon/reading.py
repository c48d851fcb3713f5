"""What backfillctl asks of PostgreSQL: describe a table, sweep and scan it for planning, fetch its values.

Planning reads survive a lost server by themselves: they are repeated with backoff until it has been silent for
`give_up_after`. A fetch does not wait: its caller decides, since it knows what else is going on.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from daemon import catalogue
from daemon.catalogue import FirstServer, Writers
from daemon.crowding import CROWDED, in_halves
from daemon.describing import Session, describe, null_keys_error
from daemon.errors import SourceUnfitError, UnreachableError
from daemon.health import Health, ReplayMark, measure
from daemon.retrying import Failure, FailureClass, backoff
from daemon.row_digests import digested
from daemon.row_queries import Relation, RowQueries, joined, sort_out, unindexed_scans
from daemon.rows import (
    Exclusions,
    FetchedRow,
    RowDigest,
    ServerFacts,
    SweptRange,
    SweptRow,
    TableFacts,
    Wanted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
    from random import Random

    from daemon.config import SourceConfig, ThrottleConfig

T = TypeVar("T")


class PostgresSource:
    """A PostgreSQL server as the source of a migration."""

    def __init__(
        self,
        planning: Session,
        fetching: Sequence[Session],
        measuring: Session,
        *,
        first_server: FirstServer,
        utf8: bool,
        give_up_after: float,
        random: Random,
    ) -> None:
        """Read through `planning` for short statements and `fetching` for values and scans.

        Args:
            planning: shared by callers, one statement at a time.
            fetching: lent to one caller at a time.
            measuring: takes readings, for one caller at a time.
            first_server: the server that the sessions' first connection reached.
            utf8: the database's encoding is UTF8.
            give_up_after: seconds of silence that a planning read bears.
            random: source of backoff jitter.
        """
        self._planning = planning
        self._fetching = tuple(fetching)
        self._measuring = measuring
        self._replay = ReplayMark()
        self._idle = deque(fetching)
        self._lent = trio.Semaphore(len(fetching))
        self._first_server = first_server
        self._give_up_after = give_up_after
        self._random = random
        self._utf8 = utf8

    def __repr__(self) -> str:
        return f"PostgresSource({self._planning.where})"

    async def server(self) -> ServerFacts:
        """Return which server answers, and its clock.

        Raises:
            RefusedError: it is not, or no longer, the server that the first connection reached.
            UnreachableError: silent for `give_up_after`.
        """
        (row,) = await self._patiently(lambda: self._planning.fetch(catalogue.SERVER, operation="IDENTIFY"))
        facts = ServerFacts(*row)
        self._first_server.admit(facts, self._planning.where)
        return facts

    async def replayed_lsn(self) -> str | None:
        """Return up to where a standby has replayed its primary's log; None elsewhere, or where it has nothing.

        Raises:
            UnreachableError: silent for `give_up_after`.
        """
        ((position,),) = await self._patiently(
            lambda: self._planning.fetch(catalogue.REPLAYED, operation="IDENTIFY")
        )
        return None if position is None else str(position)

    async def describe(self, spec: SourceConfig) -> TableFacts:
        """Look the source's table up and judge it.

        Raises:
            SourceUnfitError: lists everything that keeps the source from being migrated.
            RefusedError: the same, where all that is missing are rights.
            UnreachableError: silent for `give_up_after`.
        """
        return await self._patiently(lambda: describe(self._planning, spec))

    async def check_fetch_plan(self, spec: SourceConfig, facts: TableFacts) -> None:
        """See by EXPLAIN that values are fetched through an index.

        Raises:
            SourceUnfitError: PostgreSQL would read the whole table for each batch.
        """
        queries = self.queries(spec, facts)
        # Pruning would leave no partition in the plan: the sample's key belongs to none.
        unpruned = {"enable_partition_pruning": "off"}

        async def explain() -> list[Any]:
            async with self._lend() as session:
                return await session.fetch(
                    f"EXPLAIN (FORMAT JSON) {queries.fetch()}",
                    *queries.sample_arguments(),
                    operation="EXPLAIN",
                    local=unpruned,
                )

        ((plan,),) = await self._patiently(explain)
        scans = unindexed_scans(json.loads(plan))
        if scans:
            raise SourceUnfitError(
                f'source "{spec.name}" ({queries.table.sql}): no index serves to fetch rows by {", ".join(spec.key)}; '
                f"the plan has {', '.join(scans)}",
                "create an index on the key, or plan with --allow-seqscan and bear one table scan per batch of keys",
            )

    async def sweep_range(
        self,
        spec: SourceConfig,
        facts: TableFacts,
        *,
        relation: int,
        first_block: int,
        next_block: int | None,
        cutoff_us: int,
    ) -> SweptRange:
        """Read the planning columns of the blocks from `first_block` up to `next_block` of one heap.

        A range that the server cancels (statement_timeout, recovery conflict) is read in halves. A heap that is
        no more yields nothing, under the filenode 0.

        Raises:
            SourceUnfitError: a key holds a NULL, or the row can't be read as configured.
            RefusedError: a right is missing.
            UnreachableError: silent, or crowded out, for `give_up_after`.
        """
        queries = self.queries(spec, facts)
        arguments = [cutoff_us] if queries.dated else []
        return await self._patiently(
            lambda: self._sweep(queries, relation, first_block, next_block, arguments)
        )

    @asynccontextmanager
    async def scan(
        self, spec: SourceConfig, facts: TableFacts, *, cutoff_us: int
    ) -> AsyncIterator[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        """Read the planning columns of the whole source in one REPEATABLE READ, READ ONLY snapshot.

        Yields batches of rows, exclusions and the number of rows seen, excluded ones included. The snapshot is
        taken when the context is entered.

        Raises:
            Failure: the snapshot is lost (connection, recovery conflict); only a new scan helps.
            SourceUnfitError: a key holds a NULL, or a row can't be read as configured.
        """
        queries = self.queries(spec, facts)
        arguments = [cutoff_us] if queries.dated else []
        async with (
            self._lend() as session,
            session.scan(queries.scan(), *arguments, operation="SCAN") as batches,
            aclosing(self._sorted_out(queries, batches)) as sorted_out,
        ):
            yield sorted_out

    async def writers_before(self, cutoff_us: int) -> Writers:
        """Return what could still add rows dated before `cutoff_us`.

        Running transactions are read first and prepared ones after, in a later statement: one that is prepared
        in between is seen at least once.

        Raises:
            RefusedError: a standby was promoted meanwhile.
            UnreachableError: silent for `give_up_after`.
        """

        async def look() -> Writers:
            (row,) = await self._planning.fetch(catalogue.WRITERS, cutoff_us, self._pids, operation="WATCH")
            now_us, in_recovery, replay_us, reads_all_stats, pids, untracked = row
            self._first_server.admit_role(self._planning.where, in_recovery=in_recovery)
            # On a standby the view says nothing of prepared transactions of the primary either.
            prepared = await self._planning.fetch(catalogue.PREPARED, operation="WATCH")
            return Writers(
                now_us=now_us,
                visible=reads_all_stats and not in_recovery and not untracked,
                pids=tuple(pids),
                prepared=tuple(gid for (gid,) in prepared),
                in_recovery=in_recovery,
                replay_us=replay_us,
            )

        return await self._patiently(look)

    async def health(self, throttle: ThrottleConfig) -> Health:
        """Take the readings that `throttle` asks for, each within its `reading_timeout`.

        What can't be read is a reading without a value, not an error.

        Raises:
            RefusedError: a new connection was refused or reached another server; a standby was promoted.
        """
        return await measure(
            self._measuring,
            throttle,
            ours=self._pids,
            first_server=self._first_server,
            replay=self._replay,
        )

    async def fetch(
        self, spec: SourceConfig, facts: TableFacts, wanted: Sequence[Wanted]
    ) -> list[FetchedRow]:
        """Return the rows of `wanted` that still exist, in any order.

        A row whose value has become NULL since it was planned is absent too, unless `null_value` is "empty":
        like a deleted one it has nothing left to copy, and the caller records both as vanished. A batch that the
        server cancels is read in halves, down to single keys.

        Raises:
            Failure: with operation FETCH; `answered` says whether the server did.
            RefusedError, SourceUnfitError: a right, the table or a column is gone.
        """
        queries = self.queries(spec, facts)
        async with self._lend() as session:
            return await in_halves(
                wanted, lambda batch: self._fetch_batch(session, queries, batch), random=self._random
            )

    async def row_digests(
        self, spec: SourceConfig, facts: TableFacts, row_keys: Sequence[str], *, with_sha256: bool
    ) -> dict[str, RowDigest]:
        """Return size and digests, computed by the server, of those rows that still exist, by row key.

        A row whose value is NULL is absent, unless `null_value` is "empty".

        Raises:
            SourceUnfitError: a row can't be read as configured.
            RefusedError: a right is missing.
            UnreachableError: silent, or crowded out, for `give_up_after`.
        """
        queries = self.queries(spec, facts)

        async def read() -> list[RowDigest]:
            async with self._lend() as session:
                return await in_halves(
                    row_keys,
                    lambda batch: digested(session, queries, batch, with_sha256=with_sha256),
                    random=self._random,
                )

        return {row.row_key: row for row in await self._patiently(read)}

    async def _fetch_batch(
        self, session: Session, queries: RowQueries, batch: Sequence[Wanted]
    ) -> list[FetchedRow]:
        arguments = queries.fetch_arguments([key.row_key for key in batch], [key.reserved for key in batch])
        found = await session.fetch(queries.fetch(), *arguments, operation="FETCH")
        empty_for_null = queries.spec.null_value == "empty"
        names = queries.spec.metadata
        rows: dict[str, FetchedRow] = {}
        asked = {key.row_key for key in batch}
        for row_key, size, value, created_at, *texts in found:
            if row_key in rows or row_key not in asked:
                problem = (
                    "more than one row has this key" if row_key in rows else "the server answered another key"
                )
                raise Failure(
                    FailureClass.UNSUITABLE_VALUE,
                    "FETCH",
                    f"fetch of {row_key!r}: {problem}",
                    keys=(row_key,),
                )
            if size is None and not empty_for_null:
                continue
            metadata = {name: text for name, text in zip(names, texts, strict=True) if text is not None}
            content = b"" if size is None else value
            rows[row_key] = FetchedRow(row_key, size or 0, content, created_at, metadata)
        return list(rows.values())

    async def _sweep(
        self,
        queries: RowQueries,
        relation: int,
        first_block: int,
        next_block: int | None,
        arguments: list[int],
    ) -> SweptRange:
        named = await self._planning.fetch(catalogue.NAME_OF, relation, operation="SWEEP")
        if not named:
            return SweptRange(relation, 0, first_block, next_block, 0, [], Exclusions())
        schema, name, blocks = named[0]
        bounds = [(first_block, 0)] if next_block is None else [(first_block, 0), (next_block, 0)]
        statement = queries.sweep(Relation(schema, name), bounded=next_block is not None)
        try:
            found = await self._planning.fetch(statement, *bounds, *arguments, operation="SWEEP")
        except Failure as failure:
            last = blocks if next_block is None else next_block
            if not (failure.answered and failure.kind in CROWDED) or last - first_block < 2:
                raise
            middle = (first_block + last) // 2
            left = await self._sweep(queries, relation, first_block, middle, arguments)
            right = await self._sweep(queries, relation, middle, next_block, arguments)
            return joined(left, right)
        kept, excluded, null_keys = sort_out(found)
        if null_keys:
            raise null_keys_error(null_keys, queries)
        seen = len(found) if found[0][0] is not None else 0
        return SweptRange(relation, found[0][-1] or 0, first_block, next_block, seen, kept, excluded)

    async def _sorted_out(
        self, queries: RowQueries, batches: AsyncIterator[list[Any]]
    ) -> AsyncGenerator[tuple[list[SweptRow], Exclusions, int], None]:
        try:
            async for batch in batches:
                kept, excluded, null_keys = sort_out(batch)
                if null_keys:
                    raise null_keys_error(null_keys, queries)
                yield kept, excluded, len(batch)
        except Failure as failure:
            if failure.kind is FailureClass.UNSUITABLE_VALUE:
                raise _unreadable(failure) from failure
            raise

    @property
    def _pids(self) -> list[int]:
        return [session.backend_pid for session in (self._planning, self._measuring, *self._fetching)]

    def queries(self, spec: SourceConfig, facts: TableFacts) -> RowQueries:
        """Return the statements of a source in this database."""
        return RowQueries(spec, facts, self._utf8)

    @asynccontextmanager
    async def _lend(self) -> AsyncIterator[Session]:
        async with self._lent:
            session = self._idle.pop()
            try:
                yield session
            finally:
                self._idle.append(session)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat a read that fails for reasons that pass, until they have lasted `give_up_after`."""
        begun = trio.current_time()
        failures = 0
        while True:
            try:
                return await attempt()
            except Failure as failure:
                if failure.kind is FailureClass.UNSUITABLE_VALUE:
                    raise _unreadable(failure) from failure
                failures += 1
                if trio.current_time() - begun >= self._give_up_after:
                    raise UnreachableError(
                        f"{failure.message}; given up after {self._give_up_after:g} s and {failures} attempts",
                        "check that the server runs; raise postgres.statement_timeout if statements are cancelled",
                    ) from failure
                await trio.sleep(backoff(failures, self._random.random()))


def _unreadable(failure: Failure) -> SourceUnfitError:
    return SourceUnfitError(
        f"{failure.message}: a row can't be read as configured",
        "mend the row, or leave it out through source.where",
    )
