"""The state that pipeline and planner wait on, and the slots that change their number."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from daemon.budget import Slots
from daemon.causes import HOLDS, Cause
from daemon.controls import Controls, Hold, unhindered
from daemon.drain import Drain
from daemon.tunables import Tunables
from journal.entries import AttemptFailed


async def opened(controls: Controls, drain: Drain, done: list[float]) -> None:
    await controls.wait_until_open(drain)
    done.append(trio.current_time())


async def test_work_waits_for_the_end_of_the_pause_and_of_every_hold(autojump_clock):
    controls, drain, done = unhindered(4), Drain(), []
    controls.pause()
    controls.hold(Hold(Cause.QUERY, ""))
    controls.hold(Hold(Cause.REPLICA_LAG, ""))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened, controls, drain, done)
        for second, release in enumerate(
            [
                controls.resume,
                lambda: controls.release(Cause.QUERY),
                lambda: controls.release(Cause.REPLICA_LAG),
            ]
        ):
            await trio.sleep(1)
            assert done == [], second
            release()
    assert done == [3]


async def test_a_drain_ends_the_wait_of_a_paused_session(autojump_clock):
    controls, drain, done = unhindered(4), Drain(), []
    controls.pause()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened, controls, drain, done)
        await trio.sleep(5)
        drain.request("SIGTERM")
    assert done == [5]
    assert controls.paused


async def test_a_fetch_of_what_is_claimed_waits_for_holds_but_not_for_a_pause(autojump_clock):
    controls, drain = unhindered(4), Drain()
    controls.pause()
    await controls.wait_until_released(drain)
    controls.hold(Hold(Cause.QUERY, ""))
    with trio.move_on_after(60) as waited:
        await controls.wait_until_released(drain)
    assert waited.cancelled_caught


def test_of_several_holds_the_gravest_is_named_and_the_newest_detail():
    controls = unhindered(4)
    controls.hold(Hold(Cause.QUERY, "old"))
    controls.hold(Hold(Cause.QUERY, "new"))
    assert controls.held == Hold(Cause.QUERY, "new")
    controls.hold(Hold(Cause.DISK_RESERVE, "full"))
    assert controls.held == Hold(Cause.DISK_RESERVE, "full")
    controls.release(Cause.DISK_RESERVE)
    controls.release(Cause.DISK_RESERVE)
    assert controls.held == Hold(Cause.QUERY, "new")


@pytest.mark.parametrize("cause", sorted(set(Cause) - set(HOLDS)))
def test_only_a_throttle_can_hold(cause):
    with pytest.raises(AssertionError, match="no throttle"):
        unhindered(4).hold(Hold(cause, ""))


async def test_every_change_tells_those_who_wait_and_a_release_of_nothing_does_not():
    controls = unhindered(4)
    for change in (
        controls.pause,
        controls.resume,
        lambda: controls.set(Tunables(2)),
        lambda: controls.hold(Hold(Cause.QUERY, "")),
        lambda: controls.release(Cause.QUERY),
    ):
        before = controls.changed
        change()
        assert before.is_set()
        assert not controls.changed.is_set()
    before = controls.changed
    controls.release(Cause.QUERY)
    assert not before.is_set()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.integers(1, 30))
def test_slots_never_let_in_more_than_there_are_at_that_moment(totals: list[int], tasks: int):
    """Each task stays a second; the total changes every 0.7 s."""
    overfull: list[tuple[int, int]] = []

    async def main() -> None:
        slots, inside = Slots(totals[0]), 0

        async def work() -> None:
            nonlocal inside
            await slots.take()
            inside += 1
            if inside > slots.total:
                overfull.append((inside, slots.total))
            await trio.sleep(1)
            inside -= 1
            slots.give_back()

        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(work)
            for total in totals:
                slots.resize(total)
                await trio.sleep(0.7)
        assert slots.taken == 0

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert overfull == []


async def test_a_raised_total_lets_the_waiting_in_at_once(autojump_clock):
    slots, inside = Slots(1), []

    async def work() -> None:
        await slots.take()
        inside.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(work)
        await trio.sleep(1)
        slots.resize(3)
        await wait_all_tasks_blocked()
        assert inside == [0, 1, 1]
        slots.give_back()
    assert len(inside) == 4


async def test_slots_tell_whether_all_were_taken_while_one_was():
    slots = Slots(2)
    early = await slots.take()
    assert not slots.full_since(early)
    late = await slots.take()
    slots.give_back()
    # Both were under way as the second was taken, whichever ends first.
    assert slots.full_since(early)
    assert slots.full_since(late)
    slots.resize(3)
    later = await slots.take()
    assert not slots.full_since(later)


def test_a_failed_attempt_of_an_upload_halves_the_limit_and_one_of_a_fetch_does_not():
    async def main() -> None:
        controls = Controls(Tunables(64), adaptive=True)
        controls.failed(AttemptFailed(1, "FETCH", "timeout", "no answer", milliseconds=100))
        assert controls.concurrency == 8
        controls.failed(AttemptFailed(1, "PUT", "throttled", "503", 503, milliseconds=100))
        assert controls.concurrency == 4

    trio.run(main)


def test_without_adaptation_nothing_changes_the_concurrency_but_an_operator():
    controls = Controls(Tunables(64))
    controls.failed(AttemptFailed(1, "PUT", "throttled", "503", 503, milliseconds=100))
    controls.served(under_way=64, full=True)
    assert (controls.concurrency, controls.take_change()) == (64, None)
    controls.set(Tunables(7))
    assert controls.concurrency == 7
