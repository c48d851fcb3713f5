"""Golden lines: what one record looks like in each style."""

from __future__ import annotations

import json
import logging

import pytest

from daemon.log_events import LogEvent, Told
from daemon.log_lines import Style, log_line, writable
from daemon.redacting import Redactor

NOW_US = 1_768_404_645_123_456
PARKED = Told(
    LogEvent.KEY_PARKED,
    "cas",
    ("k 1", "cas/k 1"),
    {"row_key": "k 1", "object_key": "cas/k 1", "failure": "rejected", "attempts": 8},
)
TEXT = "cas: parked 'k 1': rejected: PUT s3://blobs/cas/k 1: expected success, found 400"
FAILED = Told(LogEvent.FAILED, fields={"hint": "correct it", "exit_code": 2})


def line(
    style: Style, told: Told = PARKED, text: str = TEXT, level: int = logging.WARNING, redactor=None
) -> str:
    return log_line(style, told, text, level=level, now_us=NOW_US, migration="blobs", redactor=redactor)


def test_text_has_time_level_and_message():
    assert line(Style.TEXT) == f"2026-01-14T15:30:45.123Z WARNING {TEXT}"


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_text_for_journald_has_a_priority_and_no_time(level, priority):
    assert line(Style.JOURNALD, level=level) == f"<{priority}>{logging.getLevelName(level)} {TEXT}"


def test_json_has_the_same_fields_in_every_line_and_then_its_own():
    assert line(Style.JSON) == (
        '{"ts": "2026-01-14T15:30:45.123Z", "level": "warning", "event": "key_parked", "migration": "blobs",'
        ' "source": "cas", "message": "cas: parked \'k 1\': rejected: PUT s3://blobs/cas/k 1: expected success,'
        ' found 400", "row_key": "k 1", "object_key": "cas/k 1", "failure": "rejected", "attempts": 8}'
    )


def test_an_error_in_text_reads_as_every_command_prints_it():
    assert line(Style.TEXT, FAILED, "two problems:\n  one\n  two") == (
        "error: two problems:\n  one\n  two\nhint: correct it"
    )


def test_an_error_for_journald_has_its_priority_on_every_line():
    assert line(Style.JOURNALD, FAILED, "two problems:\n  one", logging.ERROR) == (
        "<3>error: two problems:\n<3>  one\n<3>hint: correct it"
    )


def test_an_error_in_json_is_one_line_with_its_hint_as_a_field():
    told = line(Style.JSON, FAILED, "two problems:\n  one", logging.ERROR)
    assert "\n" not in told
    assert json.loads(told)["message"] == "two problems:\n  one"
    assert json.loads(told)["hint"] == "correct it"


@pytest.mark.parametrize("style", list(Style))
def test_a_line_stays_one_line_and_cannot_drive_the_terminal(style):
    told = line(style, Told(LogEvent.LIBRARY), "two\nlines \x1b[2J \\ kept \u202e")
    assert "\n" not in told
    assert "\x1b" not in told
    assert "\u202e" not in told


@pytest.mark.parametrize("style", list(Style))
def test_a_redacted_line_has_hashes_in_text_and_fields_and_the_key_nowhere(style):
    redactor = Redactor("id")
    told = line(style, redactor=redactor)
    assert "k 1" not in told
    assert redactor.hashed("k 1") in told
    assert f"s3://blobs/{redactor.hashed('cas/k 1')}: expected" in told


def test_a_stream_that_takes_only_ascii_still_gets_every_number():
    assert writable("żółć 41.2 % · ETA -", "ascii") == "\\u017c\\xf3\\u0142\\u0107 41.2 % | ETA -"
