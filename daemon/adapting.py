"""How many uploads at once the endpoint takes, found out by asking for more and heeding its refusals; pure.

Additive increase, multiplicative decrease, as TCP finds a path's capacity (RFC 5681). A *round* is as many served
uploads as the limit allows at once, a round trip in TCP's terms. *Trouble* is what says "less": an answer that asks
to slow down, or none at all. In the order in which a session meets them:

- **Slow start** (RFC 5681, 3.1): one more for each upload served, so the limit doubles in a round, until trouble or
  the ceiling.
- **A cut** halves the limit, once for an *episode*: whatever began before what was under way at the cut had come
  down to the new limit belongs to it. Each kind of trouble has episodes of its own.
- **Recovery** (RFC 9438, 4.4, the concave region): half of what is missing to just under the level at which trouble
  came, in each round.
- **A plateau** there, for seconds and rounds both, so that it outweighs the recovery whatever a round takes.
- **Probing** (RFC 9438, 4.5, the convex region): one more in the first round, twice as many in each later one, which
  begins no sooner than trouble from the one before would be noticed: silence takes as long as a timeout.

Only uploads served while the limit was what held others back make it grow (RFC 9438, 5.8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.causes import Cause
from daemon.retrying import FailureClass

if TYPE_CHECKING:
    from collections.abc import Callable

    from journal.entries import AttemptFailed

START = 8
"""The first limit: the order of TCP's initial window (RFC 6928 has 10), an eighth of the default ceiling."""
PLATEAU_SECONDS, PLATEAU_SECONDS_MAX = 1.0, 60.0
"""How long the limit rests before it is probed, doubled each time that probing ends at the same level: a steady
endpoint refuses one upload a minute, and one that takes more is found out within a minute."""
PLATEAU_ROUNDS = 20
"""Rounds that it rests at least: a recovery takes about five, at three quarters of the level on average."""
MARGIN = 20
"""Recovery ends this fraction of the level below it: noise of a few per cent is no reason to be refused again."""
MARGIN_REFUTED = 4
"""The same where trouble came on the plateau, so that its level was too high (RFC 9438, 4.7, fast convergence)."""
PROBE_FRACTION = 4
"""Probing adds at most this fraction of the limit in a round: an overshoot is refused, and costs a cut."""
RECORD_SECONDS = 10.0
"""Between two recorded cuts, and before growth is recorded; slow start's doublings excepted, seven up to 1024.
So a day has at most 17,280 such events whatever the endpoint does, and under a steady one about 2000."""

ATTEMPTS = frozenset({"PUT", "HEAD", "GET"})
"""Operations of uploads: a fetch that fails says nothing about the bucket."""
TROUBLE = {
    FailureClass.THROTTLED.value: Cause.S3_SLOW_DOWN,
    FailureClass.TIMEOUT.value: Cause.UNREACHABLE,
    FailureClass.CONNECTION.value: Cause.UNREACHABLE,
}
"""The kind of trouble that a class of failed attempts is; any other is no matter of how many there are."""


def trouble(entry: AttemptFailed) -> Cause | None:
    """Return what kind of trouble a failed attempt is; None where fewer at once would not have helped."""
    return TROUBLE.get(entry.failure) if entry.operation in ATTEMPTS else None


class Growth(StrEnum):
    """Why the limit changed without trouble; the strings are part of the journal's format."""

    GREW = "grew"
    RECOVERED = "recovered"
    CEILING = "ceiling"


@dataclass(frozen=True, slots=True)
class Change:
    """What to put on record of the limit.

    Attributes:
        before, after: the limit as last recorded, and now.
        cause: the newest trouble since then (a Cause), else why it grew (a Growth).
        ceiling: in force now.
        cuts: how often it was halved since then.
        ordinal: the key whose attempt met that trouble.
    """

    before: int
    after: int
    cause: str
    ceiling: int
    cuts: int = 0
    ordinal: int | None = None


class Adaptation:
    """The limit in force: 1 <= limit <= ceiling at every moment. Times are seconds of one monotonic clock.

    Attributes:
        limit: uploads that may be under way at once.
        ceiling: what it never exceeds.
    """

    def __init__(self, ceiling: int) -> None:
        self.ceiling = ceiling
        self.limit = min(START, ceiling)
        # What is known of the endpoint: at which limit trouble came, None before any, and where recovery ends.
        self._level: int | None = None
        self._target = 0
        self._episodes: dict[Cause, float] = {}
        self._draining = False
        # The round under way: steps that are left in it, uploads served towards the next one, and what that costs.
        self._steps_left = 0
        self._served = 0
        self._price = 1
        # The plateau and the probing after it.
        self._plateau_seconds = PLATEAU_SECONDS
        self._plateau_rounds = 0
        self._probe_at: float | None = None
        self._probe_gain = 0
        self._notice = 0.0
        # What is to be recorded.
        self._cause: Cause | Growth = Growth.GREW
        self._ordinal: int | None = None
        self._cuts = 0
        self._recorded = (self.limit, ceiling)
        self._recorded_at: float | None = None
        self._cut_recorded_at = -math.inf
        self._begin_round(0.0)

    def served(self, *, under_way: int, full: bool, clock: Callable[[], float]) -> bool:
        """Note that an upload was served just now; return whether the limit has grown.

        Args:
            under_way: uploads under way, this one included.
            full: as many as allowed were under way at some moment while this one was.
            clock: asked about once in a round only, since this is called for each object.
        """
        if under_way > self.limit:
            return False
        if self._draining:
            self._draining, now = False, clock()
            self._episodes = {kind: min(end, now) for kind, end in self._episodes.items()}
        if not full or self.limit >= self.ceiling:
            return False
        self._served += 1
        if self._served < self._price:
            return False
        self._served = 0
        grown = self._steps_left > 0
        if grown:
            self._steps_left -= 1
            self.limit += 1
            recovering = self._level is not None and self.limit <= self._target
            self._caused_by(Growth.RECOVERED if recovering else Growth.GREW)
        if self._steps_left == 0:
            self._begin_round(clock())
        return grown

    def failed(self, kind: Cause, *, began: float, now: float, ordinal: int | None = None) -> bool:
        """Note that an attempt that began at `began` met trouble; return whether the limit was cut."""
        if began < self._episodes.get(kind, -math.inf):
            return False
        self._episodes[kind] = math.inf
        before = self.limit
        found_nothing_new = (
            self._probe_gain > 0 and self._level is not None and before <= self._level + self._probe_gain
        )
        self._plateau_seconds = (
            min(2 * self._plateau_seconds, PLATEAU_SECONDS_MAX) if found_nothing_new else PLATEAU_SECONDS
        )
        if not self._draining:
            # Trouble of another kind, before the first cut has taken effect, came at the same level.
            resting = self._probe_at is not None and self._probe_gain == 0
            self._level = before
            self._target = before - max(1, before // (MARGIN_REFUTED if resting else MARGIN))
        self._draining = True
        self._notice = now - began
        self._probe_at, self._probe_gain, self._plateau_rounds = None, 0, 0
        self.limit = max(1, before // 2)
        self._begin_round(now)
        if self.limit == before:
            return False
        self._cuts += 1
        self._cause, self._ordinal = kind, ordinal
        return True

    def set_ceiling(self, ceiling: int) -> None:
        """Change what the limit never exceeds; a higher one has still to be grown to."""
        if ceiling != self.ceiling:
            self.ceiling = ceiling
            wanted = self.limit if self._level is not None else max(self.limit, START)
            self.limit = min(wanted, ceiling)
            self._caused_by(Growth.CEILING)

    def take_change(self, now: float, *, last: bool = False) -> Change | None:
        """Return what is to be put on record at `now`, once; None where that is nothing, or not due yet.

        Args:
            now: when this is asked; the first time is the session's beginning.
            last: nobody will ask again.
        """
        if self._recorded_at is None:
            self._recorded_at = now
        before, _ = self._recorded
        if not self._cuts and (self.limit, self.ceiling) == self._recorded:
            return None
        doubled = self._level is None and (self.limit >= 2 * before or self.limit == self.ceiling)
        since = self._cut_recorded_at if self._cuts else self._recorded_at
        if not (last or doubled or now - since >= RECORD_SECONDS):
            return None
        change = Change(before, self.limit, self._cause.value, self.ceiling, self._cuts, self._ordinal)
        self._recorded_at = now
        if self._cuts:
            self._cut_recorded_at = now
        self._recorded = (self.limit, self.ceiling)
        self._cuts, self._ordinal = 0, None
        return change

    def _caused_by(self, cause: Growth) -> None:
        # Trouble that is not on record yet is what is told, not what followed.
        if not self._cuts:
            self._cause = cause

    def _begin_round(self, now: float) -> None:
        """Decide by how much the limit may grow in the next round, and what each step costs."""
        self._served = 0
        self._steps_left = gain = self._gain(now)
        self._price = max(1, self.limit // gain) if gain else self.limit

    def _gain(self, now: float) -> int:
        if self._level is None:
            return self.limit
        if self.limit < self._target:
            return (self._target - self.limit + 1) // 2
        if self._probe_at is None:
            self._probe_at = now + self._plateau_seconds
        if now < self._probe_at or self._plateau_rounds < PLATEAU_ROUNDS:
            self._plateau_rounds += 1
            return 0
        self._probe_gain = max(1, min(2 * self._probe_gain, self.limit // PROBE_FRACTION))
        self._probe_at = now + self._notice
        return self._probe_gain
