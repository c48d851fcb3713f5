from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from daemon.demo.redriven import Redriven, redriven
from daemon.demo.stopping import Stopped, Stops
from daemon.demo.telling import COLUMNS, Telling
from journal.checkpoint import Order
from journal.entries import AttemptFailed, PlannedRow, Settled
from journal.lifecycle import Outcome
from journal.log import Journal


def test_output_is_ascii_of_80_columns_and_loses_nothing(capsys: pytest.CaptureFixture[str]):
    telling = Telling()
    telling.output("schlüssel · " + "word " * 40 + "\n\n    indented")
    told = capsys.readouterr().out
    assert told.isascii()
    assert all(len(line) <= COLUMNS for line in told.splitlines())
    assert told.count("word") == 40
    assert "schl\\xfcssel | word" in told
    assert told.endswith("  |\n  |     indented\n")


def test_a_signal_is_raised_once_and_never_in_a_block_that_holds_it_back():
    stops = Stops()
    before = signal.getsignal(signal.SIGTERM)
    finished = []

    def hold_back() -> None:
        with stops.held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            finished.append(True)

    with stops.installed():
        with pytest.raises(Stopped):
            hold_back()
        os.kill(os.getpid(), signal.SIGINT)
    assert finished
    assert stops.received is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_after_it_holds_back_for_good_signals_are_only_noted():
    stops = Stops()
    with stops.installed():
        stops.hold_back_for_good()
        os.kill(os.getpid(), signal.SIGINT)
    assert stops.received is signal.SIGINT


def test_signals_that_the_caller_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stops().installed():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_only_recovered_keys_count_as_driven_again(tmp_path: Path):
    path = tmp_path / "journal.db"
    with Journal.create(path, name="demo", cutoff_us=None, order=Order.OLDEST_FIRST, now_us=1) as journal:
        journal.start_session(now_us=1, facts={})
        source = journal.add_source("rows", {}, now_us=1)
        journal.begin_pass(source, kind="snapshot", now_us=1)
        journal.seal_chunk(source, [PlannedRow(str(n), None, 1) for n in range(5)], now_us=1)
        journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=1)
        claim = journal.claim(source, limit=5, window=5, now_us=1)
        assert claim is not None
        first, *rest = [key.ordinal for key in claim.keys]
        journal.record(
            [
                AttemptFailed(first, "PUT", "server_error", "busy"),
                Settled(first, Outcome.RECOVERED, 1, "0" * 32),
            ],
            now_us=1,
        )
    with Journal.open(path, now_us=2) as journal:
        journal.start_session(now_us=2, facts={})
        journal.recover(now_us=2)
        journal.claim(source, limit=5, window=5, now_us=2)
        outcomes = [Outcome.STORED, Outcome.STORED, Outcome.RECOVERED, Outcome.PRESENT]
        journal.record(
            [Settled(one, outcome, 1, "0" * 32) for one, outcome in zip(rest, outcomes, strict=True)],
            now_us=2,
        )
    assert redriven(path) == Redriven(recovered=4, sent_twice=1, stored=2, otherwise=1, failed_attempts=1)
