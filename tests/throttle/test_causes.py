"""Which one cause limits a session at a moment: a decision table."""

from __future__ import annotations

import pytest

from daemon.causes import AT_WORK, HOLDS, WORDS, Cause, cause_words, change_words, limiting


@pytest.mark.parametrize(
    ("doing", "held", "paused", "cause"),
    [
        ({}, None, True, Cause.OPERATOR),
        ({Cause.NETWORK: 1}, None, True, Cause.NETWORK),
        ({}, Cause.QUERY, True, Cause.OPERATOR),
        ({Cause.NETWORK: 8}, Cause.QUERY, False, Cause.QUERY),
        ({Cause.TIMETABLE: 1, Cause.RATE_LIMIT: 3}, None, False, Cause.TIMETABLE),
        ({Cause.RATE_LIMIT: 1, Cause.NETWORK: 8}, None, False, Cause.RATE_LIMIT),
        ({Cause.S3_SLOW_DOWN: 5, Cause.NETWORK: 3}, None, False, Cause.S3_SLOW_DOWN),
        ({Cause.S3_SLOW_DOWN: 3, Cause.NETWORK: 5}, None, False, Cause.NETWORK),
        ({Cause.UNREACHABLE: 8, Cause.S3_SLOW_DOWN: 1}, None, False, Cause.UNREACHABLE),
        ({Cause.NETWORK: 8, Cause.BYTE_BUDGET: 3}, None, False, Cause.NETWORK),
        ({Cause.NETWORK: 7, Cause.BYTE_BUDGET: 3}, None, False, Cause.BYTE_BUDGET),
        ({Cause.PLANNING: 1}, None, False, Cause.PLANNING),
        ({Cause.CLOSING: 1, Cause.NETWORK: 1}, None, False, Cause.CLOSING),
        ({Cause.SOURCE: 3, Cause.NETWORK: 3}, None, False, Cause.SOURCE),
        ({Cause.SOURCE: 3, Cause.NETWORK: 4}, None, False, Cause.NETWORK),
        ({Cause.SOURCE: 0}, None, False, Cause.OTHER),
        ({}, None, False, Cause.OTHER),
    ],
)
def test_one_cause_limits_a_session_of_eight_uploads(doing, held, paused, cause):
    assert limiting(doing, concurrency=8, held=held, paused=paused) is cause


def test_every_cause_has_words_and_is_work_or_a_slow_down():
    assert set(WORDS) == set(Cause)
    assert not AT_WORK & set(HOLDS)


def test_a_change_of_uploads_at_once_is_told_by_what_caused_it():
    assert change_words("grew", 0) == "grew"
    words = cause_words(Cause.S3_SLOW_DOWN)
    assert change_words(Cause.S3_SLOW_DOWN, 1) == f"halved by {words}"
    assert change_words(Cause.S3_SLOW_DOWN, 3) == f"halved 3 times, last by {words}"


def test_a_cause_of_a_later_program_is_shown_as_it_is_stored():
    assert cause_words("full_moon") == "full_moon"
    assert cause_words(Cause.QUERY) == WORDS[Cause.QUERY]
