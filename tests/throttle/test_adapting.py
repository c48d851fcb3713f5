"""The limit on uploads at once, as a rule of arithmetic: nothing runs here but the numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.adapting import (
    PLATEAU_ROUNDS,
    PLATEAU_SECONDS,
    PLATEAU_SECONDS_MAX,
    RECORD_SECONDS,
    START,
    Adaptation,
    trouble,
)
from daemon.causes import Cause
from daemon.retrying import FailureClass
from journal.entries import AttemptFailed

BUSY = Cause.S3_SLOW_DOWN
SILENT = Cause.UNREACHABLE


def at(now: float) -> Callable[[], float]:
    """A clock that stands still."""
    return lambda: now


def serve(adaptation: Adaptation, uploads: int, *, now: float = 0.0) -> None:
    """So many uploads are served while the limit is what holds others back."""
    for _ in range(uploads):
        adaptation.served(under_way=adaptation.limit, full=True, clock=at(now))


def grown_to(limit: int, ceiling: int = 1024) -> Adaptation:
    """In slow start."""
    adaptation = Adaptation(ceiling)
    serve(adaptation, limit - adaptation.limit)
    assert adaptation.limit == limit
    return adaptation


def cut(adaptation: Adaptation, kind: Cause = BUSY, *, now: float = 0.0) -> int:
    adaptation.failed(kind, began=now, now=now)
    return adaptation.limit


def test_it_starts_low_and_never_above_the_ceiling():
    assert (Adaptation(64).limit, Adaptation(3).limit) == (START, 3)


def test_slow_start_doubles_in_each_round_up_to_the_ceiling():
    adaptation, limits = Adaptation(50), []
    for _ in range(4):
        serve(adaptation, adaptation.limit)
        limits.append(adaptation.limit)
    assert limits == [16, 32, 50, 50]


def test_nothing_grows_while_the_limit_holds_nobody_back():
    adaptation = Adaptation(64)
    for _ in range(10_000):
        assert not adaptation.served(under_way=3, full=False, clock=at(0.0))
    assert adaptation.limit == START


@pytest.mark.parametrize("kind", [BUSY, SILENT])
def test_trouble_halves_once_however_many_attempts_of_one_episode_meet_it(kind):
    adaptation = grown_to(64)
    assert adaptation.failed(kind, began=9.0, now=10.0)
    assert adaptation.limit == 32
    for _ in range(63):
        assert not adaptation.failed(kind, began=9.0, now=10.0)
    # A retry begins after the cut, but while what was under way at the cut still is.
    assert not adaptation.failed(kind, began=10.2, now=10.3)
    adaptation.served(under_way=33, full=True, clock=at(10.5))
    assert not adaptation.failed(kind, began=10.5, now=10.6)
    adaptation.served(under_way=32, full=False, clock=at(11.0))
    assert not adaptation.failed(kind, began=10.9, now=11.2)
    assert adaptation.failed(kind, began=11.1, now=11.3)
    assert adaptation.limit == 16


def test_the_other_kind_of_trouble_has_episodes_of_its_own():
    adaptation = grown_to(64)
    assert (cut(adaptation, BUSY), cut(adaptation, SILENT)) == (32, 16)
    assert (cut(adaptation, BUSY), cut(adaptation, SILENT)) == (16, 16)


def test_after_a_cut_it_recovers_to_just_below_within_six_rounds_and_rests_there():
    adaptation = grown_to(41)
    assert cut(adaptation) == 20
    rounds = 0
    while adaptation.limit < 39:
        serve(adaptation, adaptation.limit)
        rounds += 1
    assert rounds <= 6
    serve(adaptation, 100 * 39)
    assert adaptation.limit == 39


def test_a_plateau_ends_after_seconds_and_rounds_and_probing_then_gathers_speed():
    adaptation = grown_to(41)
    cut(adaptation)
    serve(adaptation, 2 * PLATEAU_ROUNDS * 41)
    assert adaptation.limit == 39
    costs = {}
    while adaptation.limit < 54:
        before, uploads = adaptation.limit, 0
        while adaptation.limit == before:
            serve(adaptation, 1, now=PLATEAU_SECONDS + 1)
            uploads += 1
        costs[adaptation.limit] = uploads
    # The first step also ends the plateau's last round.
    assert costs[40] <= 2 * 39
    assert [costs[limit] for limit in (41, 43, 47)] == [20, 10, 5]


def test_rounds_of_minutes_are_probed_after_rounds_not_seconds():
    adaptation = grown_to(16)
    cut(adaptation)
    now = 0.0
    rounds = 0
    while adaptation.limit <= 15:
        now += 600
        serve(adaptation, adaptation.limit, now=now)
        rounds += 1
    assert rounds >= PLATEAU_ROUNDS


def plateau_seconds(adaptation: Adaptation, now: float) -> tuple[float, float]:
    """For how long it rests, with rounds of 10 ms, and when probing is refused then."""
    level = adaptation.limit
    cut(adaptation, now=now)
    reached = None
    while adaptation.limit < level:
        now += 0.01
        serve(adaptation, adaptation.limit, now=now)
        if reached is None and adaptation.limit == level - 1:
            reached = now
    assert reached is not None
    return now - reached, now + 1


def test_a_level_found_again_and_again_is_probed_less_often():
    adaptation, now, rests = grown_to(10), 0.0, []
    for _ in range(8):
        rest, now = plateau_seconds(adaptation, now)
        rests.append(round(rest))
    assert rests == [1, 2, 4, 8, 16, 32, PLATEAU_SECONDS_MAX, PLATEAU_SECONDS_MAX]


def test_a_lower_ceiling_applies_at_once_and_a_higher_one_is_grown_to():
    adaptation = grown_to(32, ceiling=32)
    cut(adaptation)
    adaptation.set_ceiling(5)
    assert adaptation.limit == 5
    adaptation.set_ceiling(64)
    assert adaptation.limit == 5
    serve(adaptation, 5)
    assert 5 < adaptation.limit < 64


def test_a_ceiling_raised_before_any_trouble_lets_it_start_as_if_it_had_always_been_that_high():
    adaptation = Adaptation(1)
    adaptation.set_ceiling(64)
    assert adaptation.limit == START


@pytest.mark.parametrize(
    ("operation", "failure", "kind"),
    [
        ("PUT", FailureClass.THROTTLED, BUSY),
        ("HEAD", FailureClass.TIMEOUT, SILENT),
        ("GET", FailureClass.CONNECTION, SILENT),
        ("PUT", FailureClass.SERVER, None),
        ("PUT", FailureClass.FORBIDDEN, None),
        ("FETCH", FailureClass.CONNECTION, None),
        ("FETCH", FailureClass.TIMEOUT, None),
    ],
)
def test_only_what_fewer_uploads_would_have_helped_is_trouble(operation, failure, kind):
    assert trouble(AttemptFailed(1, operation, failure, "")) is kind


steps = st.lists(
    st.one_of(
        st.tuples(st.just("served"), st.integers(0, 1500), st.booleans(), st.integers(1, 100)),
        st.tuples(st.just("failed"), st.sampled_from([BUSY, SILENT]), st.floats(0, 100)),
        st.tuples(st.just("ceiling"), st.integers(1, 1024)),
        st.tuples(st.just("wait"), st.floats(0, 1000)),
    ),
    max_size=60,
)


@given(ceiling=st.integers(1, 1024), steps=steps)
def test_whatever_happens_the_limit_keeps_its_bounds_and_its_reasons(ceiling, steps):
    adaptation = Adaptation(ceiling)
    now = 0.0
    under_cut: set[Cause] = set()
    ended: dict[Cause, float] = {}
    for step, *facts in steps:
        before = adaptation.limit
        match step, facts:
            case "served", [under_way, full, times]:
                for _ in range(times):
                    before = adaptation.limit
                    grown = adaptation.served(under_way=under_way, full=full, clock=at(now))
                    if under_way <= before:
                        ended |= dict.fromkeys(under_cut, now)
                        under_cut.clear()
                    assert adaptation.limit == before + grown
                    assert not grown or (full and under_way <= before)
            case "failed", [kind, age]:
                began = now - age
                same_episode = kind in under_cut or began < ended.get(kind, -math.inf)
                adaptation.failed(kind, began=began, now=now)
                assert adaptation.limit == (before if same_episode else max(1, before // 2))
                if not same_episode:
                    under_cut.add(kind)
            case "ceiling", [wanted]:
                adaptation.set_ceiling(wanted)
                assert adaptation.limit in {min(before, wanted), min(START, wanted)}
            case "wait", [seconds]:
                now += seconds
        assert 1 <= adaptation.limit <= adaptation.ceiling


def test_slow_start_is_on_record_by_its_doublings():
    adaptation, recorded = Adaptation(64), []
    assert adaptation.take_change(0.0) is None
    for _ in range(200):
        serve(adaptation, 1)
        change = adaptation.take_change(0.1)
        if change is not None:
            recorded.append((change.before, change.after, change.cause, change.cuts))
    assert recorded == [(8, 16, "grew", 0), (16, 32, "grew", 0), (32, 64, "grew", 0)]


def test_a_cut_is_on_record_at_once_with_its_cause_and_the_recovery_later():
    adaptation = grown_to(40)
    adaptation.take_change(0.0, last=True)
    adaptation.failed(BUSY, began=0.5, now=1.0, ordinal=7)
    change = adaptation.take_change(1.0)
    assert change is not None
    assert (change.before, change.after, change.cause) == (40, 20, "s3_slow_down")
    assert (change.ceiling, change.cuts, change.ordinal) == (1024, 1, 7)
    serve(adaptation, 1000, now=2.0)
    assert adaptation.take_change(2.0) is None
    recovered = adaptation.take_change(1.0 + RECORD_SECONDS)
    assert recovered is not None
    assert (recovered.before, recovered.after, recovered.cause, recovered.ordinal) == (
        20,
        38,
        "recovered",
        None,
    )


def test_cuts_too_close_to_be_told_one_by_one_are_counted():
    adaptation = grown_to(64)
    adaptation.take_change(0.0, last=True)
    cut(adaptation, SILENT, now=1.0)
    assert adaptation.take_change(1.0) is not None
    for moment in (2.0, 3.0):
        adaptation.served(under_way=1, full=False, clock=at(moment))
        cut(adaptation, BUSY, now=moment)
        assert adaptation.take_change(moment) is None
    change = adaptation.take_change(1.0 + RECORD_SECONDS)
    assert change is not None
    assert (change.before, change.after, change.cause, change.cuts) == (32, 8, "s3_slow_down", 2)


@given(st.lists(st.tuples(st.sampled_from([0.01, 0.1, 1.0]), st.booleans()), max_size=300))
def test_no_endpoint_makes_it_record_more_than_two_changes_in_ten_seconds_after_slow_start(course):
    adaptation, moments, now = Adaptation(256), [], 0.0
    for seconds, well in course:
        now += seconds
        if well:
            serve(adaptation, 8, now=now)
        else:
            adaptation.failed(BUSY, began=now, now=now)
        if (change := adaptation.take_change(now)) is not None and (change.cuts or change.cause != "grew"):
            moments.append(now)
    assert all(later - moment >= RECORD_SECONDS for moment, later in zip(moments, moments[2:], strict=False))


def test_an_hour_at_a_steady_endpoint_makes_less_than_a_hundred_events_and_refusals():
    """Rounds of 0.1 s; the endpoint takes 24 at once."""
    adaptation, hour = Adaptation(128), 3600
    events = refusals = 0
    for tenth in range(10 * hour):
        now = tenth / 10
        if adaptation.limit > 24:
            refusals += 1
            adaptation.failed(BUSY, began=now, now=now)
            adaptation.served(under_way=1, full=False, clock=at(now))
        for _ in range(adaptation.limit):
            if adaptation.limit <= 24:
                serve(adaptation, 1, now=now)
        if tenth % 10 == 0 and adaptation.take_change(now) is not None:
            events += 1
    assert events < 100
    assert refusals < 100
