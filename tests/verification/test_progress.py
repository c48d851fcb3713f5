"""What a verification shows of itself while it runs."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace

import pytest

from daemon.comparing import TierName
from daemon.log_events import Told
from daemon.verify_progress import shown_on


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


class Gone(Terminal):
    def write(self, text):
        raise OSError("gone")


class Run:
    """A verification that does 100 keys a second, of 1000, by a clock of its own."""

    def __init__(self, tier=TierName.CONTENT):
        self.verification = SimpleNamespace(tier=SimpleNamespace(name=tier), done=0, of=1000)
        self.now = 0.0

    def go(self, told, seconds):
        for _ in range(seconds):
            told(self.verification)
            self.now += 1
            self.verification.done += 100
        told(self.verification)

    def clock(self):
        return self.now


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


def logged(caplog):
    return [record.getMessage() for record in caplog.records]


def test_off_a_terminal_a_line_appears_every_interval_with_rate_and_time_left(caplog):
    caplog.set_level(logging.INFO)
    run = Run()
    with shown_on(io.StringIO(), interval_seconds=2, monotonic=run.clock) as told:
        run.go(told, 5)
    assert logged(caplog) == [
        "content: 200 of 1,000 keys (20.0 %), 100 keys/s, 8s left",
        "content: 400 of 1,000 keys (40.0 %), 100 keys/s, 6s left",
    ]


def test_programs_get_the_numbers(caplog):
    caplog.set_level(logging.INFO)
    run = Run()
    with shown_on(io.StringIO(), interval_seconds=2, monotonic=run.clock) as told:
        run.go(told, 2)
    [record] = caplog.records
    told_of = next(value for value in vars(record).values() if isinstance(value, Told))
    assert told_of.fields == {"tier": "content", "checked": 200, "of": 1000}


def test_each_run_is_measured_from_its_own_beginning(caplog):
    caplog.set_level(logging.INFO)
    sampled, whole = Run(), Run()
    with shown_on(io.StringIO(), interval_seconds=3, monotonic=lambda: sampled.now + whole.now) as told:
        sampled.go(told, 2)
        whole.go(told, 4)
    assert logged(caplog)[-1] == "content: 400 of 1,000 keys (40.0 %), 100 keys/s, 6s left"


def test_on_a_terminal_a_bar_is_drawn_in_place_and_wiped_out_at_the_end(caplog):
    terminal, run = Terminal(), Run()
    with shown_on(terminal, interval_seconds=30, monotonic=run.clock) as told:
        run.go(told, 5)
    drawn = terminal.getvalue()
    assert "━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌  content: 500 of 1,000 keys" in drawn
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h") == 1
    assert drawn.endswith("\x1b[2K")
    assert not logged(caplog)


def test_a_terminal_without_these_letters_gets_others():
    terminal, run = Terminal(), Run()
    terminal.encoding = "ascii"
    with shown_on(terminal, interval_seconds=30, monotonic=run.clock) as told:
        run.go(told, 5)
    assert "##########----------  content" in terminal.getvalue()


@pytest.mark.parametrize(("bars", "term"), [(False, "xterm"), (True, "dumb")])
def test_a_terminal_that_shows_no_bars_gets_lines(caplog, monkeypatch, bars, term):
    monkeypatch.setenv("TERM", term)
    caplog.set_level(logging.INFO)
    terminal, run = Terminal(), Run()
    with shown_on(terminal, interval_seconds=2, bars=bars, monotonic=run.clock) as told:
        run.go(told, 4)
    assert terminal.getvalue() == ""
    assert len(logged(caplog)) == 2


def test_a_terminal_that_has_gone_does_not_end_the_verification():
    run = Run()
    with shown_on(Gone(), interval_seconds=30, monotonic=run.clock) as told:
        run.go(told, 5)
    assert run.verification.done == 500
