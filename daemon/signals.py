"""SIGTERM and Ctrl-C: the first drains, the second cancels."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import trio

from daemon.drain import Drain
from daemon.log_events import LogEvent, log_event

T = TypeVar("T")


async def under_signals(work: Callable[[Drain], Awaitable[T]], *, grace_seconds: float) -> T:
    """Run `work` with a Drain that the process's signals speak to; return what it returns.

    Args:
        work: ends soon after the drain is requested.
        grace_seconds: told to the operator.
    """
    drain = Drain()
    results: list[T] = []
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_listen, received, drain, grace_seconds)
            results.append(await work(drain))
            nursery.cancel_scope.cancel()
    return results[0]


async def _listen(received: AsyncIterator[int], drain: Drain, grace_seconds: float) -> None:
    async for number in received:
        name = signal.Signals(number).name
        if drain:
            log_event(LogEvent.CANCELLED, f"{name} again: cancelling what is in hand", cause=name)
            drain.cancel()
        else:
            log_event(
                LogEvent.DRAIN_REQUESTED,
                f"{name}: ending what is in hand, at most {grace_seconds:g} s; once more cancels it",
                cause=name,
                grace_seconds=grace_seconds,
            )
            drain.request(name)
