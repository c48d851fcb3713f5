from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import pty
import sys
import termios

import pytest
import trio
import trio.testing

from daemon.log_lines import Style
from daemon.logs import StderrLog
from daemon.progress import BAR_SECONDS, report
from daemon.rendering_progress import Progress
from tests.rendering.test_progress_lines import source

NOW_US = 1_768_404_645_123_456


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Gone(Terminal):
    def write(self, text):
        raise OSError(errno.EIO, "terminal closed")


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")


def growing(per_second=100):
    async def snapshot():
        return Progress("running", (source(settled=int(trio.current_time() * per_second), in_flight=64),))

    return snapshot


@pytest.fixture
def log(monkeypatch):
    """What the log on stderr says, at the virtual time."""
    stream = io.StringIO()
    handler = StderrLog(Style.TEXT)

    def emit(record):
        record.created = NOW_US / 1e6 + trio.current_time()
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", stream)
            handler.emit(record)

    listener = logging.Handler()
    listener.emit = emit
    logger = logging.getLogger("daemon")
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    yield stream
    logger.removeHandler(listener)
    logger.setLevel(logging.NOTSET)


async def run_for(seconds, stream, *, interval=30.0, snapshot=None, **options):
    with trio.move_on_after(seconds) as scope:
        await report(snapshot or growing(), interval_seconds=interval, stream=stream, **options)
    return scope.cancelled_caught


async def test_off_a_terminal_one_line_appears_every_interval(autojump_clock, log):
    assert await run_for(95.0, io.StringIO())
    safe = " · parked 0 · in flight 64 · checkpoint 2026-01-14T15:30:45.123456Z"
    assert log.getvalue().splitlines() == [
        "2026-01-14T15:30:45.123Z INFO cas 0.0 % · - obj/s · - B/s · ETA -" + safe,
        "2026-01-14T15:31:15.123Z INFO cas 30.0 % · 100 obj/s · 100 MiB/s · ETA 1m10s" + safe,
        "2026-01-14T15:31:45.123Z INFO cas 60.0 % · 100 obj/s · 100 MiB/s · ETA 40s" + safe,
        "2026-01-14T15:32:15.123Z INFO cas 90.0 % · 100 obj/s · 100 MiB/s · ETA 10s" + safe,
    ]


async def test_on_a_terminal_the_bar_is_drawn_in_place_and_the_cursor_comes_back(autojump_clock):
    terminal = Terminal()
    assert await run_for(10 * BAR_SECONDS + 0.1, terminal)
    drawn = terminal.getvalue()
    assert drawn.count("obj/s") == 12  # ten and the first, and once more when it ends
    assert drawn.count("\x1b[?25l") == 1
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("obj/s")
    assert "\x1b[?1049" not in drawn


async def test_a_dumb_terminal_gets_lines(autojump_clock, monkeypatch, log):
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    await run_for(45.0, terminal)
    assert terminal.getvalue() == ""
    assert len(log.getvalue().splitlines()) == 2


async def test_a_terminal_that_is_to_show_no_bars_gets_lines(autojump_clock, log):
    terminal = Terminal()
    await run_for(45.0, terminal, bars=False)
    assert terminal.getvalue() == ""
    assert len(log.getvalue().splitlines()) == 2


async def test_a_closed_terminal_ends_the_report_and_not_the_session(autojump_clock):
    assert not await run_for(100.0, Gone())


async def test_what_the_snapshot_raises_is_not_taken_for_a_closed_terminal(autojump_clock):
    async def broken():
        raise OSError(errno.EIO, "journal disk")

    with pytest.raises(OSError, match="journal disk"):
        await run_for(100.0, io.StringIO(), snapshot=broken)


def everything_drawn(controller):
    """Yield what a terminal was sent until its last writer closed it, which Linux tells as EIO."""
    with contextlib.suppress(OSError):
        while piece := os.read(controller, 100_000):
            yield piece


async def test_a_real_terminal_is_left_as_it_was_when_the_report_fails(autojump_clock):
    controller, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)

    async def interrupted():
        if trio.current_time() > 2:
            raise KeyboardInterrupt
        return Progress("running", (source(settled=5),))

    with os.fdopen(os.dup(terminal), "w", encoding="utf-8") as stream, pytest.raises(KeyboardInterrupt):
        await report(interrupted, interval_seconds=30, stream=stream)
    assert termios.tcgetattr(terminal) == before
    os.close(terminal)
    drawn = b"".join(everything_drawn(controller)).decode()
    os.close(controller)
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1
