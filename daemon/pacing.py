"""Keep reads of values under a rate of rows and of bytes: token buckets, and the turnstile in front of fetches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from daemon.activity import Activity
from daemon.causes import Cause
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.rendering_units import byte_rate, moment_seconds, rate
from daemon.timetables import InForce, zone_named

BURST_SECONDS = 1.0
"""How many seconds' worth of its rate a bucket saves up while nobody reads."""
WAIT_SECONDS_MIN = 1e-6
"""A shorter wait is none: adding it to a clock of floats might not move that."""

LOOK_SECONDS = 10.0
"""Longest wait between two looks at the wall clock, which may be set."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What reads are kept under; None is no limit.

    Attributes:
        rows: per second.
        size: bytes per second, `throttle.bytes_per_second` or what an operator set in its place.
        timetable: bytes per second that the timetable allows now; the smaller of both limits holds.
    """

    rows: float | None = None
    size: float | None = None
    timetable: int | None = None

    @property
    def smallest_size(self) -> float | None:
        """Bytes per second in force."""
        given = [rate for rate in (self.size, self.timetable) if rate is not None]
        return min(given, default=None)

    @property
    def size_cause(self) -> Cause:
        """Which of the two limits on bytes is the one in force."""
        ruled = self.timetable is not None and (self.size is None or self.timetable < self.size)
        return Cause.TIMETABLE if ruled else Cause.RATE_LIMIT


class Bucket:
    """A token bucket that knows no clock: tokens come at `rate` and are saved up for BURST_SECONDS.

    An amount larger than the bucket goes once the bucket is full, and leaves a debt. Over any span of t seconds
    in which the rate stays, no more than `rate` * (t + BURST_SECONDS) goes through, beside what one such amount
    exceeds the bucket by.

    Attributes:
        rate: tokens per second; None lets everything through and remembers nothing.
    """

    def __init__(self, rate: float | None, *, now: float) -> None:
        self.rate = rate
        self._saved = 0.0
        self._at = now

    def __repr__(self) -> str:
        return f"Bucket({self.rate}/s, {self._saved:.1f} at {self._at:.3f})"

    def change(self, rate: float | None, *, now: float) -> None:
        """Let tokens come at `rate` from `now` (monotonic seconds) on; a debt stays unless there is no rate any more."""
        self._save(now)
        self.rate = rate
        if rate is None:
            self._saved = 0.0

    def wait(self, amount: int, *, now: float) -> float:
        """Return the seconds from `now` until `amount` may go; 0 is at once."""
        if self.rate is None:
            return 0.0
        self._save(now)
        seconds = (min(amount, self.rate * BURST_SECONDS) - self._saved) / self.rate
        return seconds if seconds >= WAIT_SECONDS_MIN else 0.0

    def take(self, amount: int, *, now: float) -> None:
        """Let `amount` go at `now`."""
        if self.rate is not None:
            self._save(now)
            self._saved -= amount

    def _save(self, now: float) -> None:
        if self.rate is not None:
            self._saved = min(self.rate * BURST_SECONDS, self._saved + self.rate * (now - self._at))
        self._at = now


class Pacer:
    """The turnstile before fetches: each names its rows and bytes and waits until both rates allow it.

    First come, first served. What an operator sets, and what the timetable says next, holds at once, for whoever
    waits already too.
    """

    def __init__(self, controls: Controls, activity: Activity, now_us: Callable[[], int]) -> None:
        """Admit by the rates and the timetable of `controls`.

        Args:
            controls: have what is in force.
            activity: told of every wait, by its cause.
            now_us: wall clock for the timetable, microseconds since 1970 UTC.
        """
        self._throttle = controls.throttle
        self._controls = controls
        self._activity = activity
        self._now_us = now_us
        self._slot = InForce(None, 0)
        self._looked_us = 0
        self._rates = Rates()
        now = trio.current_time()
        self._rows = Bucket(None, now=now)
        self._size = Bucket(None, now=now)
        self._turn = trio.Lock()

    def fetch_rows(self, most: int) -> int:
        """Return how many rows one fetch should ask for, `most` or what a bucket holds: never a debt, but for one row."""
        self._adjust()
        return most if self._rates.rows is None else max(1, min(most, int(self._rates.rows * BURST_SECONDS)))

    def fetch_size(self, most: int) -> int:
        """Return how many bytes one fetch should ask for, `most` or what a bucket holds."""
        self._adjust()
        rate = self._rates.smallest_size
        return most if rate is None else min(most, int(rate * BURST_SECONDS))

    def explain(self, cause: Cause) -> str:
        """Return what a wait for `cause` is for, in words for the record; empty for causes of others."""
        rates = self._rates
        if cause is Cause.TIMETABLE and rates.timetable is not None:
            return f"at most {byte_rate(rates.timetable)} until {moment_seconds(self._slot.until_us)}"
        if cause is Cause.RATE_LIMIT:
            limits = [] if rates.rows is None else [rate(rates.rows, "rows")]
            limits += [] if rates.size is None else [byte_rate(rates.size)]
            return f"at most {' and '.join(limits)}" if limits else ""
        return ""

    async def admit(self, drain: Drain, *, rows: int, size: int) -> None:
        """Wait until `rows` rows of `size` bytes together may be read, or until a drain is requested.

        A read that is cancelled or drained while it waits uses nothing up.
        """
        async with self._turn:
            while not drain:
                self._adjust()
                seconds, cause = self._wait(rows, size)
                if seconds == 0:
                    now = trio.current_time()
                    self._rows.take(rows, now=now)
                    self._size.take(size, now=now)
                    return
                with self._activity.at(cause), trio.move_on_after(min(seconds, self._slot_seconds())):
                    await drain.or_event(self._controls.changed)

    def _adjust(self) -> None:
        """Put the rates in force that hold at this moment."""
        self._look_at_the_clock()
        tunables = self._controls.tunables
        rates = Rates(tunables.rows_per_second, tunables.bytes_per_second, self._slot.limit)
        if rates != self._rates:
            now = trio.current_time()
            self._rates = rates
            self._rows.change(rates.rows, now=now)
            self._size.change(rates.smallest_size, now=now)

    def _look_at_the_clock(self) -> None:
        if self._controls.throttle != self._throttle:
            self._throttle = self._controls.throttle
            self._slot = InForce(None, 0)
        if self._throttle.timetable is None:
            return
        now_us = self._now_us()
        # A clock that was set back is looked at as well.
        if not self._looked_us <= now_us < self._slot.until_us:
            self._slot = self._throttle.timetable.at(now_us, zone_named(self._throttle.timetable_zone))
        self._looked_us = now_us

    def _slot_seconds(self) -> float:
        """Return how long the timetable's slot lasts at most; the wall clock may be set meanwhile."""
        if self._throttle.timetable is None:
            return LOOK_SECONDS
        return min(
            LOOK_SECONDS, max(0.0, (self._slot.until_us - self._now_us()) / 1_000_000) + WAIT_SECONDS_MIN
        )

    def _wait(self, rows: int, size: int) -> tuple[float, Cause]:
        now = trio.current_time()
        by_rows, by_size = self._rows.wait(rows, now=now), self._size.wait(size, now=now)
        if by_size > by_rows:
            return by_size, self._rates.size_cause
        return by_rows, Cause.RATE_LIMIT
