from __future__ import annotations

import dataclasses

import pytest

from daemon.causes import Cause
from daemon.rendering_pace import NOTHING_COPIED, Speed, speeds
from journal.status import NoteStatus, PassStatus
from tests.rendering.courses import SECOND_US, SIZE, Course
from tests.rendering.statuses import NOW_US

PAUSE = NoteStatus(NOW_US - 3600 * SECOND_US, {"who": "alice"})


def total(found, now_us=NOW_US):
    return speeds(found, now_us=now_us)[1]


def test_a_steady_pace_is_the_rate_of_both_windows_and_gives_the_eta():
    found = Course().session().work(1200, 40).status()
    assert total(found) == Speed(40, 40 * SIZE, 40, 40 * SIZE, (100_000 - 48_000) / 40)


def test_the_short_rate_shows_a_change_long_before_the_long_one():
    found = Course().session().work(900, 40).work(60, 10).status()
    speed = total(found)
    assert speed.rows_1m == 10
    assert speed.rows_15m == pytest.approx((840 * 40 + 60 * 10) / 900)


def test_each_source_has_its_own_rate_and_the_total_sums_them():
    by_name, together = speeds(Course("a", "b", "c").session().work(300, 10).status(), now_us=NOW_US)
    assert {name: speed.rows_1m for name, speed in by_name.items()} == {"a": 10, "b": 10, "c": 10}
    assert (together.rows_1m, together.bytes_15m) == (30, 30 * SIZE)


def test_what_was_settled_since_the_last_sample_counts():
    course = Course().session().work(300, 40).pass_time(5)
    course.settled["cas"] += 5 * 400
    assert total(course.status()).rows_1m == pytest.approx((60 * 40 + 5 * 400) / 65)


def test_a_dead_hour_between_sessions_is_no_rate():
    course = Course().session().work(600, 40).pass_time(3600).session().work(30, 40)
    speed = total(course.status())
    assert (speed.rows_1m, speed.rows_15m) == (40, 40)


def test_rows_settled_after_the_last_sample_of_a_killed_session_are_no_burst_of_the_next():
    course = Course().session().work(600, 40).pass_time(14)
    course.settled["cas"] += 14 * 40
    found = course.pass_time(2).session().work(45, 40).status()
    assert total(found).rows_15m == 40


def test_a_session_that_has_just_begun_has_no_rate_from_the_one_before_it():
    found = Course().session().work(600, 40).pass_time(7200).session().pass_time(0.5).status()
    assert (total(found).rows_1m, total(found).rows_15m) == (None, None)


def test_a_session_without_any_sample_yet_has_no_rate():
    course = Course().session().work(600, 40).pass_time(3600)
    course.began_us = course.at_us - SECOND_US
    assert total(course.status()).rows_15m is None


def test_nothing_that_works_has_neither_rate_nor_eta():
    assert total(Course().session().work(600, 40).status(ended=True)) == Speed()


def test_what_is_done_has_an_eta_of_zero_also_when_nothing_works():
    course = Course(planned=24_000).session().work(600, 40)
    assert total(course.status()).eta_seconds == 0
    assert total(course.status(ended=True)).eta_seconds == 0


def test_a_stall_shows_as_a_rate_of_zero_and_no_eta_by_the_end_of_its_window():
    course = Course().session().work(1200, 40).work(1200, 0)
    assert (total(course.status()).rows_15m, total(course.status()).eta_seconds) == (0, None)


@pytest.mark.parametrize("cause", sorted(NOTHING_COPIED))
def test_time_in_which_nothing_may_begin_leaves_the_eta_where_it_was(cause):
    course = Course().session().work(600, 40)
    before = total(course.status()).eta_seconds
    course.work(300, 0, cause)
    after = total(course.status())
    assert (after.rows_1m, after.eta_seconds) == (0, before)


@pytest.mark.parametrize("cause", [Cause.RATE_LIMIT, Cause.TIMETABLE, Cause.NETWORK, Cause.S3_SLOW_DOWN])
def test_time_in_which_rows_move_slowly_counts(cause):
    course = Course().session().work(300, 40).work(300, 10, cause)
    assert total(course.status()).eta_seconds == pytest.approx((100_000 - 15_000) / 25)


def test_an_eta_outlives_a_pause_longer_than_all_samples_by_the_average_of_all_sessions():
    course = Course().session().work(600, 40).work(7200, 0, "operator")
    assert total(course.status(pause=PAUSE)).eta_seconds == pytest.approx((100_000 - 24_000) / 40)


def test_the_average_leaves_out_what_was_settled_before_any_sample():
    course = Course()
    course.settled["cas"] = 50_000
    course.session().work(600, 40).work(7200, 0, "operator")
    assert total(course.status(pause=PAUSE)).eta_seconds == pytest.approx((100_000 - 74_000) / 40)


def test_the_seconds_of_a_pause_since_the_last_sample_are_no_copying():
    found = Course().session().work(600, 40).pass_time(14).status()
    paused = dataclasses.replace(found, pause=PAUSE)
    held = dataclasses.replace(
        found, throttle=NoteStatus(NOW_US, {"cause": "replica_lag", "detail": "12 s, limit 10 s"})
    )
    assert total(paused).eta_seconds == total(held).eta_seconds == 76_000 / 40
    assert total(found).eta_seconds > 76_000 / 40


def test_no_eta_before_a_minute_of_copying_or_a_hundredth_of_the_plan():
    course = Course().session().work(30, 10)
    assert total(course.status()).eta_seconds is None
    assert total(course.work(30, 10).status()).eta_seconds == pytest.approx(99_400 / 10)
    assert total(Course(planned=10_000).session().work(15, 10).status()).eta_seconds == pytest.approx(985)


def test_no_eta_while_the_plan_grows():
    found = Course().session().work(600, 40).status()
    growing = dataclasses.replace(
        found,
        sources=tuple(
            dataclasses.replace(one, passes=(*one.passes, PassStatus(2, "snapshot", "open", 7)))
            for one in found.sources
        ),
    )
    assert (total(growing).eta_seconds, total(growing).rows_1m) == (None, 40)


def test_outcomes_taken_back_between_two_sessions_do_not_slow_down_either():
    course = Course().session().work(600, 40).pass_time(3)
    course.settled["cas"] -= 20_000
    found = course.session().work(45, 40).status()
    assert total(found).rows_15m == pytest.approx(40)
    assert total(found).eta_seconds == pytest.approx((100_000 - 5_800) / 40)


def test_a_key_that_is_planned_again_is_no_negative_speed():
    course = Course().session().work(300, 0)
    course.settled["cas"] = -5
    assert total(course.pass_time(5).status()).rows_1m == 0


def test_a_clock_that_stepped_back_costs_the_laps_around_it_only():
    course = Course().session().work(600, 40).pass_time(-1800).sample(network=15_000).work(45, 20)
    assert total(course.status()).rows_15m == 20


def test_parked_keys_wait_for_the_operator_and_not_for_time():
    found = Course(planned=48_010).session().work(1200, 40).status()
    one = found.sources[0]
    parked = dataclasses.replace(one, counts=dataclasses.replace(one.counts, parked=10))
    assert total(dataclasses.replace(found, sources=(parked,))).eta_seconds == 0
