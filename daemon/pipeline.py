"""Copy what is planned: claim, fetch, upload, record; one nursery, every queue bounded."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import trio

from daemon.budget import ByteBudget, Silence
from daemon.config import MaxFailures
from daemon.drain import Drain
from daemon.errors import ExitCode
from daemon.halting import MigrationHalted, halted
from daemon.layouts import Layout, object_key
from daemon.recorder import Recorder
from daemon.retrying import Disposition, Failure, decide
from daemon.rows import FetchedRow, Wanted
from daemon.uploader import Destination, Uploader
from journal.entries import AttemptFailed, Claim, ClaimedKey, Parked, Settled
from journal.lifecycle import Outcome

log = logging.getLogger(__name__)

FETCH_BATCH_KEYS_MAX = 64
"""Keys in one fetch; measured: a call through trio-asyncio costs 110 us, a row in a batch of 64 2.5 us."""


class FetchSource(Protocol):
    """PostgreSQL, as the pipeline needs it, already bound to one table."""

    async def __call__(self, wanted: Sequence[Wanted]) -> list[FetchedRow]:
        """Return the rows that still exist, in any order; raises a classified Failure."""


@dataclass(frozen=True, slots=True)
class CopySource:
    """One source as the pipeline drives it."""

    id: int
    name: str
    fetch: FetchSource
    layout: Layout
    destination: Destination


@dataclass(frozen=True, slots=True)
class Limits:
    """Totals of a session, whatever the number of sources.

    Attributes:
        concurrency: uploads at once.
        connections: fetches at once.
        claim_keys_max: keys in one claim (`upload.key_batch_size`).
        max_in_flight: bytes of values in memory.
        max_failures, planned_rows: how many keys may be parked in this session before it halts.
        max_attempts, give_up_after: the retry policy's bounds for fetches.
    """

    concurrency: int
    connections: int
    claim_keys_max: int
    max_in_flight: int
    max_failures: MaxFailures
    planned_rows: int
    max_attempts: int
    give_up_after: float

    @property
    def claim_window(self) -> int:
        """Keys claimed and unsettled at most: what a crash can repeat."""
        return 2 * self.concurrency + self.connections * FETCH_BATCH_KEYS_MAX


@dataclass(frozen=True, slots=True)
class _Batch:
    source: CopySource
    keys: Sequence[ClaimedKey]


@dataclass(frozen=True, slots=True)
class _Upload:
    source: CopySource
    key: ClaimedKey
    row: FetchedRow


class Pipeline:
    """Copies all claimable keys of some sources, then returns.

    The nursery: one claimer → `connections` fetchers → `concurrency` uploaders → the recorder's committer.

    Attributes:
        parked: keys parked in this session, `parked_before` included.
    """

    def __init__(
        self,
        sources: Sequence[CopySource],
        uploader: Uploader,
        recorder: Recorder,
        limits: Limits,
        drain: Drain,
        random: Random,
        *,
        parked_before: int = 0,
    ) -> None:
        self._sources = sources
        self._uploader = uploader
        self._recorder = recorder
        self._limits = limits
        self._drain = drain
        self._random = random
        self._budget = ByteBudget(limits.max_in_flight)
        self._silence = Silence()
        self.parked = parked_before

    async def run(self) -> None:
        """Copy until nothing is left to claim, or until drained.

        Raises:
            MigrationHalted: from any worker, or when more keys were parked than `max_failures`.
            JournalError: from the recorder; nothing more was claimed.
        """
        batches_in, batches_out = trio.open_memory_channel[_Batch](0)
        uploads_in, uploads_out = trio.open_memory_channel[_Upload](self._limits.concurrency)
        try:
            async with trio.open_nursery() as committing:
                committing.start_soon(self._recorder.run)
                async with trio.open_nursery() as copying:
                    copying.start_soon(self._claim, batches_in)
                    async with uploads_in, batches_out:
                        for _ in range(self._limits.connections):
                            copying.start_soon(self._fetch, batches_out.clone(), uploads_in.clone())
                    async with uploads_out:
                        for _ in range(self._limits.concurrency):
                            copying.start_soon(self._upload, uploads_out.clone())
                committing.cancel_scope.cancel()
        finally:
            # What is already known must outlive a cancel or a halt: an unrecorded outcome is driven again.
            if not self._recorder.broken:
                with trio.CancelScope(shield=True):
                    await self._recorder.flush()

    async def _claim(self, batches: trio.MemorySendChannel[_Batch]) -> None:
        rotation = deque(self._sources)
        async with batches:
            while not self._drain:
                committed = self._recorder.committed
                if 2 * self._recorder.journal.in_flight > self._limits.claim_window:
                    # A claim is worth its commit once half the window is free.
                    await self._wait_for(committed)
                    continue
                claim, suspect_waits = await self._claim_in_turn(rotation)
                if claim is not None:
                    for keys in split(
                        claim.keys, bytes_max=self._limits.max_in_flight // self._limits.connections
                    ):
                        await batches.send(_Batch(rotation[-1], keys))
                elif self._recorder.journal.in_flight or suspect_waits:
                    await self._wait_for(committed)
                else:
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
        return await self._recorder.call(
            lambda journal, now_us: journal.claim(
                source.id,
                limit=self._limits.claim_keys_max,
                window=self._limits.claim_window,
                now_us=now_us,
            )
        )

    async def _wait_for(self, committed: trio.Event) -> None:
        """Wait for that group commit, or for a drain."""
        async with trio.open_nursery() as nursery:

            async def until(event: trio.Event) -> None:
                await event.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, committed)
            nursery.start_soon(until, self._drain.requested)

    async def _fetch(
        self, batches: trio.MemoryReceiveChannel[_Batch], uploads: trio.MemorySendChannel[_Upload]
    ) -> None:
        async with batches, uploads:
            async for batch in batches:
                await self._fetch_batch(batch.source, batch.keys, uploads)

    async def _fetch_batch(
        self, source: CopySource, keys: Sequence[ClaimedKey], uploads: trio.MemorySendChannel[_Upload]
    ) -> None:
        """Fetch `keys`, hand the rows on; keys that stay unfetched in a drain stay claimed and are released."""
        reserved = sum(key.size for key in keys)
        await self._budget.reserve(reserved)
        rows = await self._fetch_retrying(source, keys)
        if rows is None:
            self._budget.release(reserved)
            if len(keys) > 1 and not self._drain:
                for key in keys:
                    await self._fetch_batch(source, [key], uploads)
            return
        by_key = {row.row_key: row for row in rows}
        grown: list[tuple[ClaimedKey, int]] = []
        for key in keys:
            row = by_key.get(key.row_key)
            if row is None:
                self._budget.release(key.size)
                await self._settle(source, key, Settled(key.ordinal, Outcome.VANISHED, 0, "", None, None))
            elif row.value is None:
                self._budget.release(key.size)
                grown.append((key, row.size))
            else:
                await uploads.send(_Upload(source, key, row))
        # Only now that this batch holds no reservation of its own: one made above it could never be served.
        for key, size in grown:
            await self._fetch_grown(source, key, size, uploads)

    async def _fetch_grown(
        self, source: CopySource, key: ClaimedKey, size: int, uploads: trio.MemorySendChannel[_Upload]
    ) -> None:
        """Fetch a value that outgrew its plan again, alone, with room for what it is now."""
        grown = ClaimedKey(key.ordinal, key.row_key, key.created_at, size, key.recoveries)
        await self._fetch_batch(source, [grown], uploads)

    async def _fetch_retrying(
        self, source: CopySource, keys: Sequence[ClaimedKey]
    ) -> list[FetchedRow] | None:
        """Return the rows; None when the batch is to be split, was parked, or a drain gave it up."""
        wanted = [Wanted(row_key, size) for row_key, size in {key.row_key: key.size for key in keys}.items()]
        answers = failures = 0
        while not self._drain:
            begun = trio.current_time()
            try:
                rows = await source.fetch(wanted)
            except Failure as failure:
                failures += 1
                answers += failure.counted
                now = trio.current_time()
                if failure.counted:
                    self._silence.broken()
                decision = decide(
                    failure,
                    answers=answers,
                    failures=failures,
                    max_attempts=self._limits.max_attempts,
                    silent_seconds=0.0 if failure.counted else self._silence.unanswered(now),
                    give_up_after=self._limits.give_up_after,
                    jitter=self._random.random(),
                    refreshed=True,
                )
                log.warning("%s: fetch of %d keys failed: %s", source.name, len(keys), failure.message)
                if failure.answered and len(keys) > 1:
                    return None
                retried = decision.disposition is Disposition.RETRY
                await self._recorder.record(
                    _fetch_failed(keys[0].ordinal, failure, failures, now - begun, retried=retried)
                )
                if decision.disposition is Disposition.HALT:
                    raise halted(failure, decision.exit_code, subject=source.name) from failure
                if decision.disposition is Disposition.PARK:
                    await self._settle(
                        source, keys[0], Parked(keys[0].ordinal, failure.kind, failure.message)
                    )
                    return None
                with trio.move_on_after(decision.delay):
                    await self._drain.requested.wait()
            else:
                self._silence.broken()
                return rows
        return None

    async def _upload(self, uploads: trio.MemoryReceiveChannel[_Upload]) -> None:
        async with uploads:
            async for upload in uploads:
                try:
                    key = object_key(upload.source.layout, upload.key.row_key)
                    settled = await self._uploader.copy(
                        upload.key.ordinal, upload.source.destination, key, upload.row
                    )
                finally:
                    self._budget.release(upload.key.size)
                await self._settle(upload.source, upload.key, settled)

    async def _settle(self, source: CopySource, key: ClaimedKey, settled: Settled | Parked) -> None:
        await self._recorder.record(settled)
        if isinstance(settled, Settled):
            return
        self.parked += 1
        log.warning("%s: parked %r: %s: %s", source.name, key.row_key, settled.failure, settled.message)
        if self._limits.max_failures.exceeded(self.parked, self._limits.planned_rows):
            raise MigrationHalted(
                f"{self.parked} keys parked in this session, more than max_failures = {self._limits.max_failures}",
                "`backfillctl status` names the causes; mend them, then `backfillctl requeue --all`, or raise upload.max_failures",
                ExitCode.PARKED,
            )


def split(keys: Sequence[ClaimedKey], *, bytes_max: int) -> list[Sequence[ClaimedKey]]:
    """Cut a claim into fetches of at most FETCH_BATCH_KEYS_MAX keys and `bytes_max` bytes, one key at least."""
    batches: list[Sequence[ClaimedKey]] = []
    batch: list[ClaimedKey] = []
    size = 0
    for key in keys:
        if batch and (len(batch) == FETCH_BATCH_KEYS_MAX or size + key.size > bytes_max):
            batches.append(batch)
            batch, size = [], 0
        batch.append(key)
        size += key.size
    if batch:
        batches.append(batch)
    return batches


def _fetch_failed(
    ordinal: int, failure: Failure, attempt: int, seconds: float, *, retried: bool
) -> AttemptFailed:
    return AttemptFailed(
        ordinal=ordinal,
        operation=failure.operation,
        failure=failure.kind,
        message=failure.message,
        http_status=None,
        code=failure.code,
        request_id=None,
        milliseconds=round(seconds * 1000),
        attempt=attempt,
        retried=retried,
    )
