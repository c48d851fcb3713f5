"""Show how far a verification is: a bar on a terminal, else a log line every so often."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from daemon import rendering_units as units
from daemon.log_events import LogEvent, log_event

if TYPE_CHECKING:
    from daemon.verification import Verification

REDRAW_SECONDS = 0.5
"""Between two drawings of the bar."""


class VerificationMeter:
    """Rate and remaining time of one run, by the monotonic clock; a run taken up again is measured from there on."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._tier = ""
        self._begun = 0.0
        self._done_before = 0

    def line(self, tier: str, done: int, of: int) -> str:
        """Return "content: 1,200 of 4,000 keys (30.0 %), 400 keys/s, 7s left"."""
        now = self._monotonic()
        if tier != self._tier:
            self._tier, self._begun, self._done_before = tier, now, done
        text = f"{tier}: {units.count(done)} of {units.plural(of, 'key')} ({units.percent(done, of)})"
        seconds, moved = now - self._begun, done - self._done_before
        if seconds <= 0 or moved <= 0:
            return text
        return f"{text}, {units.rate(moved / seconds, 'keys')}, {units.duration((of - done) * seconds / moved)} left"


@contextlib.contextmanager
def shown_on(
    stream: TextIO, *, interval_seconds: float, monotonic: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[Verification], None]]:
    """Yield what a verification calls as it gets on; the terminal is given back at the end.

    Args:
        stream: stderr, where the log goes too.
        interval_seconds: between two log lines (`--checkpoint-interval-secs`).
        monotonic: seconds.
    """
    meter = VerificationMeter(monotonic)
    last = monotonic()
    pause = interval_seconds

    def told(verification: Verification) -> None:
        nonlocal last
        line = meter.line(verification.tier.name.value, verification.done, verification.of)
        if monotonic() - last < pause:
            return
        last = monotonic()
        show(line, verification)

    def log_line(line: str, verification: Verification) -> None:
        log_event(
            LogEvent.VERIFICATION_PROGRESSED,
            line,
            tier=verification.tier.name.value,
            checked=verification.done,
            of=verification.of,
        )

    show = log_line
    with contextlib.ExitStack() as stack:
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

            console = Console(file=stream, highlight=False, markup=False)
            if not console.is_dumb_terminal:
                live = stack.enter_context(Live(console=console, auto_refresh=False, transient=True))
                pause = REDRAW_SECONDS

                def draw(line: str, verification: Verification) -> None:
                    width = max(10, console.width // 4)
                    full = width * verification.done // max(1, verification.of)
                    bar = "━" * full + "╌" * (width - full)
                    live.update(Text(f"{bar} {line}", no_wrap=True, overflow="ellipsis"), refresh=True)

                show = draw
        yield told
