from __future__ import annotations

import dataclasses

import pytest

from daemon import rendering_units as units
from daemon.rendering_status import WIDTH_MIN, status_text
from journal.status import MigrationState, NoteStatus
from tests.rendering.courses import COURSES
from tests.rendering.golden_files import assert_golden
from tests.rendering.statuses import ALL, DONE_COUNTS, HOUR_US, NOW_US, closed

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


def verification(tier, hours, **data):
    return NoteStatus(NOW_US - hours * HOUR_US, {"tier": tier, "checked": 40_000, "exit_code": 0, **data})


def test_the_newest_verification_of_each_tier_is_told_and_a_sample_with_what_it_proves():
    sample = {
        "checked": 1000,
        "sample": {"keys": 1000, "of": 40_000},
        "bound": {"rate": 0.0069, "confidence": 0.999},
    }
    content = verification("content", 1, **sample)
    listing = verification("list", 2, exit_code=4, counts={"missing": 3, "row_changed": 0}, by_size=10)
    text = status_text(
        dataclasses.replace(ALL["complete"], verifications=(content, listing)), now_us=NOW_US, width=200
    )
    assert "verified by content 1h00m ago: no mismatch in 1,000 of 40,000 keys: " in text
    assert "verified by list 2h00m ago: mismatch in 40,000 keys (10 by size only); 3 missing" in text


def test_a_clean_sample_does_not_silence_the_mismatch_of_another_tier():
    content, listing = verification("content", 1), verification("list", 1, exit_code=4)
    found = dataclasses.replace(ALL["complete"], verifications=(content, listing))
    assert "verify --repair" in status_text(found, now_us=NOW_US, width=200)


def test_what_was_verified_before_it_was_completed_again_asks_for_another_verification():
    found = dataclasses.replace(ALL["complete"], verifications=(verification("list", 3, exit_code=4),))
    assert "next: `backfillctl verify` compares" in status_text(found, now_us=NOW_US, width=200)


def test_keys_taken_back_since_a_complete_session_are_told_beside_how_that_ended():
    counts = dataclasses.replace(DONE_COUNTS, stored=19_997, pending=3)
    found = dataclasses.replace(
        ALL["complete"], state=MigrationState.STOPPED, completed_us=None, sources=(closed("cas", counts),)
    )
    text = status_text(found, now_us=NOW_US, width=200)
    assert "stopped: every key is settled; now 3 keys wait to be driven again" in text
    assert "next: `backfillctl run` resumes" in text
