"""Where a session's time went, and when something slowed it down; pure: time and cause come in.

Time between two looks is given to the cause seen at the later one. A slow-down is one episode from when its
cause has limited the session for BEGIN_SECONDS until it has not been seen for END_SECONDS, so that a cause that
comes and goes within seconds is one episode, not hundreds.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from daemon.causes import AT_WORK, HOLDS, Cause

BEGIN_SECONDS = 2.0
"""How long a cause must limit the session before it is a slow-down; a deliberate hold is one at once."""
END_SECONDS = 5.0
"""How long a cause must be gone before its slow-down has ended; a deliberate hold has ended at once."""
_AT_ONCE = frozenset({*HOLDS, Cause.OPERATOR})


@dataclass(frozen=True, slots=True)
class Began:
    """A slow-down has begun."""

    cause: Cause
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A slow-down has ended; `milliseconds` is what it cost."""

    cause: Cause
    detail: str
    milliseconds: int


SlowDownEvent: TypeAlias = Began | Ended


@dataclass(slots=True)
class _Episode:
    cause: Cause
    detail: str
    spent: float
    seen_at: float


class Ledger:
    """Adds up where time goes; at most one slow-down is open at a time, the one that limits the session."""

    def __init__(self, at: float) -> None:
        self._at = at
        self._spent: Counter[Cause] = Counter()
        self._episode: _Episode | None = None
        self._candidate: tuple[Cause, float] | None = None

    def look(self, at: float, cause: Cause, detail: str = "") -> list[SlowDownEvent]:
        """Note that `cause` limits the session at `at` (monotonic seconds); return what began or ended by that.

        `detail` says in one line what was found; an episode keeps the newest.
        """
        passed = at - self._at
        self._at = at
        self._spent[cause] += round(passed * 1000)
        episode = self._episode
        if episode is not None and episode.cause is cause:
            episode.spent += passed
            episode.seen_at = at
            episode.detail = detail or episode.detail
            self._candidate = None
            return []
        events: list[SlowDownEvent] = []
        begun_by = self._begun(at, cause, passed)
        if episode is not None and (
            begun_by is not None or episode.cause in _AT_ONCE or at - episode.seen_at >= END_SECONDS
        ):
            events.append(_ended(episode))
            self._episode = None
        if begun_by is not None:
            self._episode = _Episode(cause, detail, begun_by, at)
            self._candidate = None
            events.append(Began(cause, detail))
        return events

    def _begun(self, at: float, cause: Cause, passed: float) -> float | None:
        """Return for how long `cause` has limited the session if that makes it a slow-down, else None."""
        if cause in AT_WORK:
            self._candidate = None
            return None
        if self._candidate is None or self._candidate[0] is not cause:
            self._candidate = (cause, at - passed)
        lasted = at - self._candidate[1]
        return lasted if cause in _AT_ONCE or lasted >= BEGIN_SECONDS else None

    def take(self) -> dict[str, int]:
        """Return the milliseconds by cause since the last time this was asked."""
        spent = {cause.value: ms for cause, ms in self._spent.items() if ms > 0}
        self._spent.clear()
        return spent

    def close(self) -> list[SlowDownEvent]:
        """End the slow-down that is open: the session ends."""
        episode, self._episode = self._episode, None
        return [] if episode is None else [_ended(episode)]


def _ended(episode: _Episode) -> Ended:
    return Ended(episode.cause, episode.detail, round(episode.spent * 1000))
