from __future__ import annotations

import random

import pytest
import trio

from daemon.accounting import Accounting
from daemon.activity import Activity
from daemon.causes import Cause
from daemon.controls import Controls, Hold
from daemon.recorder import Recorder
from daemon.runtime import Runtime, in_loop
from daemon.tunables import Tunables
from journal.checkpoint import Order
from journal.log import Journal
from journal.reader import Reader


def clock_us() -> int:
    return 1_700_000_000_000_000 + round(trio.current_time() * 1e6)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


async def recorded(path, work):
    """Account for `work(controls, activity)`; return (kind, cause, detail) of each slow-down's beginning and end."""
    runtime = Runtime(now_us=clock_us, random=random.Random(1), journal_runner=in_loop, digest_runner=in_loop)
    created = Journal.create(path, name="t", cutoff_us=None, order=Order.NEWEST_FIRST, now_us=clock_us())
    with created as journal:
        controls, activity = Controls(Tunables(4)), Activity()
        accounting = Accounting(
            Recorder(journal, runtime), controls, activity, explain=lambda cause: f"because of {cause}"
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accounting.run)
            await work(controls, activity)
            nursery.cancel_scope.cancel()
        await accounting.finish()
    with Reader.open(path) as reader:
        return [
            (event.kind, event.data["cause"], event.data["detail"])
            for event in reader.events()
            if event.kind.startswith("throttle_")
        ]


async def test_a_wait_for_a_rate_is_on_record_with_the_limit_that_it_is_for(path, autojump_clock):
    async def work(_controls, activity):
        with activity.at(Cause.TIMETABLE):
            await trio.sleep(10)

    assert await recorded(path, work) == [
        ("throttle_began", "timetable", "because of timetable"),
        ("throttle_ended", "timetable", "because of timetable"),
    ]


async def test_a_hold_is_on_record_with_what_was_found(path, autojump_clock):
    async def work(controls, _activity):
        controls.hold(Hold(Cause.QUERY, "throttle.query 3, above 2"))
        await trio.sleep(10)
        controls.release(Cause.QUERY)
        await trio.sleep(10)

    assert await recorded(path, work) == [
        ("throttle_began", "query", "throttle.query 3, above 2"),
        ("throttle_ended", "query", "throttle.query 3, above 2"),
    ]


async def test_a_slow_down_that_ends_as_the_session_does_is_on_record_though_the_journal_is_busy(
    path, autojump_clock
):
    async def slow(function):
        await trio.sleep(3)
        return function()

    runtime = Runtime(now_us=clock_us, random=random.Random(1), journal_runner=slow, digest_runner=in_loop)
    created = Journal.create(path, name="t", cutoff_us=None, order=Order.NEWEST_FIRST, now_us=clock_us())
    with created as journal:
        recorder, controls = Recorder(journal, runtime), Controls(Tunables(4))
        accounting = Accounting(recorder, controls, Activity())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accounting.run)
            await trio.sleep(10)
            controls.hold(Hold(Cause.QUERY, "throttle.query 3, above 2"))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await accounting.finish()
    with Reader.open(path) as reader:
        kinds = [event.kind for event in reader.events() if event.kind.startswith("throttle_")]
    assert kinds == ["throttle_began", "throttle_ended"]


async def test_each_sample_tells_of_the_puts_that_were_answered_since_the_one_before(path, autojump_clock):
    runtime = Runtime(now_us=clock_us, random=random.Random(1), journal_runner=in_loop, digest_runner=in_loop)
    puts = runtime.instruments.requests["PUT"]
    created = Journal.create(path, name="t", cutoff_us=None, order=Order.NEWEST_FIRST, now_us=clock_us())
    with created as journal:
        accounting = Accounting(Recorder(journal, runtime), Controls(Tunables(4)), Activity(), puts=puts)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accounting.run)
            await trio.sleep(1)
            for seconds in (0.003, 0.004, 0.2, 99.0):
                puts.observe(seconds)
            await trio.sleep(16)
            puts.observe(0.003)
            nursery.cancel_scope.cancel()
        await accounting.finish()
    with Reader.open(path) as reader:
        counts = [event.data.get("put_counts") for event in reader.events(kinds=["progress_sampled"])]
    assert counts == [None, {"0.005": 2, "0.25": 1, "+Inf": 1}, {"0.005": 1}]
