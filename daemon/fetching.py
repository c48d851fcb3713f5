"""Fetch the rows of a claim from PostgreSQL: bounded by bytes, retried, split where one row is to blame."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Protocol

import trio

from daemon.activity import Activity
from daemon.allocation import HUGE_BYTES, hand_back_large_blocks
from daemon.budget import Silence
from daemon.causes import Cause
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.halting import halted
from daemon.layouts import Layout
from daemon.log_events import LogEvent, log_event
from daemon.retrying import Disposition, Failure, decide
from daemon.rows import FetchedRow, Wanted
from daemon.uploader import Destination
from journal.entries import AttemptFailed, ClaimedKey, Parked, Settled
from journal.lifecycle import Outcome

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
class Fetched:
    """A row in memory, its planned bytes reserved until it is uploaded.

    Attributes:
        replacing: an outcome of this key was taken back (`Claim.replacing`).
    """

    source: CopySource
    key: ClaimedKey
    row: FetchedRow
    replacing: bool


@dataclass(frozen=True, slots=True)
class FetchPolicy:
    """The retry policy's bounds for fetches, as in `upload.max_attempts` and `upload.give_up_after`."""

    max_attempts: int
    give_up_after: float


class Budget(Protocol):
    """Bytes of values that may be in memory, over all who fetch."""

    async def reserve(self, size: int) -> None:
        """Wait until `size` bytes fit, then take them, all at once."""

    def release(self, size: int) -> None:
        """Give `size` bytes back."""


class Turnstile(Protocol):
    """What every fetch passes, a retry's too."""

    async def admit(self, drain: Drain, *, rows: int, size: int) -> None:
        """Wait until `rows` rows of `size` bytes together may be read, or until a drain is requested."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Keys of one source that are claimed, to be fetched together.

    Attributes:
        replacing: the ordinals among them, and maybe others, of which an outcome was taken back.
    """

    source: CopySource
    keys: Sequence[ClaimedKey]
    replacing: Collection[int] = ()


class Fetcher:
    """Fetches batches for any number of callers at once; holds no key between calls.

    Args:
        policy: how often and how long failures are borne.
        budget: bytes of values in memory, over all callers.
        turnstile: every fetch waits there for its turn.
        controls: a throttle in force lets no fetch begin.
        activity: told what is waited for.
        drain: once requested, nothing more is fetched.
        random: source of jitter.
        record: takes failed attempts.
        settle: takes keys that end here: the row is gone, or can't be read.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        budget: Budget,
        turnstile: Turnstile,
        controls: Controls,
        activity: Activity,
        drain: Drain,
        random: Random,
        *,
        record: Callable[[AttemptFailed], Awaitable[None]],
        settle: Callable[[CopySource, ClaimedKey, Settled | Parked], Awaitable[None]],
    ) -> None:
        self._policy = policy
        self._budget = budget
        self._turnstile = turnstile
        self._controls = controls
        self._activity = activity
        self._drain = drain
        self._random = random
        self._record = record
        self._settle = settle
        self._silence = Silence()

    async def fetch(self, batch: Batch, uploads: trio.MemorySendChannel[Fetched]) -> None:
        """Fetch a batch, hand the rows on; keys that stay unfetched in a drain stay claimed and are released.

        Raises:
            MigrationHalted: nothing more can succeed.
        """
        source, keys = batch.source, batch.keys
        reserved = sum(key.size for key in keys)
        if reserved >= HUGE_BYTES and max(key.size for key in keys) >= HUGE_BYTES:
            hand_back_large_blocks()
        with self._activity.at(Cause.BYTE_BUDGET):
            await self._budget.reserve(reserved)
        rows = await self._fetch_retrying(source, keys)
        if rows is None:
            self._budget.release(reserved)
            if len(keys) > 1 and not self._drain:
                for key in keys:
                    await self.fetch(replace(batch, keys=[key]), uploads)
            return
        by_key = {row.row_key: row for row in rows}
        # Once handed on, a value is its uploader's alone, who gives its bytes back to the budget. A row that was
        # planned twice may be in one batch twice.
        del rows
        last = {key.row_key: key.ordinal for key in keys}
        grown: list[ClaimedKey] = []
        for key in keys:
            take = by_key.pop if last[key.row_key] == key.ordinal else by_key.get
            row = take(key.row_key, None)
            if row is None:
                self._budget.release(key.size)
                await self._settle(source, key, Settled(key.ordinal, Outcome.VANISHED, 0, "", None, None))
            elif row.value is None:
                self._budget.release(key.size)
                grown.append(key._replace(size=row.size))
            else:
                await uploads.send(Fetched(source, key, row, key.ordinal in batch.replacing))
            del row
        # A value that outgrew its plan is fetched again, alone, with room for what it is now; and only now that this
        # batch holds no reservation of its own: one made above it could never be served.
        for key in grown:
            await self.fetch(replace(batch, keys=[key]), uploads)

    async def _fetch_retrying(
        self, source: CopySource, keys: Sequence[ClaimedKey]
    ) -> list[FetchedRow] | None:
        """Return the rows; None when the batch is to be split, was parked, or a drain gave it up."""
        wanted = [Wanted(row_key, size) for row_key, size in {key.row_key: key.size for key in keys}.items()]
        answers = failures = 0
        while True:
            await self._turnstile.admit(
                self._drain, rows=len(wanted), size=sum(one.reserved for one in wanted)
            )
            if self._controls.held is not None:
                await self._controls.wait_until_released(self._drain)
                # Nobody asked meanwhile, so nobody went unserved.
                self._silence.broken()
            if self._drain:
                return None
            begun = trio.current_time()
            try:
                with self._activity.at(Cause.SOURCE):
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
                    max_attempts=self._policy.max_attempts,
                    silent_seconds=0.0 if failure.counted else self._silence.unanswered(now),
                    give_up_after=self._policy.give_up_after,
                    jitter=self._random.random(),
                    refreshed=True,
                )
                log_event(
                    LogEvent.FETCH_FAILED,
                    f"{source.name}: fetch of {len(keys)} keys failed: {failure.message}",
                    source=source.name,
                    keys=failure.keys,
                    number=len(keys),
                    failures=failures,
                    failure=failure.kind.value,
                )
                if failure.answered and len(keys) > 1:
                    return None
                retried = decision.disposition is Disposition.RETRY
                await self._record(
                    _fetch_failed(keys[0].ordinal, failure, failures, now - begun, retried=retried)
                )
                if decision.disposition is Disposition.HALT:
                    raise halted(failure, decision.exit_code, subject=source.name) from failure
                if decision.disposition is Disposition.PARK:
                    await self._settle(
                        source, keys[0], Parked(keys[0].ordinal, failure.kind, failure.message)
                    )
                    return None
                with self._activity.at(Cause.SOURCE), trio.move_on_after(decision.delay):
                    await self._drain.requested.wait()
            else:
                self._silence.broken()
                return rows


def split(
    keys: Sequence[ClaimedKey], *, bytes_max: int, keys_max: int = FETCH_BATCH_KEYS_MAX
) -> list[Sequence[ClaimedKey]]:
    """Cut a claim into fetches of at most `keys_max` keys and `bytes_max` bytes, one key at least."""
    batches: list[Sequence[ClaimedKey]] = []
    batch: list[ClaimedKey] = []
    size = 0
    for key in keys:
        if batch and (len(batch) == keys_max or size + key.size > bytes_max):
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
