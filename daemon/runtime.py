"""The outside world that decisions need, injected: wall clock, randomness, a way to run blocking calls."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
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


async def in_loop(function: Callable[[], T]) -> T:
    """Run `function` in the event loop itself: for virtual time, where a real thread's time would not count."""
    await trio.lowlevel.checkpoint()
    return function()


def in_one_thread() -> RunSync:
    """Return a runner that uses a worker thread, one call at a time, in the order of arrival.

    Not abandoned on cancellation: a journal commit that has begun is waited for.
    """
    return functools.partial(trio.to_thread.run_sync, limiter=trio.CapacityLimiter(1))


@dataclass(frozen=True)
class Runtime:
    """What a session runs on.

    Attributes:
        now_us: wall clock, microseconds since 1970-01-01 UTC; for records and display, never for order.
        random: source of jitter.
        journal_runner: runs journal calls, strictly one at a time.
        digest_runner: runs digests of large values off the loop.
        instruments: what the process measures of itself.
    """

    now_us: Callable[[], int] = wall_clock_us
    random: random.Random = field(default_factory=random.Random)
    journal_runner: RunSync = field(default_factory=in_one_thread)
    digest_runner: RunSync = trio.to_thread.run_sync
    instruments: Instruments = field(default_factory=Instruments)
