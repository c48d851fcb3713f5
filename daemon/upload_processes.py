"""Let several processes fetch and upload: the executor that hands claimed batches to them, and outlives their deaths.

Whatever is a session's total stays here and is asked for over the wire (bytes in memory, rates, credentials) or is
divided (uploads at once, connections). The journal keeps its one writer, this process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol, TypeAlias

import trio

from daemon.controls import Controls
from daemon.errors import ExitCode
from daemon.executing import Outcomes
from daemon.fetching import Batch
from daemon.halting import MigrationHalted
from daemon.log_events import LogEvent, log_event
from daemon.process_link import Link, Totals
from daemon.process_messages import Allowance, Served, Start
from daemon.process_wire import Wire
from daemon.upload_shares import even_shares, upload_shares
from journal.lifecycle import RECOVERIES_MAX

STOP_SECONDS = 5.0
"""What a process may take to tell its last outcomes once it is to stop."""
DEATHS_MAX = RECOVERIES_MAX + 2
"""Deaths in a row without an outcome between: one more than it takes to find one key the cause, and to park it."""


class Process(Protocol):
    """An upload process that was started."""

    @property
    def stream(self) -> trio.abc.HalfCloseableStream:
        """The stream to it; ends when it does."""

    @property
    def name(self) -> str:
        """What people call it."""

    async def end(self) -> str:
        """End it if it has not ended by itself, and say how it did."""


Spawn: TypeAlias = "Callable[[int], AbstractAsyncContextManager[Process]]"


class ProcessExecutor:
    """Works in processes of its own, each started when there is a batch for it."""

    def __init__(
        self, processes: int, start: Start, totals: Totals, controls: Controls, *, spawn: Spawn
    ) -> None:
        """Prepare; nothing is started.

        Args:
            processes: how many at most.
            start: what each is told first; its `connections` are the session's.
            totals: what they share.
            controls: how many uploads at once, and whether a fetch may begin.
            spawn: starts the process of a number.
        """
        self._start = start
        self._totals = totals
        self._controls = controls
        self._spawn = spawn
        self._connections = even_shares(start.connections, processes)
        self._links: list[Link | None] = [None] * processes
        self._busy = [False] * processes
        self._under_way = [0] * processes
        self._shares = upload_shares(controls.concurrency, self._busy, self._busy)
        self._divided = trio.Event()
        self._deaths = 0

    async def run(self, batches: trio.MemoryReceiveChannel[Batch], outcomes: Outcomes) -> None:
        """Do as `Executor.run`."""
        async with trio.open_nursery() as watching:
            watching.start_soon(self._watch_controls)
            async with trio.open_nursery() as keeping, batches:
                for number in range(len(self._links)):
                    keeping.start_soon(self._keep, number, batches.clone(), outcomes)
            watching.cancel_scope.cancel()

    async def _keep(self, number: int, batches: trio.MemoryReceiveChannel[Batch], outcomes: Outcomes) -> None:
        """Have one process alive for as long as there are batches, and another after its death."""
        async with batches:
            while True:
                try:
                    batch = await batches.receive()
                except trio.EndOfChannel:
                    return
                self._note_busy(number, True)
                await self._wait_for_share(number)
                await self._live(number, batch, batches, outcomes)

    async def _live(
        self,
        number: int,
        batch: Batch,
        batches: trio.MemoryReceiveChannel[Batch],
        outcomes: Outcomes,
    ) -> None:
        """Let one process live to its end; what it dies with is taken back."""
        async with self._spawn(number) as process:
            link = Link(
                number,
                self._totals,
                Wire(process.stream),
                outcomes,
                told_busy=partial(self._note_busy, number),
                told_settled=self._note_settled,
                told_served=partial(self._note_served, number),
            )
            self._links[number] = link
            try:
                await link.live(
                    replace(self._start, connections=self._connections[number]),
                    partial(self._allowance, number),
                    batch,
                    batches,
                    wait_for_share=partial(self._wait_for_share, number),
                )
            finally:
                with trio.CancelScope(shield=True):
                    with trio.move_on_after(STOP_SECONDS):
                        await link.hear_out()
                    how = await process.end()
                self._links[number] = None
                self._under_way[number] = 0
                self._totals.budget.release(link.reserved)
                self._totals.activity.elsewhere(number, {})
                self._note_busy(number, False)
        if not link.finished:
            await self._mourn(process.name, how, link, outcomes)

    async def _mourn(self, name: str, how: str, link: Link, outcomes: Outcomes) -> None:
        """Give back what a dead process had in hand; halt where one after the other dies."""
        keys = [key for _, key in link.held.values()]
        parked = await outcomes.take_back(f"{name}, {how}", keys)
        self._deaths = 0 if parked else self._deaths + 1
        again = f"{parked} parked, {len(keys) - parked} driven again" if parked else "driven again"
        log_event(
            LogEvent.PROCESS_LOST,
            f"{name} died ({how}) with {len(keys)} keys in hand: {again}",
            process=name,
            how=how,
            number=len(keys),
            parked=parked,
        )
        if self._deaths >= DEATHS_MAX:
            raise MigrationHalted(
                f"upload processes died {self._deaths} times in a row without an outcome between; the last was {name}, {how}",
                "the kernel's log tells if memory ran out; lower upload.max_in_flight, or set upload.processes = 1",
                ExitCode.FAILED,
            )

    async def _wait_for_share(self, number: int) -> None:
        while self._shares[number] == 0:
            await self._divided.wait()

    def _note_busy(self, number: int, busy: bool) -> None:  # noqa: FBT001 -- bound by its number, then called with it
        self._busy[number] = busy
        if self._controls.concurrency < len(self._busy):
            self._divide()

    def _note_settled(self) -> None:
        self._deaths = 0

    def _note_served(self, number: int, served: Served) -> None:
        """Let the whole grow as one process would, by what all have under way."""
        self._under_way[number] = served.under_way
        under_way = sum(self._under_way)
        for _ in range(served.number):
            self._controls.served(under_way=under_way, full=True)

    def _allowance(self, number: int) -> Allowance:
        return Allowance(self._shares[number], self._controls.holds)

    async def _watch_controls(self) -> None:
        while True:
            changed = self._controls.changed
            self._divide()
            await changed.wait()

    def _divide(self) -> None:
        self._shares = upload_shares(self._controls.concurrency, self._busy, self._shares)
        divided, self._divided = self._divided, trio.Event()
        divided.set()
        for number, link in enumerate(self._links):
            if link is not None:
                link.allow(self._allowance(number))


@dataclass(frozen=True)
class _RealProcess:
    stream: trio.SocketStream
    name: str
    process: trio.Process

    async def end(self) -> str:
        if self.process.poll() is None and not await _ended_within(self.process, 0.5):
            self.process.kill()
        code = await self.process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


async def _ended_within(process: trio.Process, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        await process.wait()
    return process.poll() is not None


@asynccontextmanager
async def spawned(number: int) -> AsyncIterator[Process]:
    """Start a process that serves the other end of `stream`; it does not outlive the block.

    It is a group of its own, so that a terminal's Ctrl-C reaches the coordinator alone.

    Raises:
        MigrationHalted: the system does not let it start.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        package = str(Path(__file__).parent.parent)
        paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        try:
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-m", "daemon.upload_process", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": paths},
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise MigrationHalted(
                f"start upload process {number + 1}: {error.strerror or error}",
                "raise the limit on processes and memory, or set upload.processes = 1",
                ExitCode.FAILED,
            ) from error
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    try:
        yield _RealProcess(stream, f"upload process {number + 1} (pid {process.pid})", process)
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            await trio.aclose_forcefully(stream)
