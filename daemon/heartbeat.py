"""Proof that this process moves: a beat that has passed the event loop and the journal's thread.

It is never fed by outcomes: a paused, throttled, waiting or sorting daemon lives; one whose loop or whose journal
hangs does not, however many requests are on their way.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from daemon.notify import Notifier

INTERVAL_SECONDS_MAX = 10.0
"""Between two beats where no watchdog asks for more of them."""
BEATS_PER_WATCHDOG = 3
"""Beats in the time that the watchdog allows: one may be late, and the next one still counts."""
EXTENSION_SECONDS = 60.0
"""What each beat adds to a start that is not over: as the watchdog's, but before READY there is none."""


class Heartbeat:
    """Beats while the process moves, and says so to the service manager.

    Before `started` a beat extends the start-up; from then on it feeds the watchdog.

    Attributes:
        notifier: who is told.
        interval_seconds: between two beats.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        labour: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with a beat.

        Args:
            notifier: as the attribute.
            labour: a number that changes as long as the journal call that runs now gets anywhere; None while
                none runs (`runtime.JournalThread.labour`).
            clock: monotonic seconds, for the age.
        """
        self.notifier = notifier
        self._labour = labour
        self._clock = clock
        self._passage: Callable[[], Awaitable[object]] | None = None
        self._started = False
        self._beaten_at = clock()
        watched = notifier.watchdog_seconds
        self.interval_seconds = min(INTERVAL_SECONDS_MAX, watched / BEATS_PER_WATCHDOG if watched else 60.0)

    @property
    def age_seconds(self) -> float:
        """How long ago the newest beat was."""
        return self._clock() - self._beaten_at

    @contextmanager
    def through(self, passage: Callable[[], Awaitable[object]]) -> Iterator[None]:
        """Let each beat wait for `passage` while the block runs; it takes its turn and does nothing."""
        self._passage = passage
        try:
            yield
        finally:
            self._passage = None

    def started(self) -> None:
        """Say that start-up is over."""
        self._started = True
        self.notifier.ready()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await self._pass()
            self._beat()
            await trio.sleep(self.interval_seconds)

    async def _pass(self) -> None:
        """Return once the passage is through, beating meanwhile as long as what it waits for gets anywhere."""
        if self._passage is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._vouch)
            await self._passage()
            nursery.cancel_scope.cancel()

    async def _vouch(self) -> None:
        """Beat for a journal call that takes long, such as a sort of many keys, while it works."""
        before = self._labour()
        while True:
            await trio.sleep(self.interval_seconds)
            now = self._labour()
            if now != before:
                self._beat()
            before = now

    def _beat(self) -> None:
        self._beaten_at = self._clock()
        if self._started:
            self.notifier.watchdog()
        else:
            self.notifier.extend(EXTENSION_SECONDS)


@asynccontextmanager
async def beating(notifier: Notifier, labour: Callable[[], int | None]) -> AsyncIterator[Heartbeat]:
    """Yield a heartbeat that beats while the block runs; what comes after it is the end."""
    heartbeat = Heartbeat(notifier, labour=labour)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(heartbeat.run)
            yield heartbeat
            nursery.cancel_scope.cancel()
    finally:
        # Nothing beats while the interpreter clears up: the watchdog would take that for a hang, and the end for a crash.
        notifier.stopping()
