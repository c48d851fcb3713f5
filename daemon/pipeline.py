"""Copy what is planned: claim, fetch, upload, record; one nursery, every queue bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import trio

from daemon.activity import Activity
from daemon.budget import ByteBudget, Slots
from daemon.config import MaxFailures
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.errors import ExitCode
from daemon.fetching import (
    FETCH_BATCH_KEYS_MAX,
    CopySource,
    Fetched,
    Fetcher,
    FetchPolicy,
    split,
)
from daemon.halting import MigrationHalted
from daemon.layouts import object_key
from daemon.log_events import LogEvent, log_event
from daemon.pacing import Pacer
from daemon.quota import Quota
from daemon.recorder import Recorder
from daemon.uploader import Uploader
from journal.entries import Claim, ClaimedKey, Parked, Settled


@dataclass(frozen=True, slots=True)
class Limits:
    """Totals of a session, whatever the number of sources.

    Attributes:
        connections: fetches at once.
        claim_keys_max: keys in one claim (`upload.key_batch_size`).
        max_in_flight: bytes of values in memory.
        max_failures, planned_rows: how many keys may be parked in this session before it halts.
        max_attempts, give_up_after: the retry policy's bounds for fetches.
    """

    connections: int
    claim_keys_max: int
    max_in_flight: int
    max_failures: MaxFailures
    planned_rows: int
    max_attempts: int
    give_up_after: float

    def claim_window(self, concurrency: int) -> int:
        """Return how many keys may be claimed and unsettled: what a crash can repeat."""
        return 2 * concurrency + self.connections * FETCH_BATCH_KEYS_MAX


@dataclass(frozen=True, slots=True)
class _Batch:
    source: CopySource
    keys: Sequence[ClaimedKey]


class Pipeline:
    """Copies all claimable keys of some sources, then returns.

    The nursery: one claimer → `connections` fetchers → as many uploaders as the controls allow → the recorder's
    committer.

    Attributes:
        parked: keys parked in this session, `parked_before` included.
    """

    def __init__(
        self,
        sources: Sequence[CopySource],
        uploader: Uploader,
        recorder: Recorder,
        limits: Limits,
        pacer: Pacer,
        controls: Controls,
        activity: Activity,
        drain: Drain,
        random: Random,
        *,
        quota: Quota | None = None,
        parked_before: int = 0,
    ) -> None:
        self._sources = sources
        self._uploader = uploader
        self._recorder = recorder
        self._limits = limits
        self._pacer = pacer
        self._controls = controls
        self._activity = activity
        self._slots = Slots(controls.tunables.concurrency)
        self._drain = drain
        self._random = random
        self._budget = ByteBudget(limits.max_in_flight)
        self._fetcher = Fetcher(
            FetchPolicy(limits.max_attempts, limits.give_up_after),
            self._budget,
            pacer,
            controls,
            activity,
            drain,
            random,
            record=recorder.record,
            settle=self._settle,
        )
        self._quota = Quota() if quota is None else quota
        self._replacing: set[int] = set()
        self.parked = parked_before

    async def run(self) -> None:
        """Copy until nothing is left to claim, or until drained, which it asks for itself once its quota is spent.

        Raises:
            MigrationHalted: from any worker, or when more keys were parked than `max_failures`.
            JournalError: from the recorder; nothing more was claimed.
        """
        batches_in, batches_out = trio.open_memory_channel[_Batch](0)
        uploads_in, uploads_out = trio.open_memory_channel[Fetched](self._slots.total)
        try:
            async with trio.open_nursery() as committing:
                committing.start_soon(self._recorder.run)
                async with trio.open_nursery() as copying:
                    copying.start_soon(self._claim_all, batches_in)
                    async with uploads_in, batches_out:
                        for _ in range(self._limits.connections):
                            copying.start_soon(self._fetch, batches_out.clone(), uploads_in.clone())
                    copying.start_soon(self._upload_all, uploads_out)
                committing.cancel_scope.cancel()
        finally:
            # What is already known must outlive a cancel or a halt: an unrecorded outcome is driven again.
            if not self._recorder.broken:
                with trio.CancelScope(shield=True):
                    await self._recorder.flush()

    @property
    def _claim_window(self) -> int:
        return self._limits.claim_window(self._controls.tunables.concurrency)

    async def _claim_all(self, batches: trio.MemorySendChannel[_Batch]) -> None:
        rotation = deque(self._sources)
        async with batches:
            while True:
                await self._controls.wait_until_open(self._drain)
                if self._drain:
                    return
                committed = self._recorder.committed
                if 2 * self._recorder.journal.in_flight > self._claim_window:
                    # A claim is worth its commit once half the window is free.
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
                    self._replacing |= claim.replacing
                    for keys in split(
                        claim.keys,
                        bytes_max=self._pacer.fetch_size(
                            self._limits.max_in_flight // self._limits.connections
                        ),
                        keys_max=self._pacer.fetch_rows(FETCH_BATCH_KEYS_MAX),
                    ):
                        await batches.send(_Batch(rotation[-1], keys))
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

    async def _fetch(
        self, batches: trio.MemoryReceiveChannel[_Batch], uploads: trio.MemorySendChannel[Fetched]
    ) -> None:
        async with batches, uploads:
            async for batch in batches:
                await self._fetcher.fetch(batch.source, batch.keys, uploads)

    async def _upload_all(self, uploads: trio.MemoryReceiveChannel[Fetched]) -> None:
        """Upload what arrives, by as many tasks as the controls ever allowed, as many at once as they allow now."""
        working = 0

        async def work(uploads: trio.MemoryReceiveChannel[Fetched], ended: trio.CancelScope) -> None:
            nonlocal working
            await self._upload(uploads)
            working -= 1
            if working == 0:
                ended.cancel()

        async with uploads, trio.open_nursery() as nursery:
            with trio.CancelScope() as growing:
                while True:
                    changed = self._controls.changed
                    concurrency = self._controls.concurrency
                    self._slots.resize(concurrency)
                    for _ in range(concurrency - working):
                        working += 1
                        nursery.start_soon(work, uploads.clone(), growing)
                    await changed.wait()

    async def _upload(self, uploads: trio.MemoryReceiveChannel[Fetched]) -> None:
        async with uploads:
            async for upload in uploads:
                slot = await self._slots.take()
                try:
                    key = object_key(upload.source.layout, upload.key.row_key)
                    settled = await self._uploader.copy(
                        upload.key.ordinal,
                        upload.source.destination,
                        key,
                        upload.row,
                        replacing=upload.key.ordinal in self._replacing,
                    )
                    if isinstance(settled, Settled):
                        self._controls.served(under_way=self._slots.taken, full=self._slots.full_since(slot))
                finally:
                    self._slots.give_back()
                    self._budget.release(upload.key.size)
                await self._settle(upload.source, upload.key, settled)

    async def _settle(self, source: CopySource, key: ClaimedKey, settled: Settled | Parked) -> None:
        await self._recorder.record(settled)
        self._replacing.discard(key.ordinal)
        if isinstance(settled, Settled):
            return
        self.parked += 1
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
        if self._limits.max_failures.exceeded(self.parked, self._limits.planned_rows):
            raise MigrationHalted(
                f"{self.parked} keys parked in this session, more than max_failures = {self._limits.max_failures}",
                "`backfillctl status` names the causes; mend them, then `backfillctl requeue --all`, or raise upload.max_failures",
                ExitCode.PARKED,
            )
