"""Show how far a verification is: a bar on a terminal, else a log line every so often."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from daemon import rendering_units as units
from daemon.log_events import LogEvent, log_event
from daemon.progress import BAR_SECONDS, Drawn
from daemon.rendering_bars import bar

if TYPE_CHECKING:
    from daemon.verification import Verification

BAR_CELLS = 20
"""Width of the bar: the words beside it matter more."""


class _Meter:
    """Rate and remaining time of one run; of one that is taken up again, from there on."""

    def __init__(self, verification: Verification, now: float) -> None:
        self.verification = verification
        self._begun = now
        self._done_before = verification.done

    def line(self, now: float) -> str:
        """Return "content: 1,200 of 4,000 keys (30.0 %), 400 keys/s, 7s left"."""
        done, of = self.verification.done, self.verification.of
        name = self.verification.tier.name.value
        text = f"{name}: {units.count(done)} of {units.plural(of, 'key')} ({units.percent(done, of)})"
        seconds, moved = now - self._begun, done - self._done_before
        if seconds <= 0 or moved <= 0:
            return text
        left = units.duration((of - done) * seconds / moved)
        return f"{text}, {units.rate(moved / seconds, 'keys')}, {left} left"


@contextlib.contextmanager
def shown_on(
    stream: TextIO,
    *,
    interval_seconds: float,
    bars: bool = True,
    monotonic: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[Verification], None]]:
    """Yield what a verification calls as it gets on; the terminal is given back at the end.

    A terminal that can no longer be written to ends the display, not the verification.

    Args:
        stream: stderr, where the log goes too.
        interval_seconds: between two log lines (`--checkpoint-interval-secs`).
        bars: whether a terminal gets a bar.
        monotonic: seconds.
    """
    drawn = Drawn.on(stream, transient=True) if bars else None
    pause = interval_seconds if drawn is None else BAR_SECONDS
    meter: _Meter | None = None
    shown_at = monotonic()

    def told(verification: Verification) -> None:
        nonlocal meter, shown_at
        now = monotonic()
        if meter is None or meter.verification is not verification:
            meter = _Meter(verification, now)
        if now - shown_at < pause:
            return
        shown_at = now
        line = meter.line(now)
        if drawn is None:
            _tell(verification, line)
            return
        with contextlib.suppress(OSError):
            filled = bar(verification.done, verification.of, BAR_CELLS)
            drawn.draw(lambda width, _: [units.clip(f"{filled}  {line}", width)])

    with contextlib.ExitStack() as stack:
        if drawn is not None:
            stack.callback(drawn.close)
        yield told


def _tell(verification: Verification, line: str) -> None:
    log_event(
        LogEvent.VERIFICATION_PROGRESSED,
        line,
        tier=verification.tier.name.value,
        checked=verification.done,
        of=verification.of,
    )
