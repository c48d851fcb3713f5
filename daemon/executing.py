"""Drive claimed keys to an outcome: what the pipeline asks of an executor, and the one that works in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Protocol

import trio

from daemon.activity import Activity
from daemon.budget import Slots
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.fetching import Batch, Budget, CopySource, Fetched, Fetcher, FetchPolicy, Turnstile
from daemon.layouts import object_key
from daemon.uploader import Uploader
from journal.entries import AttemptFailed, ClaimedKey, Parked, Settled


class Outcomes(Protocol):
    """Takes what became of keys; raises MigrationHalted where that was one parked key too many."""

    async def settle(self, source: CopySource, key: ClaimedKey, settled: Settled | Parked) -> None:
        """Take the outcome of one key."""

    async def take_back(self, process: str, keys: Sequence[ClaimedKey]) -> int:
        """Let keys be claimed again whose process died with them in hand; return how many are given up instead."""


class Executor(Protocol):
    """Fetches and uploads what is claimed; knows no journal."""

    async def run(self, batches: trio.MemoryReceiveChannel[Batch], outcomes: Outcomes) -> None:
        """Drive every key of every batch, and return once there are no more and all have an outcome.

        Takes a batch only when it can begin with it. Keys that a drain leaves unfetched stay claimed.

        Raises:
            MigrationHalted: nothing more can succeed.
        """


class LocalExecutor:
    """Works in this process: `connections` fetchers → as many uploaders as the controls allow."""

    def __init__(
        self,
        connections: int,
        policy: FetchPolicy,
        uploader: Uploader,
        budget: Budget,
        turnstile: Turnstile,
        controls: Controls,
        activity: Activity,
        drain: Drain,
        random: Random,
        *,
        record: Callable[[AttemptFailed], Awaitable[None]],
    ) -> None:
        """Prepare; nothing is begun.

        Args:
            connections: fetches at once.
            policy: how often and how long failing fetches are borne.
            uploader: brings one row into the bucket.
            budget: bytes of values in memory.
            turnstile: what every fetch passes first.
            controls: how many uploads at once, and whether a fetch may begin.
            activity: told what is waited for.
            drain: once requested, nothing more is fetched.
            random: source of jitter.
            record: takes failed fetches.
        """
        self._connections = connections
        self._policy = policy
        self._uploader = uploader
        self._budget = budget
        self._turnstile = turnstile
        self._controls = controls
        self._activity = activity
        self._drain = drain
        self._random = random
        self._record = record
        self._slots = Slots(controls.tunables.concurrency)

    async def run(self, batches: trio.MemoryReceiveChannel[Batch], outcomes: Outcomes) -> None:
        """Do as `Executor.run`."""
        fetcher = Fetcher(
            self._policy,
            self._budget,
            self._turnstile,
            self._controls,
            self._activity,
            self._drain,
            self._random,
            record=self._record,
            settle=outcomes.settle,
        )
        uploads_in, uploads_out = trio.open_memory_channel[Fetched](self._slots.total)
        async with trio.open_nursery() as nursery:
            async with uploads_in, batches:
                for _ in range(self._connections):
                    nursery.start_soon(_fetch, fetcher, batches.clone(), uploads_in.clone())
            await self._upload_all(uploads_out, outcomes)

    async def _upload_all(self, uploads: trio.MemoryReceiveChannel[Fetched], outcomes: Outcomes) -> None:
        """Upload what arrives, by as many tasks as the controls ever allowed, as many at once as they allow now."""
        working = 0

        async def work(uploads: trio.MemoryReceiveChannel[Fetched], ended: trio.CancelScope) -> None:
            nonlocal working
            await self._upload(uploads, outcomes)
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

    async def _upload(self, uploads: trio.MemoryReceiveChannel[Fetched], outcomes: Outcomes) -> None:
        async with uploads:
            async for upload in uploads:
                slot = await self._slots.take()
                try:
                    settled = await self._uploader.copy(
                        upload.key.ordinal,
                        upload.source.destination,
                        object_key(upload.source.layout, upload.key.row_key),
                        upload.row,
                        replacing=upload.replacing,
                    )
                    if isinstance(settled, Settled):
                        self._controls.served(under_way=self._slots.taken, full=self._slots.full_since(slot))
                finally:
                    self._slots.give_back()
                    self._budget.release(upload.key.size)
                source, key = upload.source, upload.key
                # Its value has left the budget: it must not stay in memory while this task waits for the next.
                del upload
                await outcomes.settle(source, key, settled)


async def _fetch(
    fetcher: Fetcher,
    batches: trio.MemoryReceiveChannel[Batch],
    uploads: trio.MemorySendChannel[Fetched],
) -> None:
    async with batches, uploads:
        async for batch in batches:
            await fetcher.fetch(batch, uploads)
