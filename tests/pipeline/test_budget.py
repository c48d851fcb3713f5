"""The byte budget and the silence clock."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.budget import ByteBudget, Silence, Slots


async def test_reservations_within_the_budget_do_not_wait():
    budget = ByteBudget(100)
    await budget.reserve(60)
    await budget.reserve(40)
    assert budget.reserved == 100


async def test_a_reservation_waits_until_its_bytes_are_released():
    budget = ByteBudget(100)
    await budget.reserve(60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.reserve, 50)
        await wait_all_tasks_blocked()
        assert budget.reserved == 60
        budget.release(60)
    assert budget.reserved == 50


async def test_a_value_over_the_whole_budget_runs_alone():
    budget = ByteBudget(100)
    await budget.reserve(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(budget.reserve, 1000)
        await wait_all_tasks_blocked()
        assert budget.reserved == 1
        budget.release(1)
    assert budget.reserved == 1000


async def test_small_reservations_do_not_overtake_a_large_one():
    budget = ByteBudget(100)
    await budget.reserve(50)
    order = []

    async def reserve(size):
        await budget.reserve(size)
        order.append(size)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reserve, 100)
        await wait_all_tasks_blocked()
        nursery.start_soon(reserve, 10)
        await wait_all_tasks_blocked()
        assert order == []
        budget.release(50)
        await wait_all_tasks_blocked()
        budget.release(100)
    assert order == [100, 10]


async def test_a_cancelled_wait_takes_nothing_and_lets_the_next_in_line_go():
    budget = ByteBudget(100)
    await budget.reserve(100)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def doomed():
            with scope:
                await budget.reserve(50)

        nursery.start_soon(doomed)
        await wait_all_tasks_blocked()
        scope.cancel()
        await wait_all_tasks_blocked()
        nursery.start_soon(budget.reserve, 70)
        await wait_all_tasks_blocked()
        budget.release(100)
    assert budget.reserved == 70


def test_releasing_more_than_was_reserved_is_a_bug_and_says_so():
    with pytest.raises(AssertionError, match="5 bytes more"):
        ByteBudget(10).release(5)


def test_silence_counts_from_the_first_unanswered_attempt():
    silence = Silence()
    assert silence.unanswered(100.0) == 0.0
    assert silence.unanswered(160.0) == 60.0


def test_an_answer_ends_the_silence():
    silence = Silence()
    silence.unanswered(100.0)
    silence.broken()
    assert silence.unanswered(500.0) == 0.0


def test_a_budget_of_one_byte_serves_and_one_of_none_is_refused():
    assert ByteBudget(1).total == 1
    with pytest.raises(ValueError, match="0 bytes"):
        ByteBudget(0)


async def test_slots_were_full_since_a_take_from_the_very_one_that_filled_them():
    slots = Slots(2)
    first = await slots.take()
    assert not slots.full_since(first)
    second = await slots.take()
    assert slots.full_since(first)
    assert slots.full_since(second)
    slots.give_back()
    slots.resize(3)
    third = await slots.take()
    assert not slots.full_since(third)
