"""Stopping in two steps: end what is in hand within a deadline, or cancel at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio


@dataclass(eq=False)
class Governed:
    """A block of work under a drain.

    Attributes:
        scope: ends the block.
        grace: seconds that a request leaves it; may be changed while it runs.
    """

    scope: trio.CancelScope
    grace: float

    def hand_over(self) -> None:
        """From here on the block governs its parts itself: neither a request nor a cancel ends it from outside."""
        self.grace = self.scope.deadline = math.inf


class Drain:
    """The request to stop, and what it means for the work going on.

    Work runs inside `governs`: a request gives it `grace` seconds, a cancel none. Whatever begins after the
    request finds its scope due already.

    Attributes:
        requested: set by the first request.
        cause: who or what asked ("SIGTERM", "SIGINT", "max_duration = 2h", "drain by alice"), None until then.
        cancelled: the second request came too.
        recorded: the journal has the request already.
    """

    def __init__(self) -> None:
        self.requested = trio.Event()
        self.cause: str | None = None
        self.cancelled = False
        self.recorded = False
        self._governed: list[Governed] = []

    def __bool__(self) -> bool:
        return self.requested.is_set()

    def request(self, cause: str) -> None:
        """Ask for the end; asking again changes nothing."""
        if self:
            return
        self.cause = cause
        self.requested.set()
        for governed in self._governed:
            governed.scope.deadline = trio.current_time() + governed.grace

    async def or_event(self, event: trio.Event) -> None:
        """Wait for `event` or for the request, whichever comes first."""
        async with trio.open_nursery() as nursery:

            async def until(either: trio.Event) -> None:
                await either.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(until, event)
            nursery.start_soon(until, self.requested)

    def cancel(self) -> None:
        """End all governed work at once; only after a request."""
        self.cancelled = True
        for governed in self._governed:
            if governed.grace < math.inf:
                governed.scope.cancel()

    @contextmanager
    def governs(self, *, grace: float) -> Iterator[Governed]:
        """Let the block run until it ends, or until `grace` seconds after the request."""
        with trio.CancelScope() as scope:
            if self.cancelled:
                scope.cancel()
            elif self:
                scope.deadline = trio.current_time() + grace
            governed = Governed(scope, grace)
            self._governed.append(governed)
            try:
                yield governed
            finally:
                self._governed.remove(governed)
