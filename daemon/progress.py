"""Show a running session: bars on a terminal, else a log line every so often; the numbers are the journal's."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

import trio

from daemon import rendering_units as units
from daemon.rendering_bars import bar_lines
from daemon.rendering_progress import Meters, Progress, Reading, progress_line
from daemon.runtime import wall_clock_us

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rich.console import Console

BAR_SECONDS = 0.5
"""Between two drawings of the bars: often enough to look alive."""
_ASCII = str.maketrans({"·": "|", "…": "~", "━": "#", "╌": "-"})


class _Display(Protocol):
    pause_seconds: float

    def show(self, progress: Progress, readings: list[Reading]) -> None: ...

    def close(self) -> None: ...


async def report(
    snapshot: Callable[[], Awaitable[Progress]],
    *,
    interval_seconds: float,
    stream: TextIO,
    now_us: Callable[[], int] = wall_clock_us,
    monotonic: Callable[[], float] = trio.current_time,
) -> None:
    """Show progress on `stream` until cancelled.

    On a terminal: bars per source and a total, drawn in place, the cursor restored however this ends.
    Elsewhere: one log line per source and a total, every `interval_seconds`.

    A stream that can no longer be written to (its terminal was closed, its reader has gone) ends the report,
    not the session.

    Args:
        snapshot: returns the session's numbers now; what it raises is raised here.
        interval_seconds: between two log lines (`--checkpoint-interval-secs`).
        stream: usually stderr.
        now_us: wall clock for the log lines' time stamps, microseconds since 1970-01-01 UTC.
        monotonic: seconds; what rates and ETA are measured by.
    """
    meters = Meters()
    with contextlib.closing(_display(stream, now_us, interval_seconds)) as display:
        while True:
            progress = await snapshot()
            try:
                display.show(progress, meters.read(monotonic(), progress))
            except OSError:
                return
            await trio.sleep(display.pause_seconds)


def write_line(stream: TextIO, level: str, text: str, *, now_us: int) -> None:
    """Write one log line, whatever is in `text`: time (RFC 3339, UTC, milliseconds), level, text escaped.

    Raises:
        OSError: the stream is gone.
    """
    stream.write(_writable(f"{units.moment_ms(now_us)} {level} {units.one_line(text)}\n", stream))
    stream.flush()


def _writable(text: str, stream: TextIO) -> str:
    """Return `text` as the stream's encoding can take it (LANG=C, a pipe set to ASCII)."""
    encoding = stream.encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def _display(stream: TextIO, now_us: Callable[[], int], interval_seconds: float) -> _Display:
    if stream.isatty():
        from rich.console import Console

        console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        if not console.is_dumb_terminal:
            return _Bars(stream, console)
    return _Lines(stream, now_us, interval_seconds)


class _Lines:
    """Log lines for files, pipes and the service manager's journal."""

    def __init__(self, stream: TextIO, now_us: Callable[[], int], pause_seconds: float) -> None:
        self.pause_seconds = pause_seconds
        self._stream = stream
        self._now_us = now_us

    def show(self, progress: Progress, readings: list[Reading]) -> None:
        now_us = self._now_us()
        for reading in readings:
            write_line(self._stream, "INFO", progress_line(reading, state=progress.state), now_us=now_us)

    def close(self) -> None:
        """Nothing to restore."""


class _Bars:
    """Bars drawn in place. No thread refreshes them: the report's own loop draws."""

    pause_seconds = BAR_SECONDS

    def __init__(self, stream: TextIO, console: Console) -> None:
        from rich.live import Live

        self._stream = stream
        self._console = console
        # Log lines written to sys.stderr meanwhile pass above the bars instead of through them.
        self._live = Live(
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )

    def show(self, progress: Progress, readings: list[Reading]) -> None:
        from rich.text import Text

        self._live.start()
        lines = bar_lines(progress, readings, width=self._console.width, height=self._console.height)
        text = _writable("\n".join(lines), self._stream)
        self._live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

    def close(self) -> None:
        # A terminal that has gone needs no cursor back.
        with contextlib.suppress(OSError):
            self._live.stop()
