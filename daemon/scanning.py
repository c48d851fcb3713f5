"""Drive the planning scans of one table: block range by block range, or one snapshot; effects by way of Protocols.

Scans hold no state of their own: what was read is handed to a collector, and a scan continues from what that
collector already has. Statements grow with the table's blocks, never with its keys, and the server sorts
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

import trio

from daemon.budget import Silence
from daemon.errors import BackfillError, UnreachableError
from daemon.log_events import LogEvent, log_event
from daemon.planning import RANGE_BLOCKS_FIRST, RANGE_ROWS_TARGET, next_range_blocks, range_end
from daemon.retrying import Disposition, Failure, decide
from daemon.rows import Exclusions, SweptRange, SweptRow
from journal.staging import RelationProgress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager
    from random import Random

    from daemon.config import SourceConfig
    from daemon.planning import Writers
    from daemon.rows import ServerFacts, TableFacts


RESTARTS_MAX = 5
"""Rewrites of one relation (VACUUM FULL, CLUSTER, ALTER TABLE) that a sweep bears before it gives up."""
FACTS_SECONDS_MAX = 10.0
"""Age of the relations' sizes at which they are read again before an unbounded last range."""
SNAPSHOT_RELATION = 0
"""Stands for the whole table in ranges that come from a cursor, numbered from 0 instead of by blocks."""

OnProgress: TypeAlias = Callable[[int, int, int], None]
"""Called with rows seen, blocks done and blocks in all; no blocks where a cursor reads."""


def no_progress(_rows_seen: int, _blocks_done: int, _blocks_total: int) -> None:
    """Show nothing."""


class PlanSource(Protocol):
    """PostgreSQL, as planning needs it.

    Short statements are repeated by the source itself until it gives up with UnreachableError or RefusedError; a
    snapshot can't be, so only `scan` raises Failure.
    """

    async def server(self) -> ServerFacts:
        """Say which server answers, and what its clock shows."""

    async def describe(self, spec: SourceConfig) -> TableFacts:
        """Return what the catalogue says now; raises SourceUnfitError with every problem of the table."""

    async def check_fetch_plan(self, spec: SourceConfig, facts: TableFacts) -> None:
        """Raise SourceUnfitError unless rows can be fetched back by key through an index."""

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
        """Read the rows of one block range of one relation; no upper bound where `next_block` is None.

        A relation that is gone has no rows and the filenode 0.
        """

    def scan(
        self, spec: SourceConfig, facts: TableFacts, *, cutoff_us: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        """Read all rows in bounded batches (rows, exclusions, rows seen), in one read-only snapshot."""

    async def writers_before(self, cutoff_us: int) -> Writers:
        """Say which transactions may still bring rows created before the cutoff."""


class Collector(Protocol):
    """Takes what a scan reads."""

    async def keep(self, swept: SweptRange) -> None:
        """Take one range; when this returns, the scan may continue behind it after a crash."""

    async def restart(self, relation: int) -> None:
        """Forget all ranges of `relation`."""


@dataclass(frozen=True, slots=True)
class ScanLimits:
    """How often and how long losing a snapshot is borne.

    Attributes:
        max_attempts: snapshots that the server may cancel.
        give_up_after: seconds of silence.
    """

    max_attempts: int
    give_up_after: float


class _Attempts:
    """Snapshots that were lost, and what follows from each."""

    def __init__(self, subject: str, limits: ScanLimits, random: Random) -> None:
        self._subject = subject
        self._limits = limits
        self._random = random
        self._silence = Silence()
        self._answers = 0
        self._failures = 0

    async def after(self, failure: Failure, *, rows_seen: int) -> None:
        """Wait as long as `failure` asks for, then return for another attempt.

        Args:
            failure: why the snapshot was lost.
            rows_seen: by this attempt; any row ends the server's silence.

        Raises:
            UnreachableError: another attempt would not help.
        """
        self._failures += 1
        self._answers += failure.answered
        if failure.answered or rows_seen:
            self._silence.broken()
        decision = decide(
            failure,
            answers=self._answers,
            failures=self._failures,
            max_attempts=self._limits.max_attempts,
            silent_seconds=0.0 if failure.answered else self._silence.unanswered(trio.current_time()),
            give_up_after=self._limits.give_up_after,
            jitter=self._random.random(),
            refreshed=True,
        )
        log_event(
            LogEvent.SNAPSHOT_LOST,
            f"plan {self._subject}: snapshot {self._failures} was lost: {failure.message}",
            source=self._subject,
            failures=self._failures,
            failure=failure.kind.value,
        )
        if decision.disposition is Disposition.RETRY:
            await trio.sleep(decision.delay)
            return
        raise UnreachableError(
            f"plan {self._subject}: {self._failures} snapshots were lost, the last one so: {failure.message}",
            "check that the server runs; on a standby, raise max_standby_streaming_delay; then run again",
        ) from failure


class Scanner:
    """Scans one source; `on_progress(rows_seen, blocks_done, blocks_total)` is called after each range."""

    def __init__(
        self,
        source: PlanSource,
        spec: SourceConfig,
        *,
        cutoff_us: int,
        limits: ScanLimits,
        random: Random,
        on_progress: OnProgress,
    ) -> None:
        self._source = source
        self._spec = spec
        self._cutoff_us = cutoff_us
        self._limits = limits
        self._random = random
        self._on_progress = on_progress
        self._seen = 0
        self._blocks: dict[int, int] = {}
        self._done: dict[int, int] = {}
        self._described = 0.0

    async def sweep(
        self, facts: TableFacts, collector: Collector, *, reached: Mapping[int, RelationProgress], seen: int
    ) -> None:
        """Read every relation of the table by block ranges, from where `reached` says.

        A row that moves meanwhile may be read twice or missed; the closing pass finds it.

        Args:
            facts: of the table, just described.
            collector: takes the ranges in order, relation by relation.
            reached: what an earlier process already handed over.
            seen: rows seen by that process.

        Raises:
            BackfillError: a relation was rewritten more than RESTARTS_MAX times.
        """
        self._seen = seen
        self._adopt(facts)
        self._done = {
            relation: facts.blocks.get(relation, 0) if at.next_block is None else at.next_block
            for relation, at in reached.items()
        }
        for relation in reached.keys() - set(facts.relations):
            await collector.restart(relation)
        for relation in facts.relations:
            await self._sweep_relation(facts, collector, relation, reached.get(relation))

    async def snapshot(self, facts: TableFacts, collector: Collector) -> None:
        """Read the whole table in one snapshot; a failure starts over with a new one.

        Raises:
            UnreachableError: too many snapshots were lost, or the server has been silent for too long.
        """
        attempts = _Attempts(self._spec.name, self._limits, self._random)
        while True:
            await collector.restart(SNAPSHOT_RELATION)
            self._seen = 0
            try:
                await self._snapshot_once(facts, collector)
            except Failure as failure:
                await attempts.after(failure, rows_seen=self._seen)
            else:
                return

    async def _snapshot_once(self, facts: TableFacts, collector: Collector) -> None:
        number = seen = 0
        rows: list[SweptRow] = []
        excluded = Exclusions()
        async with self._source.scan(self._spec, facts, cutoff_us=self._cutoff_us) as batches:
            async for batch, left_out, count in batches:
                rows += batch
                excluded.add(left_out)
                seen += count
                if seen >= RANGE_ROWS_TARGET:
                    await self._keep_batch(collector, number, rows, excluded, seen)
                    number, seen, rows, excluded = number + 1, 0, [], Exclusions()
        await self._keep_batch(collector, number, rows, excluded, seen)

    async def _keep_batch(
        self, collector: Collector, number: int, rows: list[SweptRow], excluded: Exclusions, seen: int
    ) -> None:
        await collector.keep(SweptRange(SNAPSHOT_RELATION, 0, number, number + 1, seen, rows, excluded))
        self._seen += seen
        self._on_progress(self._seen, 0, 0)

    async def _sweep_relation(
        self, facts: TableFacts, collector: Collector, relation: int, reached: RelationProgress | None
    ) -> None:
        restarts = 0
        blocks = RANGE_BLOCKS_FIRST
        while reached is None or reached.next_block is not None:
            first = 0 if reached is None or reached.next_block is None else reached.next_block
            end = await self._end_of(relation, first, blocks)
            begun = trio.current_time()
            swept = await self._source.sweep_range(
                self._spec,
                facts,
                relation=relation,
                first_block=first,
                next_block=end,
                cutoff_us=self._cutoff_us,
            )
            if reached is not None and swept.filenode != reached.filenode:
                restarts += 1
                await self._begin_again(collector, relation, restarts)
                reached = None
                continue
            await collector.keep(swept)
            reached = RelationProgress(swept.filenode, end)
            blocks = next_range_blocks(blocks, seen=swept.seen, seconds=trio.current_time() - begun)
            self._seen += swept.seen
            self._done[relation] = self._blocks.get(relation, 0) if end is None else end
            self._on_progress(self._seen, sum(self._done.values()), sum(self._blocks.values()))

    async def _end_of(self, relation: int, first: int, blocks: int) -> int | None:
        """Return the end of the next range; before an unbounded one, look whether the relation has grown."""
        end = range_end(first, blocks=blocks, relation_blocks=self._blocks.get(relation, 0))
        if end is None and trio.current_time() - self._described > FACTS_SECONDS_MAX:
            self._adopt(await self._source.describe(self._spec))
            end = range_end(first, blocks=blocks, relation_blocks=self._blocks.get(relation, 0))
        return end

    async def _begin_again(self, collector: Collector, relation: int, restarts: int) -> None:
        if restarts > RESTARTS_MAX:
            raise BackfillError(
                f"plan {self._spec.name}: relation {relation} was rewritten {restarts} times during the sweep",
                "run again once VACUUM FULL, CLUSTER or ALTER TABLE has ended",
            )
        log_event(
            LogEvent.RELATION_REWRITTEN,
            f"plan {self._spec.name}: relation {relation} was rewritten, sweeping it again",
            source=self._spec.name,
            relation=relation,
        )
        await collector.restart(relation)
        self._done.pop(relation, None)

    def _adopt(self, facts: TableFacts) -> None:
        self._blocks = {relation: facts.blocks.get(relation, 0) for relation in facts.relations}
        self._described = trio.current_time()
