"""The handler: style by where stderr goes, redaction by configuration, storms cut short."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from types import SimpleNamespace

import pytest

from daemon.log_events import LogEvent, log_event
from daemon.log_lines import Style
from daemon.logs import StderrLog, chosen_style, to_stderr
from daemon.repeats import LINES_MAX, WINDOW_SECONDS


@pytest.fixture
def handler():
    """A JSON log at a clock that stands still."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    to_stderr(Style.JSON)
    root.handlers[:] = [StderrLog(Style.JSON, monotonic=lambda: clock.now)]
    clock = root.handlers[0].clock = SimpleNamespace(now=0.0)
    yield root.handlers[0]
    root.handlers[:] = before
    root.setLevel(level)


def configured(handler, **log):
    config = SimpleNamespace(
        log=SimpleNamespace(**{"format": "json", "redact_keys": False, **log}),
        migration=SimpleNamespace(name="blobs"),
    )
    handler.configure(config, {})


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_what_the_call_tells_is_in_the_line(handler, capsys):
    configured(handler)
    log_event(LogEvent.CLOSING_WAITS, "t: closing waits: pid 7", source="t", reason="pid 7")
    (line,) = lines(capsys)
    assert line["event"] == "closing_waits"
    assert (line["migration"], line["source"], line["reason"]) == ("blobs", "t", "pid 7")


def test_a_library_is_named_and_only_its_warnings_are_shown(handler, capsys):
    logging.getLogger("trio").info("not this")
    logging.getLogger("trio").warning("this")
    (line,) = lines(capsys)
    assert (line["event"], line["logger"], line["message"]) == ("library", "trio", "this")


def test_keys_are_hashed_once_the_migration_is_known_and_hidden_before(handler, capsys):
    configured(handler, redact_keys=True)
    log_event(LogEvent.KEY_PARKED, "parked 'secret-1'", keys=["secret-1"], row_key="secret-1")
    handler.identify("id")
    log_event(LogEvent.KEY_PARKED, "parked 'secret-1'", keys=["secret-1"], row_key="secret-1")
    before, after = told = lines(capsys)
    assert before["row_key"] == "[key]"
    assert after["row_key"] == handler.redacted("secret-1")
    assert after["message"] == f"parked '{handler.redacted('secret-1')}'"
    assert "secret-1" not in str(told)


def test_keys_are_shown_unless_redaction_is_asked_for(handler, capsys):
    configured(handler)
    handler.identify("id")
    log_event(LogEvent.KEY_PARKED, "parked 'k'", keys=["k"])
    assert lines(capsys)[0]["message"] == "parked 'k'"
    assert handler.redacted("k") == "k"


def test_a_storm_is_cut_short_and_counted(handler, capsys):
    for _ in range(LINES_MAX + 812):
        log_event(LogEvent.FETCH_FAILED, "t: fetch failed", source="t")
    log_event(LogEvent.FETCH_FAILED, "u: fetch failed", source="u")
    handler.clock.now = WINDOW_SECONDS
    log_event(LogEvent.PROGRESS, "t 41.2 %")
    *failed, repeated, progress = lines(capsys)
    assert len(failed) == LINES_MAX + 1
    assert (repeated["event"], repeated["source"], repeated["number"]) == ("repeated", "t", 812)
    assert repeated["message"] == "t: … 812 more fetch_failed like these in 30 s"
    assert progress["event"] == "progress"


def test_what_a_storm_left_out_is_told_before_the_last_line(handler, capsys):
    for _ in range(LINES_MAX + 3):
        log_event(LogEvent.KEY_PARKED, "t: parked", source="t")
    log_event(LogEvent.ENDED, "done")
    assert [line["event"] for line in lines(capsys)[-2:]] == ["repeated", "ended"]


def test_progress_is_never_left_out(handler, capsys):
    for _ in range(3 * LINES_MAX):
        log_event(LogEvent.PROGRESS, "t 41.2 %", source="t")
    assert len(lines(capsys)) == 3 * LINES_MAX


def test_a_stderr_that_is_gone_ends_nothing(handler, monkeypatch):
    class Gone(io.StringIO):
        def write(self, _text):
            raise OSError

    monkeypatch.setattr(sys, "stderr", Gone())
    log_event(LogEvent.ENDED, "done")


def test_text_is_written_for_journald_where_stderr_is_its_stream(tmp_path, monkeypatch):
    with (tmp_path / "stream").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        facts = os.fstat(stream.fileno())
        env = {"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        assert chosen_style("text", env) is Style.JOURNALD
        assert chosen_style("json", env) is Style.JSON


@pytest.mark.parametrize("env", [{}, {"JOURNAL_STREAM": "8:1"}, {"JOURNAL_STREAM": ""}])
def test_text_keeps_its_time_where_stderr_was_redirected(tmp_path, monkeypatch, env):
    with (tmp_path / "stream").open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        assert chosen_style("text", env) is Style.TEXT


def test_a_stderr_without_a_descriptor_is_no_journal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert chosen_style("text", {"JOURNAL_STREAM": "8:1"}) is Style.TEXT
