"""Plan a source, close it, look at it again: decide that keys will be copied, and when that is all of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from daemon.log_events import LogEvent, log_event
from daemon.passes import Kind, PassRunner
from daemon.planning import Closing, Verdict, checked_cutoff, closing
from daemon.scanning import OnProgress, PlanSource, ScanLimits, no_progress
from journal.errors import IllegalTransition
from journal.stage_file import StageLost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemon.config import SourceConfig
    from daemon.rows import TableFacts
    from daemon.runtime import Runtime
    from journal.entries import OpenPass, SourceCounts, SourceRecord
    from journal.log import Journal

T = TypeVar("T")

STAGE_LOSSES_MAX = 3
"""Scans of one pass that may end with a damaged stage before the disk is to blame."""
ONE_SNAPSHOT = Closing(Verdict.PROVEN, "the source has no created_at: it is what one snapshot showed")
"""Why a source without created_at is closed after its only pass."""


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What the configuration says of planning.

    Attributes:
        late_grace: `postgres.late_grace`, seconds.
        scan: how long the loss of snapshots is borne.
        allow_seqscan: plan even where no index serves the fetches.
    """

    late_grace: float
    scan: ScanLimits
    allow_seqscan: bool = False


def no_wait(_source: str, _reason: str) -> None:
    """Tell nobody."""


class Planner:
    """Plans the sources of one migration, one at a time, since the journal seals one segment at a time.

    Args:
        journal: its calls go through the runtime's journal runner.
        source: PostgreSQL.
        runtime: wall clock, randomness, journal runner.
        settings: from the configuration.
        on_wait: called with source and reason each time the closing conditions don't hold yet.
    """

    def __init__(
        self,
        journal: Journal,
        source: PlanSource,
        runtime: Runtime,
        settings: PlanSettings,
        *,
        on_wait: Callable[[str, str], None] = no_wait,
    ) -> None:
        self._journal = journal
        self._source = source
        self._runtime = runtime
        self._settings = settings
        self._on_wait = on_wait
        self._passes = PassRunner(journal, source, runtime, settings.scan)
        self._turn = trio.Lock()

    async def settle_cutoff(self) -> int:
        """Return the migration's cutoff; before anything is planned, take the server's clock unless one is set.

        Raises:
            ConfigError: the configured cutoff is later than the server's clock.
        """
        recorded = self._journal.cutoff_us
        if recorded is not None and await self._call(
            lambda: any(map(_finished, self._journal.counts().values()))
        ):
            return recorded
        server = await self._source.server()
        cutoff_us = checked_cutoff(recorded, now_us=server.now_us)
        if recorded is None:
            await self._call(lambda: self._journal.set_cutoff(cutoff_us, now_us=self._runtime.now_us()))
        return cutoff_us

    async def plan(
        self, specs: Sequence[SourceConfig], on_progress: Callable[[str, int, int, int], None] | None = None
    ) -> None:
        """Finish every pass that is open, make the first one over each source that had none, index the plan.

        Args:
            specs: every source of the migration.
            on_progress: called with the source's name, rows seen, blocks done and blocks in all.

        Raises:
            ConfigError: from `settle_cutoff`.
            SourceUnfitError, UnreachableError, RefusedError, JournalError: from `plan_source`.
        """
        await self.settle_cutoff()
        # A half-sealed segment must end before the next source's can begin.
        opened = {spec.name for spec in specs if await self._open_pass(spec.name) is not None}
        for spec in sorted(specs, key=lambda spec: spec.name not in opened):
            await self.plan_source(
                spec, no_progress if on_progress is None else partial(on_progress, spec.name)
            )
        await self._call(self._journal.build_key_index)

    async def plan_source(self, spec: SourceConfig, on_progress: OnProgress = no_progress) -> None:
        """Finish the pass that is open, or make the first; nothing to do on a source that is planned.

        No other source's pass may be open: `plan` sees to that.

        Raises:
            SourceUnfitError: the table, its keys or its NULLs don't allow it; nothing is planned.
            UnreachableError, RefusedError: PostgreSQL; planning resumes where it stopped.
            JournalError: the journal or its disk.
        """
        async with self._turn:
            await self._finish_open_pass(spec, on_progress)
            if await self._call(lambda: _finished(self._journal.counts()[spec.name])):
                return
            facts = await self._describe(spec)
            by_blocks = bool(facts.relations) and facts.unique is not None and spec.created_at is not None
            closes = ONE_SNAPSHOT if spec.created_at is None else None
            await self._make_pass(spec, facts, "sweep" if by_blocks else "snapshot", closes, on_progress)

    async def close_source(self, spec: SourceConfig, on_progress: OnProgress = no_progress) -> None:
        """Wait for the closing conditions, scan one snapshot, seal what is new, and record the proof.

        Nothing to do on a closed source.

        Raises:
            SourceUnfitError, UnreachableError, RefusedError, JournalError: as `plan_source`.
        """
        async with self._turn:
            await self._finish_open_pass(spec, on_progress)
            if (await self._record(spec.name)).closed:
                return
            facts = await self._describe(spec)
            closes = ONE_SNAPSHOT if spec.created_at is None else await self._wait_until_closable(spec)
            await self._make_pass(spec, facts, "snapshot", closes, on_progress)

    async def reconcile(
        self, spec: SourceConfig, *, who: str, reason: str, on_progress: OnProgress = no_progress
    ) -> None:
        """Look at the source once more, closed or not: another closing pass.

        Args:
            spec: the source.
            who: the operator, for the journal.
            reason: why a closed source is opened again, for the journal.
            on_progress: as for `plan_source`.

        Raises:
            SourceUnfitError, UnreachableError, RefusedError, JournalError: as `plan_source`.
        """
        record = await self._record(spec.name)
        if record.closed:
            now_us = self._runtime.now_us()
            await self._call(
                lambda: self._journal.reopen_source(record.id, who=who, reason=reason, now_us=now_us)
            )
        await self.close_source(spec, on_progress)

    async def _wait_until_closable(self, spec: SourceConfig) -> Closing:
        cutoff_us = self._cutoff_us
        suspects: frozenset[str] | None = None
        while True:
            writers = await self._source.writers_before(cutoff_us)
            decision = closing(
                writers, cutoff_us=cutoff_us, late_grace=self._settings.late_grace, suspects=suspects
            )
            if decision.verdict is not Verdict.WAIT:
                return decision
            suspects = decision.suspects
            log_event(
                LogEvent.CLOSING_WAITS,
                f"{spec.name}: closing waits: {decision.reason}",
                source=spec.name,
                reason=decision.reason,
            )
            self._on_wait(spec.name, decision.reason)
            await trio.sleep(decision.seconds)

    async def _finish_open_pass(self, spec: SourceConfig, on_progress: OnProgress) -> None:
        """Complete the pass that an earlier process left, or give it up if its stage is lost."""
        found = await self._open_pass(spec.name)
        if found is None:
            return
        source = (await self._record(spec.name)).id
        facts = await self._describe(spec)
        try:
            resumed = await self._passes.resume(spec, facts, source, found, cutoff_us=self._cutoff_us)
            try:
                await self._passes.run(resumed, cutoff_us=self._cutoff_us, on_progress=on_progress)
            finally:
                resumed.stage.close()
        except StageLost as lost:
            await self._passes.abandon(source, lost.problem)

    async def _make_pass(
        self,
        spec: SourceConfig,
        facts: TableFacts,
        kind: Kind,
        closes: Closing | None,
        on_progress: OnProgress,
    ) -> None:
        source = (await self._record(spec.name)).id
        for losses in range(1, STAGE_LOSSES_MAX + 1):
            begun = await self._passes.begin(
                spec, facts, source, kind, cutoff_us=self._cutoff_us, closes=closes
            )
            try:
                await self._passes.run(begun, cutoff_us=self._cutoff_us, on_progress=on_progress)
            except StageLost as lost:
                await self._passes.abandon(source, lost.problem)
                if losses == STAGE_LOSSES_MAX:
                    raise
            else:
                return
            finally:
                begun.stage.close()

    async def _describe(self, spec: SourceConfig) -> TableFacts:
        facts = await self._source.describe(spec)
        if not self._settings.allow_seqscan:
            await self._source.check_fetch_plan(spec, facts)
        return facts

    async def _call(self, function: Callable[[], T]) -> T:
        return await self._runtime.journal_runner(function)

    async def _record(self, name: str) -> SourceRecord:
        return (await self._call(lambda: self._journal.sources))[name]

    async def _open_pass(self, name: str) -> OpenPass | None:
        source = (await self._record(name)).id
        return await self._call(lambda: self._journal.open_pass(source))

    @property
    def _cutoff_us(self) -> int:
        cutoff_us = self._journal.cutoff_us
        if cutoff_us is None:
            raise IllegalTransition("plan: the cutoff is not settled yet", "call settle_cutoff first")
        return cutoff_us


def _finished(counts: SourceCounts) -> bool:
    """Say whether a pass over the source was ever sealed: each names every reason for exclusion, even at 0."""
    return bool(counts.excluded)
