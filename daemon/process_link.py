"""One upload process as the coordinator sees it: what it was given, what it holds, what it asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from daemon.activity import Activity
from daemon.credentials import CredentialProvider
from daemon.drain import Drain
from daemon.executing import Outcomes
from daemon.fetching import Batch, Budget, CopySource, Turnstile
from daemon.halting import MigrationHalted
from daemon.instruments import Instruments
from daemon.log_events import tell_again
from daemon.process_messages import (
    Admit,
    Allowance,
    Failed,
    Finished,
    Granted,
    Logged,
    Measured,
    NoMoreWork,
    Ready,
    Refresh,
    Released,
    Renewed,
    Reserve,
    Served,
    Start,
    Stopping,
    ToCoordinator,
    ToProcess,
    Work,
)
from daemon.process_wire import BrokenWireError, Wire
from daemon.signing import Credentials
from journal.entries import AttemptFailed, ClaimedKey, Parked, Settled

RENEW_SECONDS = 15.0
"""Between two looks whether credentials were renewed; they are minutes before they expire."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What all processes of a session share.

    Attributes:
        record: takes failed attempts.
    """

    budget: Budget
    turnstile: Turnstile
    activity: Activity
    drain: Drain
    instruments: Instruments
    credentials: CredentialProvider
    record: Callable[[AttemptFailed], Awaitable[None]]


class Link:
    """A living process; every key it was given is in `held` until its outcome is here.

    Attributes:
        held: keys given to it, or about to be, that have no outcome yet, by ordinal.
        reserved: bytes of the session's budget that it has.
        finished: it said that it ended as it should.
    """

    def __init__(
        self,
        number: int,
        totals: Totals,
        wire: Wire[ToProcess, ToCoordinator],
        outcomes: Outcomes,
        *,
        told_busy: Callable[[bool], None],
        told_settled: Callable[[], None],
        told_served: Callable[[Served], None],
    ) -> None:
        """Begin with nothing said.

        Args:
            number: of the process.
            totals: what it shares with others.
            wire: to it.
            outcomes: takes what became of its keys.
            told_busy: called when there are keys for it, and when it has none any more.
            told_settled: called at every outcome.
            told_served: called with what it says of its load.
        """
        self.held: dict[int, tuple[CopySource, ClaimedKey]] = {}
        self.reserved = 0
        self.finished = False
        self._number = number
        self._totals = totals
        self._wire = wire
        self._outcomes = outcomes
        self._told_busy = told_busy
        self._told_settled = told_settled
        self._told_served = told_served
        self._ready = trio.Event()
        self._started = False
        self._allowance: Allowance | None = None

    def allow(self, allowance: Allowance) -> None:
        """Let it do so much from now on, if it has been told anything yet."""
        if self._started and allowance != self._allowance:
            self._allowance = allowance
            self._wire.post(allowance)

    async def live(
        self,
        start: Start,
        allowance: Callable[[], Allowance],
        first: Batch,
        batches: trio.MemoryReceiveChannel[Batch],
        *,
        wait_for_share: Callable[[], Awaitable[None]],
    ) -> None:
        """Give it batches and heed what it says, until it ends, however that is.

        Raises:
            MigrationHalted: it says that nothing more can succeed.
        """
        self._hold(first)
        credentials = await self._totals.credentials.current()
        self._wire.post(start)
        self._wire.post(Renewed(credentials))
        self._started = True
        self.allow(allowance())
        self._give(first)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._send)
            nursery.start_soon(self._feed, batches, wait_for_share)
            nursery.start_soon(self._tell_drain)
            nursery.start_soon(self._renew, credentials)
            await self._listen(nursery)
            nursery.cancel_scope.cancel()

    async def hear_out(self) -> None:
        """Tell it that there is nothing more, and take the outcomes that it still has to tell."""
        await self._wire.send_eof()
        try:
            async for messages in self._wire.frames():
                for message in messages:
                    if isinstance(message, Settled | Parked | AttemptFailed):
                        await self._take(message)
        except BrokenWireError:
            return

    async def _listen(self, nursery: trio.Nursery) -> None:
        try:
            async for messages in self._wire.frames():
                for message in messages:
                    await self._heed(message, nursery)
        except BrokenWireError:
            return

    async def _heed(self, message: ToCoordinator, nursery: trio.Nursery) -> None:
        match message:
            case Settled() | Parked() | AttemptFailed():
                await self._take(message)
            case Reserve():
                nursery.start_soon(self._reserve, message)
            case Admit():
                nursery.start_soon(self._admit, message)
            case Refresh():
                nursery.start_soon(self._refresh, message)
            case Failed():
                raise MigrationHalted(message.problem, message.hint, message.exit_code, keys=message.keys)
            case _:
                self._note(message)

    def _note(self, message: Released | Ready | Served | Measured | Logged | Finished) -> None:
        match message:
            case Released():
                self.reserved -= message.size
                self._totals.budget.release(message.size)
            case Ready():
                self._ready.set()
            case Served():
                self._told_served(message)
            case Measured():
                self._totals.activity.elsewhere(self._number, message.doing)
                for operation, (counts, seconds) in message.requests.items():
                    self._totals.instruments.requests[operation].add(counts, seconds)
            case Logged():
                tell_again(message.record)
            case Finished():
                self.finished = True

    async def _take(self, entry: Settled | Parked | AttemptFailed) -> None:
        if isinstance(entry, AttemptFailed):
            await self._totals.record(entry)
            return
        source, key = self.held.pop(entry.ordinal)
        self._told_settled()
        if not self.held:
            self._told_busy(False)
        await self._outcomes.settle(source, key, entry)

    def _hold(self, batch: Batch) -> None:
        self.held.update((key.ordinal, (batch.source, key)) for key in batch.keys)
        self._told_busy(True)

    def _give(self, batch: Batch) -> None:
        replacing = frozenset(key.ordinal for key in batch.keys).intersection(batch.replacing)
        self._wire.post(Work(batch.source.id, batch.keys, replacing))

    async def _feed(
        self, batches: trio.MemoryReceiveChannel[Batch], wait_for_share: Callable[[], Awaitable[None]]
    ) -> None:
        while True:
            await self._ready.wait()
            self._ready = trio.Event()
            try:
                batch = await batches.receive()
            except trio.EndOfChannel:
                self._wire.post(NoMoreWork())
                return
            self._hold(batch)
            await wait_for_share()
            self._give(batch)

    async def _send(self) -> None:
        try:
            await self._wire.send_posted()
        except trio.BrokenResourceError:
            # It is gone: what it had told before is still read, and the end of that ends everything.
            return

    async def _tell_drain(self) -> None:
        await self._totals.drain.requested.wait()
        self._wire.post(Stopping(self._totals.drain.cause or ""))

    async def _renew(self, known: Credentials) -> None:
        while True:
            await trio.sleep(RENEW_SECONDS)
            now = await self._totals.credentials.current()
            if now != known:
                known = now
                self._wire.post(Renewed(now))

    async def _reserve(self, asked: Reserve) -> None:
        await self._totals.budget.reserve(asked.size)
        self.reserved += asked.size
        self._wire.post(Granted(asked.number))

    async def _admit(self, asked: Admit) -> None:
        await self._totals.turnstile.admit(self._totals.drain, rows=asked.rows, size=asked.size)
        self._wire.post(Granted(asked.number))

    async def _refresh(self, asked: Refresh) -> None:
        found = await self._totals.credentials.refresh(asked.refused)
        self._wire.post(Granted(asked.number, found))
