from __future__ import annotations

import pytest
import trio

from daemon.causes import Cause
from daemon.controls import Hold
from daemon.errors import ExitCode
from daemon.retrying import Failure, FailureClass
from daemon.tunables import Tunables
from tests.pipeline.rig import CUTOFF_US, Rig, clock_us
from tests.planning.fake_source import FakeSource

KIB = 1024


class TimedSource(FakeSource):
    """Keeps when each fetch began, and how many rows and bytes it asked for."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.fetches = []

    async def fetch(self, spec, facts, wanted):
        self.fetches.append((trio.current_time(), len(wanted), sum(one.reserved for one in wanted)))
        return await super().fetch(spec, facts, wanted)

    def by(self, seconds):
        """Rows and bytes asked for in the first `seconds` since the first fetch."""
        first = self.fetches[0][0]
        early = [fetch for fetch in self.fetches if fetch[0] - first <= seconds]
        return sum(rows for _, rows, _ in early), sum(size for _, _, size in early)


def filled(rig: Rig, *, rows: int, size: int, **throttle) -> TimedSource:
    rig.throttle = throttle
    rig.database = TimedSource(rig.tables, clock_us)
    for n in range(rows):
        rig.table.insert(f"{n:05}", CUTOFF_US - 1 - n, b"x" * size)
    return rig.database


async def test_a_session_reads_rows_at_the_rate_it_is_given(rig, autojump_clock):
    source = filled(rig, rows=4000, size=10, rows_per_second=100)
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert source.by(30)[0] == pytest.approx(3000, rel=0.05)
    assert source.fetches[-1][0] - source.fetches[0][0] == pytest.approx(40, rel=0.05)


async def test_a_session_reads_bytes_at_the_rate_it_is_given(rig, autojump_clock):
    source = filled(rig, rows=2000, size=2 * KIB, bytes_per_second=100 * KIB)
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert source.by(30)[1] == pytest.approx(3000 * KIB, rel=0.05)
    assert max(size for _, _, size in source.fetches) <= 100 * KIB


async def test_a_session_reads_bytes_as_the_timetable_says(rig, autojump_clock):
    # The rig's clock begins at 22:13:21 UTC.
    source = filled(rig, rows=2000, size=2 * KIB, timetable="00:00,40K 22:14,200K")
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert source.by(30)[1] == pytest.approx(30 * 40 * KIB, rel=0.06)
    assert source.fetches[-1][0] - source.fetches[0][0] == pytest.approx(
        39 + (4000 - 39 * 40) / 200, rel=0.05
    )


async def test_a_rate_set_in_mid_run_holds_from_that_moment_on(rig, autojump_clock):
    source = filled(rig, rows=4000, size=10, rows_per_second=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.session)
        await trio.sleep(10)
        before = sum(rows for _, rows, _ in source.fetches)
        rig.controls.set(Tunables(4, 10))
        await trio.sleep(20)
        slow = sum(rows for _, rows, _ in source.fetches) - before
        rig.controls.set(Tunables(4))
    after = [moment for moment, _, _ in source.fetches if moment >= 30]
    # What was cut into fetches of 64 at the old rate goes at most once more; its debt is paid at the new one.
    assert slow <= 20 * 10 + 64
    assert max(after) < 31


async def test_a_throttle_lets_no_fetch_begin_until_it_is_released(rig, autojump_clock):
    source = filled(rig, rows=2000, size=10, rows_per_second=100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.session)
        await trio.sleep(5)
        rig.controls.hold(Hold(Cause.REPLICA_LAG, "replica lag 11 s, above 10 s"))
        await trio.sleep(60)
        rig.controls.release(Cause.REPLICA_LAG)
    assert not [moment for moment, _, _ in source.fetches if 5 < moment < 65]
    assert rig.counts().settled == 2000


async def test_a_hold_is_no_silence_of_the_server(rig, autojump_clock):
    source = filled(rig, rows=64, size=10)
    rig.upload = {"give_up_after": 60}
    down = True

    def lose(name):
        if name == "fetch" and down:
            raise Failure(FailureClass.CONNECTION, "FETCH", "gone", answered=False)

    source.on_statement = lose
    ended = []

    async def session():
        ended.append(await rig.session())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session)
        await trio.sleep(30)
        rig.controls.hold(Hold(Cause.REPLICA_LAG, "replica lag 11 s, above 10 s"))
        await trio.sleep(3600)
        rig.controls.release(Cause.REPLICA_LAG)
        await trio.sleep(10)
        down = False
    assert ended[0].exit_code is ExitCode.DONE


async def test_a_drain_does_not_wait_for_a_rate(rig, autojump_clock):
    filled(rig, rows=2000, size=10, rows_per_second=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.session)
        await trio.sleep(20)
        begun = trio.current_time()
        rig.drain.request("SIGTERM")
    assert trio.current_time() - begun < 1
    assert rig.counts().in_flight == 0


async def test_every_retry_is_paced_as_well(rig, autojump_clock):
    source = filled(rig, rows=64, size=10, rows_per_second=64)

    def lose_five(name):
        if name == "fetch" and len(source.fetches) <= 5:
            raise Failure(FailureClass.CONNECTION, "FETCH", "gone", answered=False)

    source.on_statement = lose_five
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert len(source.fetches) == 6
    assert [round(moment - source.fetches[0][0]) for moment, _, _ in source.fetches] == [0, 1, 2, 3, 4, 5]
