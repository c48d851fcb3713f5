from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.rendering_rates import SAMPLES_MAX, WINDOW_SECONDS, Amounts, Meter, SlidingRate

MIB = 1024**2


def amounts(settled, *, planned=1_000_000, parked=0, size=MIB, plan_complete=True, copied=None):
    return Amounts(
        planned,
        planned * size,
        settled,
        settled * size,
        parked,
        settled * size if copied is None else copied,
        plan_complete,
    )


def test_a_rate_needs_two_samples_a_second_apart():
    rate = SlidingRate()
    assert rate.per_second() is None
    rate.add(10.0, 0, 0)
    assert rate.per_second() is None
    rate.add(10.9, 9, 90)
    assert rate.per_second() is None
    rate.add(12.0, 20, 200)
    assert rate.per_second() == (10.0, 100.0)


def test_a_rate_forgets_what_is_older_than_its_window():
    rate = SlidingRate()
    for second in range(200):
        rate.add(float(second), min(second, 100) * 10, 0)
    assert rate.per_second() == (0.0, 0.0)


def test_a_stall_shows_within_one_window_even_when_nobody_looked_meanwhile():
    rate = SlidingRate()
    rate.add(0.0, 0, 0)
    rate.add(30.0, 3000, 0)
    rate.add(30.0 + WINDOW_SECONDS, 3000, 0)
    assert rate.per_second() == (0.0, 0.0)


def test_a_total_that_shrinks_is_no_negative_speed():
    rate = SlidingRate()
    rate.add(0.0, 100, 100)
    rate.add(10.0, 90, 50)
    assert rate.per_second() == (0.0, 0.0)


@given(st.floats(0.001, 2.0), st.integers(500, 2000))
def test_memory_is_bounded_at_any_pace_and_a_steady_speed_is_measured(step, samples):
    rate = SlidingRate()
    for index in range(samples):
        rate.add(index * step, index * 7, index * 7000)
    assert len(rate._samples) <= SAMPLES_MAX + 3
    measured = rate.per_second()
    if samples * step > 2:
        assert measured == pytest.approx((7 / step, 7000 / step), rel=0.01)


def test_no_eta_before_one_percent_or_sixty_seconds_of_this_session():
    meter = Meter()
    meter.read(0.0, amounts(500_000))
    assert meter.read(59.0, amounts(509_999)).eta_seconds is None
    assert meter.read(59.5, amounts(510_000)).eta_seconds is not None


def test_after_sixty_seconds_a_slow_session_has_an_eta_too():
    meter = Meter()
    meter.read(0.0, amounts(0))
    assert meter.read(60.0, amounts(600)).eta_seconds == pytest.approx(99_940.0)


def test_no_eta_while_the_plan_still_grows_or_nothing_moves():
    growing, stalled = Meter(), Meter()
    growing.read(0.0, amounts(0, plan_complete=False))
    assert growing.read(100.0, amounts(50_000, plan_complete=False)).eta_seconds is None
    stalled.read(0.0, amounts(5))
    assert stalled.read(100.0, amounts(5)).eta_seconds is None


def test_parked_keys_are_not_waited_for():
    meter = Meter()
    meter.read(0.0, amounts(0, planned=100, parked=0))
    assert meter.read(100.0, amounts(90, planned=100, parked=10)).eta_seconds == 0.0


def test_the_later_of_the_guesses_by_rows_and_by_bytes_counts():
    meter = Meter()
    meter.read(0.0, Amounts(100, 10_000, 0, 0, 0, 0, plan_complete=True))
    pace = meter.read(10.0, Amounts(100, 10_000, 50, 100, 0, 100, plan_complete=True))
    assert pace.eta_seconds == pytest.approx(990.0)


def test_throughput_counts_uploaded_bytes_not_those_found_there():
    meter = Meter()
    meter.read(0.0, amounts(0, copied=0))
    pace = meter.read(10.0, amounts(100, copied=MIB))
    assert pace.rows_per_second == pytest.approx(10.0)
    assert pace.bytes_per_second == pytest.approx(MIB / 10)


def test_amounts_of_sources_add_up_and_one_growing_plan_keeps_the_sum_growing():
    both = amounts(3, planned=10, parked=1) + amounts(4, planned=20, parked=2, plan_complete=False)
    assert (both.planned_rows, both.settled_rows, both.left_out_rows) == (30, 7, 3)
    assert not both.plan_complete
