"""Where a session's time went, and which slow-downs that makes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.causes import AT_WORK, HOLDS, Cause
from daemon.ledger import BEGIN_SECONDS, END_SECONDS, Began, Ended, Ledger

WORK = Cause.NETWORK


def told(looks):
    """What a ledger says of looks (seconds, cause, detail), and at its close."""
    ledger = Ledger(0.0)
    events = [event for at, cause, detail in looks for event in ledger.look(at, cause, detail)]
    return [*events, *ledger.close()]


def each_second(*causes: Cause):
    return [(float(second), cause, "") for second, cause in enumerate(causes, start=1)]


@pytest.mark.parametrize("cause", [*HOLDS, Cause.OPERATOR])
def test_a_deliberate_hold_is_a_slow_down_at_once(cause):
    assert told([(1, WORK, ""), (2, cause, "12 s")]) == [Began(cause, "12 s"), Ended(cause, "12 s", 1000)]


def test_what_passes_within_two_seconds_is_none():
    assert told(each_second(Cause.BYTE_BUDGET, WORK, Cause.BYTE_BUDGET, WORK)) == []


def test_what_lasts_two_seconds_is_one_counted_from_its_beginning():
    events = told(each_second(WORK, Cause.BYTE_BUDGET, Cause.BYTE_BUDGET, Cause.BYTE_BUDGET))
    assert events == [Began(Cause.BYTE_BUDGET, ""), Ended(Cause.BYTE_BUDGET, "", 3000)]


def test_a_cause_that_comes_and_goes_is_one_slow_down_of_the_time_that_it_took():
    events = told(each_second(*[Cause.RATE_LIMIT] * 3, *[WORK] * 2, *[Cause.RATE_LIMIT] * 2, *[WORK] * 9))
    assert events == [Began(Cause.RATE_LIMIT, ""), Ended(Cause.RATE_LIMIT, "", 5000)]


def test_a_slow_down_ends_once_its_cause_is_gone_for_long_enough():
    ledger = Ledger(0.0)
    ledger.look(3, Cause.RATE_LIMIT)
    assert ledger.look(3 + END_SECONDS - 0.1, WORK) == []
    assert ledger.look(3 + END_SECONDS, WORK) == [Ended(Cause.RATE_LIMIT, "", 3000)]


def test_a_deliberate_hold_ends_as_soon_as_it_is_gone():
    ledger = Ledger(0.0)
    ledger.look(1, Cause.QUERY)
    assert ledger.look(1.1, WORK) == [Ended(Cause.QUERY, "", 1000)]


def test_another_slow_down_ends_the_one_before():
    events = told([(1, Cause.QUERY, "a"), (2, Cause.REPLICA_LAG, "b")])
    assert events == [
        Began(Cause.QUERY, "a"),
        Ended(Cause.QUERY, "a", 1000),
        Began(Cause.REPLICA_LAG, "b"),
        Ended(Cause.REPLICA_LAG, "b", 1000),
    ]


def test_the_newest_detail_is_kept():
    assert told([(1, Cause.QUERY, "7"), (2, Cause.QUERY, "9"), (3, Cause.QUERY, "")])[-1].detail == "9"


def test_time_is_taken_once():
    ledger = Ledger(10.0)
    ledger.look(12.0, WORK)
    ledger.look(12.5, Cause.QUERY)
    assert ledger.take() == {"network": 2000, "query": 500}
    assert ledger.take() == {}


LOOKS = st.lists(st.tuples(st.integers(0, 20_000), st.sampled_from(Cause)), max_size=40)


@given(LOOKS)
def test_no_time_is_lost_or_counted_twice(looks):
    ledger, at = Ledger(0.0), 0.0
    for passed, cause in looks:
        at += passed / 1000
        ledger.look(at, cause)
    assert sum(ledger.take().values()) == sum(passed for passed, _ in looks)


@given(LOOKS)
def test_slow_downs_alternate_and_cost_no_more_than_their_cause_took(looks):
    ledger, at, events = Ledger(0.0), 0.0, []
    for passed, cause in looks:
        at += passed / 1000
        events += ledger.look(at, cause)
    events += ledger.close()
    assert [type(event) for event in events] == [Began, Ended] * (len(events) // 2)
    spent = ledger.take()
    for began, ended in zip(events[::2], events[1::2], strict=True):
        assert began.cause is ended.cause
        assert began.cause not in AT_WORK
        assert ended.milliseconds >= (
            0 if began.cause in {*HOLDS, Cause.OPERATOR} else BEGIN_SECONDS * 1000 - 1
        )
    for cause in Cause:
        cost = sum(event.milliseconds for event in events[1::2] if event.cause is cause)
        assert cost <= spent.get(cause.value, 0) + 1
