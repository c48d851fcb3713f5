from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from daemon.health import ReplayMark


def lags(*readings):
    """Return the lag at each reading (received, replayed, age), five seconds apart."""
    mark = ReplayMark()
    return [mark.lag(*reading, now=100.0 + 5 * n) for n, reading in enumerate(readings)]


def test_all_that_was_received_is_replayed_so_there_is_no_lag_however_old_the_last_transaction():
    assert lags((10, 10, 3600.0), (10, 10, None)) == [0.0, 0.0]


def test_a_record_that_just_arrived_at_the_standby_of_an_idle_primary_is_seconds_of_lag_at_most():
    assert lags((10, 10, 3600.0), (11, 10, 3605.0), (11, 11, 3610.0)) == [0.0, 5.0, 0.0]


def test_a_busy_standby_lags_by_the_age_of_its_last_transaction_where_that_is_younger():
    assert lags((10, 9, 0.2), (20, 18, 0.3), (30, 29, 0.1)) == [0.2, 0.3, 0.1]


def test_a_paused_replay_lags_by_the_age_of_its_last_transaction():
    assert lags((10, 10, 1.0), (20, 10, 6.0), (30, 10, 11.0), (30, 10, 16.0)) == [0.0, 5.0, 11.0, 16.0]


def test_a_standby_fed_from_an_archive_has_nothing_but_that_age():
    assert lags((None, 10, 7.0), (None, 10, None)) == [7.0, None]


def test_behind_and_without_any_replayed_transaction_nothing_tells_the_lag():
    assert lags((10, 5, None), (20, 6, None), (30, 25, None)) == [None, None, 10.0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=30))
def test_the_true_lag_of_what_was_received_is_never_underestimated(steps):
    """A model: one unit of WAL is a transaction, received when it commits, replayed later or not at all."""
    mark, now, commits, replayed = ReplayMark(), 0.0, [0.0], 1
    for received_more, replayed_more in steps:
        now += 5.0
        commits += [now - 5.0 * (n + 1) / (received_more + 1) for n in range(received_more)][::-1]
        replayed = min(len(commits), replayed + replayed_more)
        lag = mark.lag(len(commits), replayed, now - commits[replayed - 1], now=now)
        true = now - commits[replayed] if replayed < len(commits) else 0.0
        assert lag >= true - 1e-9
