"""How fast a session goes and when it will be done; pure: time comes in, nothing is read.

An ETA is given only when there is something to judge by, and from what was measured in this session.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
"""Rates look back over this span: long enough to bridge a slow batch, short enough to show a stall."""
SAMPLES_MAX = 120
"""Samples kept in one window; nearer ones replace each other, so memory stays bounded at any pace."""
SPAN_MIN_SECONDS = 1.0
"""Shortest span that a rate is computed over."""
ETA_AFTER_SECONDS = 60.0
"""No ETA before this session is so old, unless it has settled ETA_AFTER_FRACTION of the plan (as gh-ost waits)."""
ETA_AFTER_FRACTION = 0.01


class SlidingRate:
    """Rates per second of totals that only grow, over the last WINDOW_SECONDS."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def add(self, at: float, rows: int, size: int) -> None:
        """Note the totals so far (`rows`, `size` in bytes) at the monotonic time `at`, in seconds."""
        samples = self._samples
        if len(samples) > 1 and samples[-1][0] - samples[-2][0] < WINDOW_SECONDS / SAMPLES_MAX:
            samples.pop()
        samples.append((at, rows, size))
        while len(samples) > 1 and samples[1][0] <= at - WINDOW_SECONDS:
            samples.popleft()

    def per_second(self) -> tuple[float, float] | None:
        """Return rows and bytes per second; None while the samples span less than SPAN_MIN_SECONDS."""
        if not self._samples:
            return None
        then, rows_then, size_then = self._samples[0]
        now, rows_now, size_now = self._samples[-1]
        if now - then < SPAN_MIN_SECONDS:
            return None
        # A re-planned key takes its bytes out of the settled ones: that is no negative speed.
        return max(0, rows_now - rows_then) / (now - then), max(0, size_now - size_then) / (now - then)


@dataclass(frozen=True, slots=True)
class Amounts:
    """Totals at one moment.

    Attributes:
        planned_rows, planned_bytes: what there is to do.
        settled_rows, settled_bytes: what is done of it, in planned bytes.
        left_out_rows: parked keys; they wait for the operator, not for time.
        copied_bytes: bytes uploaded so far; what a throughput is made of.
        plan_complete: the planned amounts are not growing.
    """

    planned_rows: int
    planned_bytes: int
    settled_rows: int
    settled_bytes: int
    left_out_rows: int
    copied_bytes: int
    plan_complete: bool

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.planned_rows + other.planned_rows,
            self.planned_bytes + other.planned_bytes,
            self.settled_rows + other.settled_rows,
            self.settled_bytes + other.settled_bytes,
            self.left_out_rows + other.left_out_rows,
            self.copied_bytes + other.copied_bytes,
            self.plan_complete and other.plan_complete,
        )


NOTHING = Amounts(0, 0, 0, 0, 0, 0, plan_complete=True)


@dataclass(frozen=True, slots=True)
class Pace:
    """What a meter reads.

    Attributes:
        rows_per_second: keys settled, whatever their outcome; None where too little time has passed.
        bytes_per_second: bytes uploaded.
        eta_seconds: until every key that is not parked is settled; None where nobody can honestly say.
    """

    rows_per_second: float | None
    bytes_per_second: float | None
    eta_seconds: float | None


class Meter:
    """Follows one source, or the sum of all, through one session."""

    def __init__(self) -> None:
        self._settled = SlidingRate()
        self._copied = SlidingRate()
        self._begun: tuple[float, int] | None = None

    def read(self, at: float, amounts: Amounts) -> Pace:
        """Note `amounts` at the monotonic time `at` (seconds) and return the pace."""
        if self._begun is None:
            self._begun = (at, amounts.settled_rows)
        self._settled.add(at, amounts.settled_rows, amounts.settled_bytes)
        self._copied.add(at, amounts.settled_rows, amounts.copied_bytes)
        settling, copying = self._settled.per_second(), self._copied.per_second()
        begun_at, settled_before = self._begun
        judged = at - begun_at >= ETA_AFTER_SECONDS or amounts.settled_rows - settled_before >= max(
            1, amounts.planned_rows * ETA_AFTER_FRACTION
        )
        return Pace(
            rows_per_second=None if settling is None else settling[0],
            bytes_per_second=None if copying is None else copying[1],
            eta_seconds=eta(amounts, settling) if judged and amounts.plan_complete else None,
        )


def eta(amounts: Amounts, settling: tuple[float, float] | None) -> float | None:
    """Return the seconds until every key that is not parked is settled; None where nothing moves.

    The later of two guesses, by rows and by bytes: many small rows first, or last, mislead one of them.

    Args:
        amounts: what there is to do, and what is done of it.
        settling: rows and planned bytes per second.
    """
    rows_left = amounts.planned_rows - amounts.settled_rows - amounts.left_out_rows
    if rows_left <= 0:
        return 0.0
    if settling is None or settling[0] == 0:
        return None
    by_rows = rows_left / settling[0]
    bytes_left = max(0, amounts.planned_bytes - amounts.settled_bytes)
    return max(by_rows, bytes_left / settling[1]) if settling[1] > 0 else by_rows
