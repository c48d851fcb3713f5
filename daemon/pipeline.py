"""Copy what is planned: claim, let an executor fetch and upload, record; one nursery, every queue bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from daemon.config import MaxFailures
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.errors import ExitCode
from daemon.executing import Executor
from daemon.fetching import FETCH_BATCH_KEYS_MAX, Batch, CopySource, split
from daemon.halting import MigrationHalted
from daemon.layouts import object_key
from daemon.log_events import LogEvent, log_event
from daemon.pacing import Pacer
from daemon.quota import Quota
from daemon.recorder import Recorder
from journal.entries import Claim, ClaimedKey, Parked, Settled


@dataclass(frozen=True, slots=True)
class Limits:
    """Totals of a session, whatever the number of sources.

    Attributes:
        connections: fetches at once.
        claim_keys_max: keys in one claim (`upload.key_batch_size`).
        max_in_flight: bytes of values in memory.
        max_failures, planned_rows: how many keys may be parked in this session before it halts.
    """

    connections: int
    claim_keys_max: int
    max_in_flight: int
    max_failures: MaxFailures
    planned_rows: int

    def claim_window(self, concurrency: int) -> int:
        """Return how many keys may be claimed and unsettled: what a crash can repeat."""
        return 2 * concurrency + self.connections * FETCH_BATCH_KEYS_MAX


class Pipeline:
    """Copies all claimable keys of some sources, then returns.

    The nursery: one claimer → the executor → the recorder's committer.

    Attributes:
        parked: keys parked in this session, `parked_before` included.
    """

    def __init__(
        self,
        sources: Sequence[CopySource],
        executor: Executor,
        recorder: Recorder,
        limits: Limits,
        pacer: Pacer,
        controls: Controls,
        drain: Drain,
        *,
        quota: Quota | None = None,
        parked_before: int = 0,
    ) -> None:
        self._sources = sources
        self._executor = executor
        self._recorder = recorder
        self._limits = limits
        self._pacer = pacer
        self._controls = controls
        self._drain = drain
        self._quota = Quota() if quota is None else quota
        self.parked = parked_before

    async def run(self) -> None:
        """Copy until nothing is left to claim, or until drained, which it asks for itself once its quota is spent.

        Raises:
            MigrationHalted: from any worker, or when more keys were parked than `max_failures`.
            JournalError: from the recorder; nothing more was claimed.
        """
        batches_in, batches_out = trio.open_memory_channel[Batch](0)
        try:
            # The last receiver is kept open to the end: where the executor fails, that is what the claimer is told.
            async with batches_out, trio.open_nursery() as committing:
                committing.start_soon(self._recorder.run)
                async with trio.open_nursery() as copying:
                    copying.start_soon(self._claim_all, batches_in)
                    await self._executor.run(batches_out.clone(), self)
                committing.cancel_scope.cancel()
        finally:
            # What is already known must outlive a cancel or a halt: an unrecorded outcome is driven again.
            if not self._recorder.broken:
                with trio.CancelScope(shield=True):
                    await self._recorder.flush()

    @property
    def _claim_window(self) -> int:
        return self._limits.claim_window(self._controls.tunables.concurrency)

    async def _claim_all(self, batches: trio.MemorySendChannel[Batch]) -> None:
        rotation = deque(self._sources)
        async with batches:
            while True:
                await self._controls.wait_until_open(self._drain)
                if self._drain:
                    return
                committed = self._recorder.committed
                window = self._claim_window
                missing = window // 4 - (window - self._recorder.journal.in_flight)
                if missing > 0:
                    # A claim is worth its commit once a quarter of the window is free.
                    self._recorder.hasten(missing)
                    await self._drain.or_event(committed)
                    continue
                if self._quota.spent is not None:
                    await self._end_by_quota(self._quota.spent)
                    return
                claim, suspect_waits = await self._claim_in_turn(rotation)
                if claim is not None and not claim.keys:
                    self._quota.too_large()
                elif claim is not None:
                    self._quota.claimed(claim.keys)
                    for keys in split(
                        claim.keys,
                        bytes_max=self._pacer.fetch_size(
                            self._limits.max_in_flight // self._limits.connections
                        ),
                        keys_max=self._pacer.fetch_rows(FETCH_BATCH_KEYS_MAX),
                    ):
                        await batches.send(Batch(rotation[-1], keys, claim.replacing))
                elif self._recorder.journal.in_flight or suspect_waits:
                    await self._drain.or_event(committed)
                else:
                    return

    async def _end_by_quota(self, spent: str) -> None:
        """Let what is claimed be settled, then ask for the end of the session if there is anything left to claim."""
        while not self._drain:
            committed = self._recorder.committed
            if not self._recorder.journal.in_flight:
                break
            await self._drain.or_event(committed)
        for source in self._sources:
            if await self._has_unclaimed(source):
                log_event(LogEvent.DRAIN_REQUESTED, f"{spent}: nothing more is claimed", cause=spent)
                self._drain.request(spent)
                return

    async def _claim_in_turn(self, rotation: deque[CopySource]) -> tuple[Claim | None, bool]:
        """Claim from the next source that has work, and move it to the end of the rotation.

        The second value says that a suspect of earlier deaths waits to be driven alone: nothing else is
        claimed, from any source, until it has had its turn.
        """
        for _ in range(len(rotation)):
            source = rotation[0]
            claim = await self._claim_from(source)
            if claim is not None:
                rotation.rotate(-1)
                return claim, False
            if await self._has_unclaimed(source):
                return None, True
            rotation.rotate(-1)
        return None, False

    async def _has_unclaimed(self, source: CopySource) -> bool:
        return await self._recorder.call(lambda journal, _now: journal.has_unclaimed(source.id))

    async def _claim_from(self, source: CopySource) -> Claim | None:
        quota = self._quota
        limit, bytes_max = self._limits.claim_keys_max, quota.bytes_left
        if quota.keys_left is not None:
            limit = min(limit, quota.keys_left)
        claim = await self._claim(source, limit, bytes_max)
        if claim is not None and not claim.keys and quota.keys == 0:
            return await self._claim(source, 1, None)
        return claim

    async def _claim(self, source: CopySource, limit: int, bytes_max: int | None) -> Claim | None:
        return await self._recorder.call(
            lambda journal, now_us: journal.claim(
                source.id, limit=limit, window=self._claim_window, bytes_max=bytes_max, now_us=now_us
            )
        )

    async def settle(self, source: CopySource, key: ClaimedKey, settled: Settled | Parked) -> None:
        """Take the outcome of a key from the executor (`executing.Outcomes`)."""
        await self._recorder.record(settled)
        if isinstance(settled, Settled):
            return
        name = object_key(source.layout, key.row_key)
        log_event(
            LogEvent.KEY_PARKED,
            f"{source.name}: parked {key.row_key!r}: {settled.failure}: {settled.message}",
            source=source.name,
            keys=(key.row_key, name),
            row_key=key.row_key,
            object_key=name,
            failure=settled.failure,
        )
        self._count_parked(1)

    async def take_back(self, process: str, keys: Sequence[ClaimedKey]) -> int:
        """Let keys be claimed again whose process died (`executing.Outcomes`)."""
        recovery = await self._recorder.take_back(process, [key.ordinal for key in keys])
        self._count_parked(recovery.parked)
        return recovery.parked

    def _count_parked(self, number: int) -> None:
        self.parked += number
        if number and self._limits.max_failures.exceeded(self.parked, self._limits.planned_rows):
            raise MigrationHalted(
                f"{self.parked} keys parked in this session, more than max_failures = {self._limits.max_failures}",
                "`backfillctl status` names the causes; mend them, then `backfillctl requeue --all`, or raise upload.max_failures",
                ExitCode.PARKED,
            )
