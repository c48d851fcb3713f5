"""The outside world that decisions need, injected: wall clock, randomness, a way to run blocking calls."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from daemon.instruments import Instruments

T = TypeVar("T")


class RunSync(Protocol):
    """Runs a blocking function and waits for it; whether cancellation abandons it, its maker says."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Return what `function` returns, raise what it raises."""


def wall_clock_us() -> int:
    """Return the wall clock in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


async def in_loop(function: Callable[[], T]) -> T:
    """Run `function` in the event loop itself: for virtual time, where a real thread's time would not count."""
    await trio.lowlevel.checkpoint()
    return function()


class JournalThread:
    """Runs calls in a worker thread, one at a time, in the order of arrival.

    Not abandoned on cancellation: a journal commit that has begun is waited for.
    """

    def __init__(self) -> None:
        self._turn = trio.CapacityLimiter(1)
        self._thread_id: int | None = None

    async def __call__(self, function: Callable[[], T], /) -> T:
        """Return what `function` returns, raise what it raises."""
        return await trio.to_thread.run_sync(self._run, function, limiter=self._turn)

    def _run(self, function: Callable[[], T]) -> T:
        self._thread_id = threading.get_native_id()
        try:
            return function()
        finally:
            self._thread_id = None

    def labour(self) -> int | None:
        """Return the CPU time that the thread of the call running now has had, in ticks; None if none runs.

        What SQLite does in one statement is seen from outside by nothing else that costs nothing: sorting 6 M
        rows it changed every 0.25 s or more often, the progress handler was called every 0.6 s. It stands still
        in a blocked sync. Where there is no /proc, nothing is known.
        """
        thread_id = self._thread_id
        if thread_id is None:
            return None
        try:
            stat = Path(f"/proc/self/task/{thread_id}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            # The thread has just ended, or no descriptor is left: nothing is known, and nothing is lost.
            return None
        # proc(5): "pid (name) state ...", utime and stime are fields 14 and 15.
        fields = stat.rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])


@dataclass(frozen=True)
class Runtime:
    """What a session runs on.

    Attributes:
        now_us: wall clock, microseconds since 1970-01-01 UTC; for records and display, never for order.
        random: source of jitter.
        journal_runner: runs journal calls, strictly one at a time.
        digest_runner: runs digests of large values off the loop.
        instruments: what the process measures of itself.
        patient: a service manager waits for us, not an operator: at the start, too, the silence of an end is
            borne for `upload.give_up_after`.
        cores: that this process may run on.
    """

    now_us: Callable[[], int] = wall_clock_us
    random: random.Random = field(default_factory=random.Random)
    journal_runner: RunSync = field(default_factory=JournalThread)
    digest_runner: RunSync = trio.to_thread.run_sync
    instruments: Instruments = field(default_factory=Instruments)
    patient: bool = False
    cores: int = field(default_factory=usable_cores)
