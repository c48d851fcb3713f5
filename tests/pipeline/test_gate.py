from __future__ import annotations

import pytest
import trio

from daemon.causes import Cause
from daemon.controls import Hold
from daemon.errors import ExitCode
from tests.pipeline.rig import CUTOFF_US, Rig, clock_us
from tests.planning.fake_source import FakeSource, FakeTable

HEAPS = (16384, 16385, 16386, 16387)
HELD_SECONDS = 600


@pytest.fixture
def partitioned(rig: Rig) -> Rig:
    """A table of four heaps, each a block range of its own."""
    rig.tables["t"] = FakeTable(relations=HEAPS)
    rig.database = FakeSource(rig.tables, clock_us, latency=1.0)
    for heap in HEAPS:
        rig.table.insert(str(heap), CUTOFF_US - heap, relation=heap)
    return rig


async def reads(rig: Rig, begin, end) -> list[tuple[float, str]]:
    """Run a session; `begin` at its second sweep, `end` after HELD_SECONDS; return when tables were read."""
    seen: list[tuple[float, str]] = []
    second = trio.Event()

    def look(name: str) -> None:
        if name in {"sweep_range", "snapshot", "fetch"}:
            seen.append((trio.current_time(), name))
        if len(seen) == 2:
            begin(rig.controls)
            second.set()

    rig.database.on_statement = look
    ended = []

    async def session() -> None:
        ended.append(await rig.session())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session)
        with trio.fail_after(60):
            await second.wait()
        await trio.sleep(HELD_SECONDS)
        end(rig.controls)
    assert ended[0].exit_code is ExitCode.DONE
    return seen


HOLD = Hold(Cause.REPLICA_LAG, "replica lag 11 s, above 10 s")


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (lambda controls: controls.hold(HOLD), lambda controls: controls.release(HOLD.cause)),
        (lambda controls: controls.pause(), lambda controls: controls.resume()),
    ],
    ids=["hold", "pause"],
)
async def test_planning_reads_no_further_range_while_it_is_held(partitioned, autojump_clock, begin, end):
    seen = await reads(partitioned, begin, end)
    begun = seen[1][0]
    assert [name for _, name in seen[:4]] == ["sweep_range"] * 4
    assert seen[2][0] == pytest.approx(begun + HELD_SECONDS + partitioned.database.latency)
    assert partitioned.counts().settled == 4


async def test_a_closing_scan_does_not_begin_while_it_is_held(partitioned, autojump_clock):
    controls = []

    def hold_before_the_scan(name: str) -> None:
        if name == "writers_before" and not controls:
            controls.append(partitioned.controls)
            partitioned.controls.hold(HOLD)
        if name == "snapshot":
            assert partitioned.controls.held is None

    partitioned.database.on_statement = hold_before_the_scan
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partitioned.session)
        await trio.sleep(HELD_SECONDS)
        assert controls
        assert partitioned.database.statements.count("snapshot") == 0
        controls[0].release(HOLD.cause)
    assert partitioned.database.statements.count("snapshot") == 1
