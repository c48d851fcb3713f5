"""Keep a storm of equal log lines short: the first few of a kind in a while, then only how many more; pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

LINES_MAX = 10
"""Lines of one kind that are written within `WINDOW_SECONDS`; enough to see a pattern."""
WINDOW_SECONDS = 30.0
"""As long as between two progress lines by default."""


@dataclass(slots=True)
class _Window:
    since: float
    seen: int = 0


@dataclass(frozen=True, slots=True)
class LeftOut(Generic[K]):
    """How many lines of one kind were left out within how many seconds."""

    kind: K
    number: int
    seconds: float


class Repeats(Generic[K]):
    """Counts lines by kind; holds one window per kind that was seen within `WINDOW_SECONDS`."""

    def __init__(self) -> None:
        self._windows: dict[K, _Window] = {}

    def admits(self, kind: K, now: float) -> bool:
        """Note a line at the monotonic time `now` (seconds); say whether it is to be written."""
        window = self._windows.setdefault(kind, _Window(now))
        window.seen += 1
        return window.seen <= LINES_MAX

    def over(self, now: float, *, all_of_them: bool = False) -> list[LeftOut[K]]:
        """Forget the windows that are over at `now`, or all; return what they left out."""
        left_out = []
        for kind, window in list(self._windows.items()):
            if all_of_them or now - window.since >= WINDOW_SECONDS:
                del self._windows[kind]
                if window.seen > LINES_MAX:
                    left_out.append(LeftOut(kind, window.seen - LINES_MAX, now - window.since))
        return left_out
