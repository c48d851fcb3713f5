"""What a change from outside does to a session that is copying, on virtual time."""

from __future__ import annotations

import trio

from daemon.causes import Cause
from daemon.control_protocol import Refused
from daemon.controls import Hold
from daemon.errors import ExitCode
from daemon.retrying import Failure, FailureClass
from tests.pipeline.rig import CUTOFF_US, Rig
from tests.planning.fake_source import fails

PUT_SECONDS = 2.0
ROWS = 600
"""More than may be claimed at once."""


def slow(rig: Rig, *, rows: int = ROWS, concurrency: int = 4, adaptive: bool = True) -> Rig:
    """Rows of which each takes PUT_SECONDS to upload."""
    rig.upload = {"concurrency": concurrency, "adaptive": adaptive}
    # It waits before and after it acts.
    rig.fake._latency = lambda: PUT_SECONDS / 2
    for number in range(rows):
        rig.table.insert(f"k{number:03}", CUTOFF_US - 1 - number, b"v")
    return rig


async def most_at_once(rig: Rig, seconds: float) -> int:
    """How many PUTs were under way at once at most, within so many seconds from now."""
    rig.fake.in_flight_max = rig.fake.in_flight
    await trio.sleep(seconds)
    return rig.fake.in_flight_max


async def test_no_more_puts_are_under_way_than_allowed_at_each_moment(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await trio.sleep(2.5)
        assert await most_at_once(rig, 3) == 4
        await rig.steer("set", "concurrency=9")
        assert await most_at_once(rig, 3) == 9
        await rig.steer("set", "concurrency=2")
        # What was under way ends; a lower limit takes nothing back.
        await trio.sleep(1.5 * PUT_SECONDS)
        assert await most_at_once(rig, 5) == 2
        await rig.steer("set", "concurrency=config")
        await trio.sleep(1.5 * PUT_SECONDS)
        assert await most_at_once(rig, 3) == 4
    assert rig.ended.exit_code is ExitCode.DONE
    assert len(rig.objects()) == ROWS
    assert len(rig.requests("PUT")) == ROWS


async def test_a_raised_concurrency_shortens_the_rest(rig, autojump_clock):
    slow(rig, rows=100, concurrency=1, adaptive=False)
    async with rig.running():
        await trio.sleep(10)
        await rig.steer("set", "concurrency=50")
        raised_at = trio.current_time()
    assert trio.current_time() - raised_at < 5


async def test_a_pause_ends_what_is_claimed_and_begins_nothing(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await trio.sleep(3.5)
        await rig.steer("pause")
        await trio.sleep(3600)
        counts = rig.counts()
        assert counts.in_flight == rig.fake.in_flight == 0
        assert 0 < counts.stored == len(rig.requests("PUT")) < ROWS
        await trio.sleep(3600)
        assert len(rig.requests("PUT")) == counts.stored
        assert rig.ended is None
        await rig.steer("resume")
    assert rig.ended.exit_code is ExitCode.DONE
    assert len(rig.objects()) == ROWS


async def test_a_pause_before_anything_is_planned_holds_the_planning_back(rig, autojump_clock):
    slow(rig)
    rig.database.latency = 1.0
    async with rig.running():
        await trio.sleep(2.5)
        await rig.steer("pause")
        await trio.sleep(10)
        swept = rig.database.statements.count("sweep_range")
        await trio.sleep(3600)
        assert rig.database.statements.count("sweep_range") == swept
        assert rig.counts().stored == 0
        await rig.steer("resume")
    assert rig.ended.exit_code is ExitCode.DONE


async def test_a_hold_lets_no_fetch_begin_until_it_is_released(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await trio.sleep(3.5)
        rig.controls.hold(Hold(Cause.REPLICA_LAG, "12 s; at most 10 s"))
        await trio.sleep(1)
        fetched = rig.database.statements.count("fetch")
        await trio.sleep(600)
        assert rig.database.statements.count("fetch") == fetched
        assert rig.fake.in_flight == 0
        rig.controls.release(Cause.REPLICA_LAG)
    assert rig.ended.exit_code is ExitCode.DONE
    assert len(rig.objects()) == ROWS


async def test_a_paused_session_still_stops_at_once(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await trio.sleep(3.5)
        await rig.steer("pause")
        await trio.sleep(600)
        stopped_at = trio.current_time()
        rig.drain.request("SIGTERM")
    assert trio.current_time() == stopped_at
    assert rig.ended.exit_code is ExitCode.TERMINATED


async def test_a_drain_by_an_operator_ends_what_is_in_hand_and_exits_with_8(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await trio.sleep(3.5)
        reply = await rig.steer("drain")
        asked_at = trio.current_time()
    assert reply.said == "draining: what is in hand ends within 30 s; then the daemon exits"
    assert trio.current_time() - asked_at <= 30
    assert rig.ended.exit_code is ExitCode.STOPPED
    assert rig.ended.reason == "drained on drain by alice (uid 1000) with work left; the same command resumes"
    assert rig.events("drain_requested") == [
        {"cause": "drain by alice (uid 1000)", "who": "alice (uid 1000)"}
    ]
    assert rig.counts().in_flight == 0


async def test_a_pause_outlives_its_session_and_a_new_one_copies_nothing(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await trio.sleep(3.5)
        await rig.steer("pause")
        await rig.steer("drain")
    stored = rig.counts().stored
    async with rig.running():
        await trio.sleep(3600)
        assert rig.counts().stored == stored
        await rig.steer("resume")
    assert rig.ended.exit_code is ExitCode.DONE


async def test_a_setting_outlives_its_session_until_it_is_given_back(rig, autojump_clock):
    slow(rig)
    async with rig.running():
        await rig.steer("set", "concurrency=2")
        await trio.sleep(3.5)
        await rig.steer("drain")
    async with rig.running():
        await trio.sleep(2.5)
        assert await most_at_once(rig, 5) == 2
        await rig.steer("set", "concurrency=config")
        assert await most_at_once(rig, 5) == 4
    assert rig.ended.exit_code is ExitCode.DONE


def occupied(rig: Rig, key: str) -> None:
    """Let a foreign object of other bytes be where `key` goes: it will be parked."""
    rig.fake.place(f"t/{key}", b"somebody else's")


async def test_a_requeued_key_is_driven_again_by_the_running_session(rig, autojump_clock):
    slow(rig)
    occupied(rig, "k000")
    async with rig.running():
        await trio.sleep(5.5)
        assert rig.counts().parked == 1
        del rig.fake.buckets["bucket"]["t/k000"]
        reply = await rig.steer("requeue")
        assert reply.said == "1 key requeued; the running `backfillctl run` drives it again"
    assert rig.ended.exit_code is ExitCode.DONE
    assert rig.objects()["t/k000"] == b"v"


async def test_a_key_requeued_while_closing_waits_is_driven_before_the_session_ends(rig, autojump_clock):
    slow(rig, rows=1)
    occupied(rig, "k000")
    late = rig.database.begin("t", started_us=CUTOFF_US - 5)
    async with rig.running():
        await trio.sleep(30)
        assert rig.counts().parked == 1
        assert rig.ended is None
        del rig.fake.buckets["bucket"]["t/k000"]
        await rig.steer("requeue")
        late.commit()
    assert rig.ended.exit_code is ExitCode.DONE
    assert rig.objects() == {"t/k000": b"v"}


async def test_a_key_requeued_at_the_last_moment_is_driven_or_left_to_the_next_run(tmp_path, autojump_clock):
    """Whenever it comes, it is told rightly who drives it, and no session calls itself ended with it unseen."""
    drivers = []
    for ticks in range(1000):
        rig = Rig(tmp_path / str(ticks))
        rig.directory.mkdir()
        slow(rig, rows=1)
        occupied(rig, "k000")
        closing = trio.Event()
        rig.database.on_statement = lambda name, closing=closing: name == "writers_before" and closing.set()
        async with rig.running():
            await closing.wait()
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()
            del rig.fake.buckets["bucket"]["t/k000"]
            reply = await rig.steer("requeue")
            if isinstance(reply, Refused):
                assert "closed" in reply.problems[0]
                break
            drivers.append(reply.said.split()[4])
        assert rig.ended.exit_code is (ExitCode.DONE if drivers[-1] == "running" else ExitCode.PARKED)
        assert rig.counts().pending == (0 if drivers[-1] == "running" else 1)
    assert drivers[0] == "running"
    assert sorted(drivers, reverse=True) == drivers


async def test_the_wait_between_two_attempts_to_read_rows_is_time_of_the_source(rig, autojump_clock):
    slow(rig, rows=1)
    lost = Failure(FailureClass.CONNECTION, "FETCH", "connection lost", answered=False)
    rig.database.on_statement = fails(lost, on="fetch", times=20)
    seen: set[int] = set()
    async with rig.running():
        await trio.sleep(1)
        for _ in range(20):
            await trio.sleep(0.1)
            seen.add(rig.activity.doing[Cause.SOURCE])
        rig.drain.request("SIGTERM")
    assert seen == {1}
