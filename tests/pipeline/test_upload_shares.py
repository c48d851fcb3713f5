"""How totals are divided among upload processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.upload_shares import even_shares, processes_in_force, upload_shares

NUMBERS = st.integers(1, 16)


@given(st.integers(0, 1024), NUMBERS)
def test_even_shares_are_the_total_and_differ_by_one_at_most(total, number):
    shares = even_shares(total, number)
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@given(st.data(), st.integers(1, 64), NUMBERS)
def test_whoever_is_at_work_keeps_a_share_and_the_total_is_passed_only_for_that(data, total, number):
    busy = data.draw(st.lists(st.booleans(), min_size=number, max_size=number))
    before = data.draw(st.lists(st.integers(0, 3), min_size=number, max_size=number))
    shares = upload_shares(total, busy, before)
    at_work = [position for position in range(number) if busy[position] and before[position]]
    assert all(shares[position] > 0 for position in at_work)
    assert sum(shares) <= max(total, len(at_work))
    assert sum(shares) >= min(total, number)


@given(st.data(), st.integers(1, 15), NUMBERS)
def test_a_free_share_goes_to_one_that_has_keys_waiting(data, total, number):
    busy = data.draw(st.lists(st.booleans(), min_size=number, max_size=number))
    shares = upload_shares(total, busy, [0] * number)
    if total < number:
        idle = sum(shares[position] for position in range(number) if not busy[position])
        assert idle == max(0, total - sum(busy))


@pytest.mark.parametrize(
    ("configured", "cores", "connections", "expected"),
    [(1, 8, 3, 1), (3, 2, 3, 3), ("auto", 1, 3, 1), ("auto", 2, 3, 1), ("auto", 4, 3, 3), ("auto", 16, 5, 5)],
)
def test_auto_leaves_one_core_and_takes_no_more_than_there_are_connections(
    configured, cores, connections, expected
):
    assert processes_in_force(configured, cores=cores, connections=connections) == expected
