from __future__ import annotations

import dataclasses

import pytest

from daemon import rendering_units as units
from daemon.rendering_status import WIDTH_MIN, status_text
from tests.rendering.courses import COURSES
from tests.rendering.golden_files import assert_golden
from tests.rendering.statuses import ALL, NOW_US

EVERY = {**ALL, **COURSES}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", EVERY)
def test_status_reads_as_it_did_when_somebody_last_read_it(name, width):
    assert_golden(f"status_{name}_{width}.txt", status_text(EVERY[name], now_us=NOW_US, width=width))


@pytest.mark.parametrize("width", [*range(WIDTH_MIN, 140, 7), 300])
@pytest.mark.parametrize("name", EVERY)
def test_no_line_is_wider_than_the_terminal_and_none_can_drive_it(name, width):
    for line in status_text(EVERY[name], now_us=NOW_US, width=width).splitlines():
        assert units.cells(line) <= width
        assert line.isprintable()


@pytest.mark.parametrize("width", range(20, 140, 10))
def test_a_checkpoint_can_be_pasted_at_any_width(width):
    lines = status_text(ALL["running"], now_us=NOW_US, width=width).splitlines()
    assert any("--cutoff-timestamp 2026-01-14T15:30:45.123456Z" in line for line in lines)


def test_an_earlier_moment_says_where_it_ends_and_gives_no_advice():
    text = status_text(COURSES["paused"], now_us=NOW_US, width=200, past=True)
    assert text.startswith(
        "as of 2026-01-15T04:06:40.000Z, up to event 123,456 of 2026-01-15T04:06:37.000Z\n\nlayer-cache: paused"
    )
    assert "next:" not in text


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        ({"last_outcome_us": NOW_US - 899_000_000}, "layer-cache: running\n"),
        ({"last_outcome_us": NOW_US - 900_000_000}, "layer-cache: running: no key was settled for 15m00s;"),
    ],
)
def test_a_session_that_lives_but_settles_nothing_is_told_to_be_stalled(silent, words):
    found = COURSES["single"]
    quiet = dataclasses.replace(found, sources=(dataclasses.replace(found.sources[0], **silent),))
    assert status_text(quiet, now_us=NOW_US, width=200).startswith(words)
