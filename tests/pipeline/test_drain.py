"""What a request to stop, and a second one, mean for governed work."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from daemon.drain import Drain


async def work(drain: Drain, grace: float, ended: list[float]) -> None:
    with drain.governs(grace=grace):
        await trio.sleep_forever()
    ended.append(trio.current_time())


async def test_governed_work_ends_when_its_own_grace_is_over(autojump_clock):
    drain, ended = Drain(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, drain, 30, ended)
        nursery.start_soon(work, drain, 0, ended)
        await trio.sleep(5)
        drain.request("SIGTERM")
    assert ended == [5, 35]


async def test_a_cancel_ends_everything_at_once(autojump_clock):
    drain, ended = Drain(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, drain, 30, ended)
        await trio.sleep(5)
        drain.request("SIGINT")
        await trio.sleep(1)
        drain.cancel()
    assert ended == [6]


async def test_a_second_request_does_not_lengthen_the_grace(autojump_clock):
    drain, ended = Drain(), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work, drain, 30, ended)
        await wait_all_tasks_blocked()
        drain.request("SIGINT")
        await trio.sleep(10)
        drain.request("SIGTERM")
    assert ended == [30]
    assert drain.cause == "SIGINT"


async def test_work_that_begins_after_the_request_has_its_grace_only(autojump_clock):
    drain, ended = Drain(), []
    drain.request("SIGTERM")
    await work(drain, 0, ended)
    await work(drain, 7, ended)
    assert ended == [0, 7]


async def test_work_that_begins_after_a_cancel_ends_at_its_first_wait(autojump_clock):
    drain, ended = Drain(), []
    drain.request("SIGTERM")
    drain.cancel()
    await work(drain, 30, ended)
    assert ended == [0]


async def test_grace_given_later_counts(autojump_clock):
    drain = Drain()
    with drain.governs(grace=0) as governed:
        governed.grace = 12
        drain.request("SIGTERM")
        await trio.sleep_forever()
    assert trio.current_time() == 12


async def test_a_block_that_governs_its_parts_itself_outlives_a_cancel(autojump_clock):
    drain, ended = Drain(), []
    with drain.governs(grace=0) as governed:
        governed.hand_over()
        drain.request("SIGINT")
        drain.cancel()
        await work(drain, 30, ended)
        await trio.sleep(1)
        ended.append("recorded")
    assert ended == [0, "recorded"]
