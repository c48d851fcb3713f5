"""Show a running session: bars on a terminal, else a log line every so often; the numbers are the journal's."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

import trio

from daemon.log_events import LogEvent, Scalar, Told, tell
from daemon.log_lines import writable
from daemon.rendering_bars import bar_lines
from daemon.rendering_progress import Meters, Progress, Reading, progress_fields, progress_line

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rich.console import Console

BAR_SECONDS = 0.5
"""Between two drawings of the bars: often enough to look alive."""


class _Display(Protocol):
    pause_seconds: float

    def show(self, progress: Progress, readings: list[Reading]) -> None: ...

    def close(self) -> None: ...


async def report(
    snapshot: Callable[[], Awaitable[Progress]],
    *,
    interval_seconds: float,
    stream: TextIO,
    bars: bool = True,
    monotonic: Callable[[], float] = trio.current_time,
) -> None:
    """Show progress on `stream` until cancelled.

    On a terminal: bars per source and a total, drawn in place, the cursor restored however this ends.
    Elsewhere, or without `bars`: one line of the log per source and a total, every `interval_seconds`.

    A terminal that can no longer be written to ends the report, not the session.

    Args:
        snapshot: returns the session's numbers now; what it raises is raised here.
        interval_seconds: between two log lines (`--checkpoint-interval-secs`).
        stream: stderr, where the log goes too.
        bars: whether a terminal gets bars.
        monotonic: seconds; what rates and ETA are measured by.
    """
    meters = Meters()
    with contextlib.closing(_display(stream, interval_seconds, bars=bars)) as display:
        while True:
            progress = await snapshot()
            try:
                display.show(progress, meters.read(monotonic(), progress))
            except OSError:
                return
            await trio.sleep(display.pause_seconds)


def _display(stream: TextIO, interval_seconds: float, *, bars: bool) -> _Display:
    drawn = Drawn.on(stream) if bars else None
    return _Lines(interval_seconds) if drawn is None else _Bars(drawn)


class Drawn:
    """Lines drawn in place on a terminal. No thread refreshes them: whoever calls `draw` does."""

    def __init__(self, stream: TextIO, console: Console, *, transient: bool) -> None:
        from rich.live import Live

        self._stream = stream
        self._console = console
        # Log lines written to sys.stderr meanwhile pass above what is drawn instead of through it.
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=transient,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )

    @classmethod
    def on(cls, stream: TextIO, *, transient: bool = False) -> Drawn | None:
        """Return what draws on `stream`; None where it is no terminal that can move its cursor.

        What is `transient` is wiped out at the end.
        """
        if not stream.isatty():
            return None
        from rich.console import Console

        console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
        return None if console.is_dumb_terminal else cls(stream, console, transient=transient)

    def draw(self, lines: Callable[[int, int], Sequence[str]]) -> None:
        """Draw what `lines` returns for a width and a height; raises OSError where the terminal has gone."""
        from rich.text import Text

        self._live.start()
        text = writable("\n".join(lines(self._console.width, self._console.height)), self._stream.encoding)
        self._live.update(Text(text, no_wrap=True, overflow="crop"), refresh=True)

    def close(self) -> None:
        """Give the terminal back as it was."""
        # A terminal that has gone needs no cursor back.
        with contextlib.suppress(OSError):
            self._live.stop()


class _Lines:
    """Log lines for files, pipes and the service manager's journal."""

    def __init__(self, pause_seconds: float) -> None:
        self.pause_seconds = pause_seconds

    def show(self, progress: Progress, readings: list[Reading]) -> None:
        for reading in readings:
            source = None if reading.checkpoint is None else reading.name
            fields: dict[str, Scalar] = {"state": progress.state, **progress_fields(reading)}
            text = progress_line(reading, state=progress.state)
            tell(Told(LogEvent.PROGRESS, source, fields=fields), text)

    def close(self) -> None:
        """Nothing to restore."""


class _Bars:
    """Bars per source and a total; the report's own loop draws them."""

    pause_seconds = BAR_SECONDS

    def __init__(self, drawn: Drawn) -> None:
        self._drawn = drawn

    def show(self, progress: Progress, readings: list[Reading]) -> None:
        self._drawn.draw(lambda width, height: bar_lines(progress, readings, width=width, height=height))

    def close(self) -> None:
        self._drawn.close()
