"""The daemon's wall clock is wrong, or jumps in mid-run: requests are signed by the server's, order never goes by it."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.faults import raw_journal
from tests.faults.counting_proxy import CountingProxy
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import Table, World, is_row
from tests.s3_servers import S3Server

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
MINUTES = 20
"""Beyond the 15 that S3 and weed bear."""
ROWS = 600

pytestmark = pytest.mark.skipif(
    not LIBRARIES, reason="NOT TESTED: jumps of the clock, apt package faketime (libfaketime)"
)


class Clock:
    """The wall clock of a world's daemon, as far from ours as we say; its monotonic clock stays true."""

    def __init__(self, world: World) -> None:
        self._path = world.directory / "clock"
        self.shift(0)
        world.variables = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        self._world = world

    def shift(self, minutes: int) -> None:
        # Renamed into place: the daemon reads it at every look at the clock.
        written = self._path.with_suffix(".new")
        written.write_text(f"{minutes * 60:+d}\n")
        written.replace(self._path)

    def heal(self) -> None:
        self._world.variables = {}


@pytest.fixture
def watched(database: Database, weed: S3Server, proxy: CountingProxy, tmp_path: Path) -> Watched:
    """A table before weed, which answers whoever is 15 minutes off with RequestTimeTooSkewed."""
    tables = [Table("rows")]
    world = World(tmp_path, database.dsn, database.sql, weed, tables, proxy, upload={"concurrency": 4})
    world.fill(tables[0], ROWS)
    return Watched.of(world, concurrency=4)


def skewed_answers(world: World) -> int:
    """How many attempts are on record as refused for their time."""
    ledger = raw_journal.read(world.journal)
    return sum("RequestTimeTooSkewed" in str(data) for _, data in ledger.of_kind("attempt_failed"))


@pytest.mark.parametrize("minutes", [MINUTES, -MINUTES])
def test_a_clock_that_jumps_in_mid_run_is_corrected_by_the_servers_and_the_log_keeps_its_order(
    watched: Watched, proxy: CountingProxy, minutes: int
) -> None:
    world = watched.world
    clock = Clock(world)
    proxy.hold(is_row, after=20)
    with world.daemon() as daemon:
        world.until_settled(daemon, 20)
        before = raw_journal.head_of(world.journal)
        clock.shift(minutes)
        proxy.release()
        assert daemon.exit_code() == 0, daemon.output()
    clock.heal()
    watched.check_end()
    ledger = world.ledger()
    stamps = [ts for _, ts, *_ in ledger.events]
    jumps = [later - earlier for earlier, later in pairwise(stamps)]
    jumped = max(jumps, key=abs)
    assert jumped // 60_000_000 in {minutes, minutes - 1}
    assert jumps.index(jumped) + 1 >= before
    assert skewed_answers(world) > 0
    assert "RequestTimeTooSkewed" in world.command("events").stdout
    sys.stdout.write(f"{skewed_answers(world)} requests refused for their time\n")


@pytest.mark.parametrize("minutes", [MINUTES, -MINUTES])
def test_a_clock_that_is_wrong_from_the_start_hinders_nothing(watched: Watched, minutes: int) -> None:
    world = watched.world
    clock = Clock(world)
    clock.shift(minutes)
    with world.daemon() as daemon:
        assert daemon.exit_code() == 0, daemon.output()
    watched.check_end()
    assert not world.ledger().parked


def test_a_clock_that_stepped_back_between_two_sessions_hinders_nothing(watched: Watched) -> None:
    world = watched.world
    clock = Clock(world)
    clock.shift(MINUTES)
    with world.daemon() as daemon:
        world.until_settled(daemon, 20)
        assert daemon.kill()
    watched.check_death()
    clock.shift(-MINUTES)
    run_to_the_end(watched)
