from __future__ import annotations

import dataclasses

import pytest

from daemon.causes import cause_words
from daemon.rendering_pace import Speed
from daemon.rendering_units import moment
from daemon.rendering_view import PARK, view
from journal.control_status import SlowDown
from journal.entries import SourceCounts
from journal.status import MigrationState, NoteStatus
from tests.rendering.courses import SECOND_US, Course
from tests.rendering.statuses import ALL, NOW_US, running

LAG = NoteStatus(NOW_US - 90 * SECOND_US, {"cause": "replica_lag", "detail": "12.4 s, limit 10 s"})
PAUSE = NoteStatus(NOW_US - 3600 * SECOND_US, {"who": "alice (uid 1000)"})


def seen(found):
    return view(found, now_us=NOW_US)


def test_every_source_has_a_line_and_the_total_sums_them():
    found = seen(Course("a", "b").session().work(300, 10).status())
    assert [line.name for line in found.sources] == ["a", "b"]
    assert found.total.counts == SourceCounts(
        planned_rows=200_000,
        planned_bytes=200_000_000,
        stored=6_000,
        stored_bytes=6_000_000,
        settled_bytes=6_000_000,
        in_flight=128,
    )
    assert (found.total.permille, found.total.finished, found.total.planned) == (30, False, True)


def test_a_migration_without_sources_has_an_empty_total():
    found = seen(ALL["fresh"])
    assert (found.sources, found.total.permille, found.total.finished) == ((), 0, False)
    assert found.total.speed == Speed()


def test_a_share_is_rounded_down_so_that_all_means_all():
    course = Course(planned=10_000).session()
    course.settled["cas"] = 9_999
    assert seen(course.status()).total.permille == 999
    assert not seen(course.status()).total.finished
    course.settled["cas"] = 10_000
    assert seen(course.status()).total.permille == 1000
    assert seen(course.status()).total.finished


def test_the_time_is_split_by_cause_and_slow_downs_have_their_number_and_newest_detail():
    course = Course().session().work(600, 40).work(300, 0, "replica_lag").work(150, 0, "operator")
    lag = SlowDown("replica_lag", 12, 299_000, NOW_US - SECOND_US, "12 s, limit 10 s")
    found = seen(course.status(slow_downs=(lag,)))
    assert [(one.words, one.seconds, one.episodes, one.last_detail) for one in found.spent] == [
        ("network and S3", 600, 0, ""),
        ("replica lag", 300, 12, "12 s, limit 10 s"),
        ("operator", 150, 0, ""),
    ]
    assert found.spent_seconds == 1050


def test_a_cause_of_a_later_program_is_shown_as_it_is_stored():
    assert cause_words("moon_phase") == "moon_phase"
    assert cause_words("replica_lag") == "replica lag"


def test_the_throttle_and_the_pause_in_force_are_told_and_the_pause_wins():
    base = Course().session().work(300, 10).status()
    held = seen(dataclasses.replace(base, throttle=LAG))
    assert held.throttle is not None
    assert (held.throttle.words, held.throttle.detail, held.standing) == (
        "replica lag",
        "12.4 s, limit 10 s",
        "held by replica lag",
    )
    paused = seen(dataclasses.replace(base, state=MigrationState.PAUSED, throttle=LAG, pause=PAUSE))
    assert paused.pause is not None
    assert (paused.pause.who, paused.standing) == ("alice (uid 1000)", "paused")
    slower = dataclasses.replace(LAG, data={"cause": "rate_limit", "detail": ""})
    assert seen(dataclasses.replace(base, throttle=slower)).standing == ""


def test_tunables_are_told_as_one_would_type_them_and_only_where_some_are_set():
    data = {
        "who": "bob",
        "changes": {},
        "overrides": {"concurrency": 16, "rows_per_second": None, "bytes_per_second": 20 * 1024**2},
    }
    base = Course().session().status()
    found = seen(dataclasses.replace(base, tunables=NoteStatus(NOW_US, data)))
    assert found.tunables is not None
    assert found.tunables.words == ("concurrency=16", "rows-per-second=off", "bytes-per-second=20MiB")
    none = NoteStatus(NOW_US, {**data, "overrides": {}})
    assert seen(dataclasses.replace(base, tunables=none)).tunables is None


def test_parked_keys_come_before_failed_attempts_and_the_most_frequent_first():
    found = seen(running()).faults
    assert [(fault.operation, fault.count) for fault in found] == [(PARK, 2), (PARK, 1), ("PUT", 1204)]
    assert found[0].last_us is None
    assert found[2].last_us is not None


def test_an_operators_pause_is_told_once_and_not_as_a_throttle_too():
    base = dataclasses.replace(Course().session().status(), state=MigrationState.PAUSED, pause=PAUSE)
    operator = NoteStatus(NOW_US, {"cause": "operator", "detail": ""})
    assert seen(dataclasses.replace(base, throttle=operator)).throttle is None


def due(seconds, base=None):
    """A migration that goes on for 1900 s more, with a deadline in so many seconds."""
    settings = NoteStatus(NOW_US, {"deadline": moment(NOW_US + seconds * SECOND_US)})
    return seen(dataclasses.replace(base or Course().session().work(600, 40).status(), settings=settings))


def test_a_deadline_is_missed_or_met_by_the_eta():
    assert due(3600).deadline_us == NOW_US + 3600 * SECOND_US
    assert due(3600).late_seconds == -1700
    assert due(1000).late_seconds == 900


def test_without_an_eta_only_a_deadline_that_has_passed_is_told_to_be_missed():
    stopped = Course().session().work(600, 40).status(ended=True)
    assert due(3600, stopped).late_seconds is None
    assert due(-60, stopped).late_seconds == 60


def test_what_is_done_misses_no_deadline():
    assert due(-60, ALL["complete"]).late_seconds is None


@pytest.mark.parametrize("data", [{}, {"deadline": None}, {"deadline": "tomorrow"}])
def test_no_deadline_is_no_lateness(data):
    base = Course().session().work(600, 40).status()
    found = seen(dataclasses.replace(base, settings=NoteStatus(NOW_US, data)))
    assert (found.deadline_us, found.late_seconds) == (None, None)
