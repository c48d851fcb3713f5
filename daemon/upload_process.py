"""One upload process: `python -m daemon.upload_process FD`, started by a session, fetches and uploads what it is given.

It knows no journal and decides nothing: what limits a session (bytes in memory, rates, credentials) it asks the
coordinator for. It ends with the coordinator, whatever ends that: the stream between them ends then.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias

import trio

from daemon.activity import Activity
from daemon.allocation import collect_less_often
from daemon.causes import Cause
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.endpoints import open_bucket
from daemon.error_text import expected
from daemon.errors import BackfillError
from daemon.executing import LocalExecutor
from daemon.executors import ValueSource, copy_sources, fetch_policy, uploader_of
from daemon.fetching import Batch, CopySource
from daemon.findings import exit_code_of
from daemon.instruments import Instruments
from daemon.logs import send_to
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
from daemon.process_wire import COMPANY_SECONDS, BrokenWireError, Wire
from daemon.runtime import Runtime
from daemon.signing import Credentials
from daemon.source import open_source
from daemon.tunables import Tunables
from daemon.uploader import Target
from journal.entries import AttemptFailed, ClaimedKey, Parked, Settled

MEASURED_SECONDS = 0.25
"""Between two reports of what the tasks are at; the session looks once a second."""

Ends: TypeAlias = "AbstractAsyncContextManager[tuple[ValueSource, Target]]"


class Coordinator:
    """The coordinator as its process sees it: budget, turnstile, credentials, and where outcomes go.

    Attributes:
        expire_us: never known here: the coordinator looks after that.
    """

    expire_us: int | None = None

    def __init__(self, wire: Wire[ToCoordinator, ToProcess]) -> None:
        self._wire = wire
        self._credentials: Credentials | None = None
        self._asked = 0
        self._granted: dict[int, trio.Event] = {}

    async def reserve(self, size: int) -> None:
        """Wait until the session has room for `size` bytes."""
        await self._ask(lambda number: Reserve(number, size))

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        self._wire.post(Released(size), urgent=False)

    async def admit(self, drain: Drain, *, rows: int, size: int) -> None:
        """Wait until the session's rates allow a fetch, or it drains."""
        if not drain:
            await self._ask(lambda number: Admit(number, rows, size))

    async def current(self) -> Credentials:
        """Return what to sign with now."""
        if self._credentials is None:
            raise AssertionError("asked to sign before there were credentials")
        return self._credentials

    async def refresh(self, refused: Credentials | None = None) -> Credentials:
        """Return what the coordinator finds in place of `refused`."""
        if refused is None or refused == self._credentials:
            await self._ask(lambda number: Refresh(number, refused))
        return await self.current()

    async def record(self, entry: Settled | Parked | AttemptFailed) -> None:
        """Hand over what became of a key, or of an attempt."""
        self._wire.post(entry, urgent=False)

    async def take_back(self, process: str, keys: Sequence[ClaimedKey]) -> int:
        """Never asked for: nothing here outlives its process."""
        raise AssertionError(f"{process}: {len(keys)} keys to take back")

    async def settle(self, _source: CopySource, _key: ClaimedKey, settled: Settled | Parked) -> None:
        """Hand over what became of a key."""
        self._wire.post(settled, urgent=False)

    def renew(self, credentials: Credentials) -> None:
        """Sign with these from now on."""
        self._credentials = credentials

    def grant(self, granted: Granted) -> None:
        """Let whoever asked go on."""
        if granted.credentials is not None:
            self.renew(granted.credentials)
        self._granted.pop(granted.number).set()

    async def _ask(self, question: Callable[[int], ToCoordinator]) -> None:
        self._asked += 1
        granted = self._granted[self._asked] = trio.Event()
        self._wire.post(question(self._asked))
        await granted.wait()


class ReportedControls(Controls):
    """Controls by what is allowed from above; how well that is used is told there."""

    def __init__(self, wire: Wire[ToCoordinator, ToProcess]) -> None:
        # Until it is told how many uploads at once, which is before it is given any work.
        super().__init__(Tunables(1))
        self._wire = wire
        self._served = 0
        self._told_at = -math.inf

    def served(self, *, under_way: int, full: bool) -> None:
        """Note that an upload was served; told at most once in COMPANY_SECONDS, the last ones maybe never."""
        self._served += full
        now = trio.current_time()
        if self._served and now - self._told_at >= COMPANY_SECONDS:
            self._wire.post(Served(self._served, under_way), urgent=False)
            self._served, self._told_at = 0, now


class LoggedAbove(logging.Handler):
    """Passes every line of the log on, since one process alone writes it."""

    def __init__(self, wire: Wire[ToCoordinator, ToProcess]) -> None:
        super().__init__()
        self._wire = wire

    def emit(self, record: logging.LogRecord) -> None:
        """Pass `record` on as text, its traceback reduced to the error's name as in the log itself."""
        text = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:
            text += f" ({record.exc_info[0].__name__})"
        record.msg, record.args, record.exc_info, record.exc_text = text, None, None, None
        self._wire.post(Logged(record), urgent=False)


async def work(
    stream: trio.abc.HalfCloseableStream,
    open_ends: Callable[[Start, Coordinator, Instruments], Ends],
    *,
    log_to: Callable[[logging.Handler], None],
) -> None:
    """Do what comes over `stream` until it ends or there is no more work; what is known by then is still told.

    Args:
        stream: to the coordinator.
        open_ends: opens PostgreSQL and the bucket.
        log_to: sends the log to a handler.
    """
    wire: Wire[ToCoordinator, ToProcess] = Wire(stream)
    frames = wire.frames()
    try:
        start, *rest = await anext(frames)
        if not isinstance(start, Start):
            raise TypeError(f"began with {type(start).__name__}, expected Start")
        log_to(LoggedAbove(wire))
        process = _Process(start, wire)
        async with trio.open_nursery() as sending:
            sending.start_soon(wire.send_posted)
            try:
                async with trio.open_nursery() as working:
                    working.start_soon(process.listen, rest, frames, working.cancel_scope)
                    await process.copy(open_ends)
                    wire.post(Finished())
                    working.cancel_scope.cancel()
            except* BackfillError as group:
                for failure in expected(group):
                    wire.post(
                        Failed(
                            failure.problem, failure.hint, exit_code_of(failure), getattr(failure, "keys", ())
                        )
                    )
            wire.finish()
        await wire.send_eof()
    except* (trio.BrokenResourceError, BrokenWireError, StopAsyncIteration):
        # The coordinator is gone, and with it all reason to go on; the next session drives what was in hand.
        pass
    finally:
        await frames.aclose()


class _Process:
    def __init__(self, start: Start, wire: Wire[ToCoordinator, ToProcess]) -> None:
        self._start = start
        self._wire = wire
        self._coordinator = Coordinator(wire)
        self._controls = ReportedControls(wire)
        self._drain = Drain()
        self._activity = Activity()
        self._runtime = Runtime(instruments=Instruments())
        self._arriving_in, self._arriving = trio.open_memory_channel[Work](1)

    async def listen(
        self,
        first: list[ToProcess],
        frames: AsyncIterator[list[ToProcess]],
        ended: trio.CancelScope,
    ) -> None:
        """Heed messages; cancel the work once no more can come."""
        for message in first:
            self._take(message)
        with suppress(BrokenWireError):
            async for messages in frames:
                for message in messages:
                    self._take(message)
        ended.cancel()

    def _take(self, message: ToProcess) -> None:
        match message:
            case Work():
                self._arriving_in.send_nowait(message)
            case Granted():
                self._coordinator.grant(message)
            case Allowance():
                self._heed(message)
            case Stopping():
                self._drain.request(message.cause)
            case Renewed():
                self._coordinator.renew(message.credentials)
            case NoMoreWork():
                self._arriving_in.close()
            case Start():
                raise AssertionError("started twice")

    def _heed(self, allowance: Allowance) -> None:
        for hold in allowance.holds:
            self._controls.hold(hold)
        for cause in {hold.cause for hold in self._controls.holds} - {hold.cause for hold in allowance.holds}:
            self._controls.release(cause)
        self._controls.set(Tunables(allowance.concurrency))

    async def copy(self, open_ends: Callable[[Start, Coordinator, Instruments], Ends]) -> None:
        """Open both ends and drive what arrives to an outcome, until there is no more.

        Raises:
            BackfillError: an end refuses or is out of reach for too long; several in a group.
        """
        start, instruments = self._start, self._runtime.instruments
        async with open_ends(start, self._coordinator, instruments) as (source, target):
            sources = copy_sources(
                start.config,
                source,
                ids=start.ids,
                tables=start.tables,
                destinations=start.destinations,
                instruments=instruments,
            )
            executor = LocalExecutor(
                start.connections,
                fetch_policy(start.config),
                uploader_of(
                    start.config,
                    target,
                    start.migration_id,
                    self._activity,
                    self._runtime,
                    record=self._coordinator.record,
                ),
                self._coordinator,
                self._coordinator,
                self._controls,
                self._activity,
                self._drain,
                self._runtime.random,
                record=self._coordinator.record,
            )
            batches_in, batches_out = trio.open_memory_channel[Batch](0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed, {one.id: one for one in sources}, batches_in)
                nursery.start_soon(self._measure)
                await executor.run(batches_out, self._coordinator)
                nursery.cancel_scope.cancel()

    async def _feed(self, sources: dict[int, CopySource], batches: trio.MemorySendChannel[Batch]) -> None:
        """Hand batches to the fetchers, and ask for the next one as soon as one is free."""
        async with batches:
            self._wire.post(Ready())
            async for arrived in self._arriving:
                await batches.send(Batch(sources[arrived.source], arrived.keys, arrived.replacing))
                self._wire.post(Ready())

    async def _measure(self) -> None:
        said: dict[Cause, int] = {}
        while True:
            await trio.sleep(MEASURED_SECONDS)
            doing = {cause: number for cause, number in self._activity.doing.items() if number}
            requests = {
                operation: histogram.take()
                for operation, histogram in self._runtime.instruments.requests.items()
                if histogram.cumulative()[-1]
            }
            if doing != said or requests:
                said = doing
                self._wire.post(Measured(doing, requests), urgent=False)


@asynccontextmanager
async def open_real_ends(
    start: Start, coordinator: Coordinator, instruments: Instruments
) -> AsyncIterator[tuple[ValueSource, Target]]:
    """Open PostgreSQL and the bucket as the configuration has them."""
    config = start.config
    async with (
        open_bucket(config, os.environ, credentials=coordinator, instruments=instruments) as bucket,
        open_source(
            config.postgres,
            migration=config.migration.name,
            give_up_after=config.upload.give_up_after,
            random=Runtime().random,
            # The session has begun: a server that is away now is waited for as in a fetch.
            patient=True,
            only_fetching=(start.connections, start.server),
        ) as source,
    ):
        yield source, bucket


def main() -> None:
    """Serve the coordinator at the socket whose descriptor is the first argument."""
    # Who asks the session to stop asks the coordinator; a terminal or a supervisor may tell the whole group.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    collect_less_often()

    async def serve() -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=int(sys.argv[1]))))
        await work(stream, open_real_ends, log_to=send_to)

    trio.run(serve)


if __name__ == "__main__":
    main()
