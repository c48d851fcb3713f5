"""Bounds on what a session holds: bytes of values in memory, and how long an endpoint may stay silent."""

from __future__ import annotations

import trio


class ByteBudget:
    """Bytes of values that may be in memory at once; reservations are served first come, first served.

    A reservation larger than the whole budget waits until nothing else is reserved and then runs alone, so
    that one huge value neither starves nor deadlocks.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"byte budget of {total} bytes, expected at least 1")
        self.total = total
        self.reserved = 0
        self._turn = trio.Lock()
        self._released = trio.Event()

    async def reserve(self, size: int) -> None:
        """Wait until `size` bytes fit, then take them, all at once."""
        async with self._turn:
            while self.reserved and self.reserved + size > self.total:
                await self._released.wait()
            self.reserved += size

    def release(self, size: int) -> None:
        """Give `size` bytes back."""
        self.reserved -= size
        if self.reserved < 0:
            raise AssertionError(f"byte budget released {-self.reserved} bytes more than was reserved")
        self._released.set()
        self._released = trio.Event()


class Slots:
    """How many may be at something at once, where that number changes while they are.

    A lower total takes nothing away from who has a slot; it only lets nobody else in until enough have left.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._takes = 0
        self._full_at = 0
        self._waiting = 0
        self._freed = trio.Event()

    async def take(self) -> int:
        """Wait for a free slot, then take it; no checkpoint where one is free. The number is for `full_since`."""
        while self.taken >= self.total:
            self._waiting += 1
            try:
                await self._freed.wait()
            finally:
                self._waiting -= 1
        self.taken += 1
        self._takes += 1
        if self.taken == self.total:
            self._full_at = self._takes
        return self._takes

    def full_since(self, take: int) -> bool:
        """Say whether every slot was taken at some moment since the one of this number was."""
        return self._full_at >= take

    def give_back(self) -> None:
        """Leave a slot."""
        self.taken -= 1
        self._tell()

    def resize(self, total: int) -> None:
        """Change how many there are."""
        self.total = total
        self._tell()

    def _tell(self) -> None:
        if self._waiting:
            freed, self._freed = self._freed, trio.Event()
            freed.set()


class Silence:
    """How long an endpoint has served nobody, counted from the first attempt it left unserved."""

    def __init__(self) -> None:
        self._since: float | None = None

    def broken(self) -> None:
        """Note an answer that was more than a plea to slow down."""
        self._since = None

    def unanswered(self, now: float) -> float:
        """Note an attempt without such an answer at `now` (monotonic seconds); return the silence so far."""
        if self._since is None:
            self._since = now
        return now - self._since
