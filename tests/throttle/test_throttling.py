from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.causes import HOLDS, Cause
from daemon.config import ThrottleConfig
from daemon.throttling import RELEASE_READINGS, Reading, Rule, Throttle, rules_of

LAG = Rule(Cause.REPLICA_LAG, "replica lag", " s", 10, 60)
SESSIONS = Rule(Cause.ACTIVE_SESSIONS, "active sessions", "", 40)
QUERY = Rule(Cause.QUERY, "throttle.query", "", 0, 1000)
RULES = (LAG, SESSIONS, QUERY)
NOTHING_HELD = Throttle()
CALM = {Cause.REPLICA_LAG: Reading(0), Cause.ACTIVE_SESSIONS: Reading(0), Cause.QUERY: Reading(0)}
REST = 60.0


def after(throttle=NOTHING_HELD, now=0.0, **readings):
    """Judge readings given by cause, calm where not given."""
    given = {
        Cause(name): value if isinstance(value, Reading) else Reading(value)
        for name, value in readings.items()
    }
    return throttle.after(RULES, CALM | given, now=now, rest=REST)


@pytest.mark.parametrize(
    ("reading", "detail"),
    [
        ({"replica_lag": 9.9}, None),
        ({"replica_lag": 10}, None),
        ({"replica_lag": 12.34}, "replica lag 12.3 s, above 10 s"),
        ({"active_sessions": 40}, None),
        ({"active_sessions": 4100}, "active sessions 4,100, above 40"),
        ({"query": 0}, None),
        ({"query": -3.5}, None),
        ({"query": 0.5}, "throttle.query 0.5, above 0"),
        ({"query": math.inf}, "throttle.query inf, above 0"),
        ({"query": Reading(None, "it returned NULL")}, "throttle.query could not be read: it returned NULL"),
        ({"replica_lag": Reading(None, "no answer")}, "replica lag could not be read: no answer"),
    ],
)
def test_one_reading_decides_on_its_own_cause(reading, detail):
    holds = dict(after(**reading).holds)
    holds.pop(Cause.HIBERNATION, None)
    assert holds == ({} if detail is None else {Cause(next(iter(reading))): detail})


def test_several_causes_hold_at_once_each_with_its_own_line():
    assert after(replica_lag=11, active_sessions=41).holds == {
        Cause.REPLICA_LAG: "replica lag 11 s, above 10 s",
        Cause.ACTIVE_SESSIONS: "active sessions 41, above 40",
    }


def test_above_the_second_threshold_the_source_rests_and_is_judged_anew_afterwards():
    resting = after(now=100.0, replica_lag=61, query=1001)
    assert (
        resting.holds[Cause.HIBERNATION] == "replica lag 61 s, above 60 s; throttle.query 1,001, above 1,000"
    )
    assert set(resting.holds) == {Cause.HIBERNATION, Cause.REPLICA_LAG, Cause.QUERY}
    assert resting.rest_until == 160
    assert after(resting, now=159.9) == resting
    again = after(resting, now=160.0, replica_lag=61)
    assert again.rest_until == 220
    assert Cause.HIBERNATION not in after(resting, now=160.0, replica_lag=11).holds


def test_a_reading_that_fails_throttles_but_does_not_hibernate():
    assert set(after(replica_lag=Reading(None, "no answer")).holds) == {Cause.REPLICA_LAG}


def test_a_hold_ends_with_the_third_reading_in_a_row_at_or_below_the_threshold():
    held = after(replica_lag=11)
    swinging = [after(held, replica_lag=10)]
    swinging.append(after(swinging[-1], replica_lag=10))
    swinging.append(after(swinging[-1], replica_lag=10.1))
    swinging.append(after(swinging[-1], replica_lag=10))
    swinging.append(after(swinging[-1], replica_lag=10))
    assert all(Cause.REPLICA_LAG in throttle.holds for throttle in swinging)
    assert after(swinging[-1], replica_lag=10) == Throttle()


def test_rules_are_what_the_configuration_asks_for_and_no_more():
    assert rules_of(ThrottleConfig(rows_per_second=5)) == ()
    asked = ThrottleConfig(replica_lag="10s", replica_lag_hibernate="1m", query="select 1", query_threshold=3)
    assert rules_of(asked) == (
        Rule(Cause.REPLICA_LAG, "replica lag", " s", 10, 60),
        Rule(Cause.QUERY, "throttle.query", "", 3, None),
    )


readings = st.one_of(
    st.just(Reading(None, "no answer")),
    st.floats(-5, 2000).map(Reading),
    st.sampled_from([0, 10, 40, 60]).map(Reading),
)
rounds = st.lists(st.fixed_dictionaries(dict.fromkeys(CALM, readings)), min_size=1, max_size=30)


def exceeds(reading, threshold):
    return reading.value is None or reading.value > threshold


@given(rounds, st.floats(0.1, 100))
def test_a_cause_holds_exactly_while_one_of_its_last_three_readings_exceeded_its_threshold(drawn, interval):
    throttle, now, taken = Throttle(), 0.0, []
    for found in drawn:
        now = max(now + interval, throttle.rest_until)
        throttle = throttle.after(RULES, found, now=now, rest=REST)
        taken.append(found)
        assert set(throttle.holds) <= set(HOLDS)
        for rule in RULES:
            recent = [reading[rule.cause] for reading in taken[-RELEASE_READINGS:]]
            assert (rule.cause in throttle.holds) == any(exceeds(one, rule.threshold) for one in recent)


@given(rounds)
def test_a_rest_lasts_its_whole_time_whatever_is_read_meanwhile(drawn):
    throttle, now = Throttle(), 0.0
    for found in drawn:
        now += 7
        before, throttle = throttle, throttle.after(RULES, found, now=now, rest=REST)
        if now < before.rest_until:
            assert throttle == before
        else:
            alarm = any(
                rule.hibernate is not None
                and found[rule.cause].value is not None
                and found[rule.cause].value > rule.hibernate
                for rule in RULES
            )
            assert (throttle.rest_until == now + REST) == alarm == (Cause.HIBERNATION in throttle.holds)
