"""`status --watch`: the status again and again until the operator leaves, on a screen, as text or as JSON lines.

Whatever state the journal is in, and whether a daemon runs or not, is part of what is watched: trouble is shown and
the next look tries again.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from daemon.commands.options import now_us
from daemon.errors import BackfillError
from journal.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.console import Console
    from rich.text import Text

    from daemon.rendering_watch import Row
    from journal.status import MigrationStatus

LEAVING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""End the watch as Ctrl-C does, so that the terminal is given back."""
KEYS_READ_MAX = 1024
WIDTH_UNKNOWN, HEIGHT_UNKNOWN = 80, 24
"""Of a terminal that does not know its size, such as a serial line."""


def watch(ask: Callable[[int], MigrationStatus], *, interval_seconds: float, as_json: bool) -> None:
    """Show what `ask` finds at once and every `interval_seconds`; returns when the operator leaves.

    A terminal gets a full screen, which q or Ctrl-C leaves; what is no terminal, or a dumb one, gets the text of
    `status` again and again; `as_json` a line of JSON for each look.

    Args:
        ask: returns the status at a time (microseconds since 1970-01-01 UTC); what it raises as BackfillError or
            JournalError is shown.
        interval_seconds: between two looks.
        as_json: for programs.
    """
    with _left_by_signals(), contextlib.suppress(KeyboardInterrupt):
        console = None if as_json or not sys.stdout.isatty() else _console()
        if console is None or console.is_dumb_terminal:
            _repeat(ask, interval_seconds, _json_line if as_json else _text)
        else:
            _fill_screen(ask, interval_seconds, console)


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False)


@contextmanager
def _left_by_signals() -> Iterator[None]:
    def leave(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, leave) for number in LEAVING_SIGNALS}
    # A stopped process could not give the terminal back.
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _repeat(
    ask: Callable[[int], MigrationStatus],
    interval_seconds: float,
    told: Callable[[MigrationStatus, int], str],
) -> None:
    """Print each look; trouble goes to stderr, once for as long as it stays the same."""
    trouble = ""
    while True:
        now = now_us()
        try:
            text = told(ask(now), now)
        except (BackfillError, JournalError) as failure:
            if failure.problem != trouble:
                trouble = failure.problem
                click.echo(f"error: {trouble}; trying again", err=True)
        else:
            trouble = ""
            click.echo(text)
        # What is read by a program must not wait in a buffer.
        sys.stdout.flush()
        time.sleep(interval_seconds)


def _json_line(status: MigrationStatus, now: int) -> str:
    from daemon.rendering import status_json

    return json.dumps(status_json(status, now_us=now))


def _text(status: MigrationStatus, now: int) -> str:
    from daemon.rendering import status_text
    from daemon.rendering_units import moment_seconds

    width = shutil.get_terminal_size().columns
    return f"{moment_seconds(now)}\n{status_text(status, now_us=now, width=width)}\n"


def _fill_screen(ask: Callable[[int], MigrationStatus], interval_seconds: float, console: Console) -> None:
    """Draw on the alternate screen until q; both it and the keyboard are given back however this ends."""
    from rich.console import ConsoleDimensions
    from rich.live import Live

    live = Live(
        console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
    )
    with _keyboard() as keys:
        try:
            live.start()
            while True:
                # Asked of the terminal each time: COLUMNS, where it is exported, stays as it was.
                columns, lines = os.get_terminal_size(sys.stdout.fileno())
                console.size = ConsoleDimensions(columns or WIDTH_UNKNOWN, lines or HEIGHT_UNKNOWN)
                live.update(_drawn(_rows(ask, console.width, console.height)), refresh=True)
                if _asked_to_leave(keys, interval_seconds):
                    return
        finally:
            # A terminal that has gone needs nothing back.
            with contextlib.suppress(OSError):
                live.stop()


def _rows(ask: Callable[[int], MigrationStatus], width: int, height: int) -> list[Row]:
    from daemon.rendering_view import view
    from daemon.rendering_watch import trouble_rows, watch_rows

    now = now_us()
    try:
        status = ask(now)
    except (BackfillError, JournalError) as failure:
        return trouble_rows(failure.problem, failure.hint, width=width, height=height)
    return watch_rows(view(status, now_us=now), width=width, height=height)


def _drawn(rows: list[Row]) -> Text:
    from rich.text import Text

    from daemon.log_lines import writable
    from daemon.rendering_watch import Tone

    styles = {Tone.TITLE: "bold", Tone.WARNING: "yellow", Tone.FAINT: "dim"}
    text = Text(no_wrap=True, overflow="crop")
    for number, row in enumerate(rows):
        text.append("\n" if number else "")
        text.append(writable(row.text, sys.stdout.encoding), styles.get(row.tone, ""))
    return text


@contextmanager
def _keyboard() -> Iterator[int | None]:
    """Yield the descriptor on which keys arrive one by one, unseen; None where stdin is no terminal."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield keys
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(keys, termios.TCSADRAIN, before)


def _asked_to_leave(keys: int | None, seconds: float) -> bool:
    """Wait for `seconds` or a key; return whether it is q."""
    if keys is None:
        time.sleep(seconds)
        return False
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([keys], [], [], left)
        if not ready:
            return False
        typed = os.read(keys, KEYS_READ_MAX)
        if not typed or b"q" in typed.lower():
            return True
    return False
