"""SIGKILL before the Nth system call that writes, for one N after the other: nothing is lost, told wrongly, or done twice."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from tests.conftest import Database
from tests.faults.counting_proxy import CountingProxy
from tests.faults.nth_call import tracer
from tests.faults.waiting import eventually
from tests.faults.watched import Watched
from tests.faults.worlds import PROBE, Table, World
from tests.s3_servers import S3Server, fresh_prefix

if platform.machine() != "x86_64":
    pytest.skip(
        "NOT TESTED: SIGKILL at system calls: their numbers are those of x86-64", allow_module_level=True
    )

ROWS = 6
CONCURRENCY = 4
PARTS = 4
"""Tests that share the sweep, so that several processes can."""
RECOVERY_STEPS = 2
"""How much wider the steps are where every point is three runs."""
CREATING, PLANNING = 60, 280
"""Calls after which the journal is being built, and the first table staged, of about 640."""


@pytest.fixture
def watched(
    database: Database,
    weed: S3Server,
    proxy: CountingProxy,
    tmp_path: Path,
) -> Watched:
    """Two small tables."""
    tables = [Table("alpha"), Table("beta", layout="tiered")]
    world = World(
        tmp_path,
        database.dsn,
        database.sql,
        weed,
        tables,
        proxy=proxy,
        upload={"concurrency": CONCURRENCY},
    )
    for table in tables:
        world.fill(table, ROWS)
    return Watched.of(world, concurrency=CONCURRENCY)


def begun_anew(watched: Watched) -> Watched:
    """The same tables, with a journal and a prefix that nobody has used."""
    watched.world.new_journal()
    watched.world.prefix = fresh_prefix()
    return Watched(watched.world, watched.concurrency, watched.rows)


def dies_before(world: World, number: int) -> str | None:
    """Run the daemon until it is about to make its call of that number; which one, or None if it made fewer."""
    log = world.directory / "calls.log"
    world.wrapper = tracer(log, at=number)
    with world.daemon() as daemon:
        code = daemon.exit_code()
    world.wrapper = []
    calls = log.read_text().splitlines()
    if code == -9:
        assert len(calls) == number
        return calls[-1]
    assert code in {0, 3}
    return None


def ends_well(watched: Watched) -> None:
    with watched.world.daemon() as daemon:
        assert daemon.exit_code() == 0
    watched.check_end()


@pytest.mark.parametrize("part", range(PARTS))
def test_a_daemon_killed_before_any_call_that_writes_goes_on_from_there(
    watched: Watched, syscalls_step: int, part: int
) -> None:
    died_before: list[str] = []
    for number in count(1 + part * syscalls_step, PARTS * syscalls_step):
        watched = begun_anew(watched)
        call = dies_before(watched.world, number)
        if call is None:
            watched.check_end()
            break
        died_before.append(call)
        watched.check_death()
        ends_well(watched)
    sys.stdout.write(f"{len(died_before)} points, the last before {died_before[-1]}\n")


def die_creating(watched: Watched, _: int) -> None:
    assert dies_before(watched.world, CREATING)
    assert not watched.world.journal.exists()


def die_planning(watched: Watched, _: int) -> None:
    assert dies_before(watched.world, PLANNING)
    assert not watched.world.ledger().closed


def die_copying(watched: Watched, number: int) -> None:
    """Die with PUTs on their way; every other time they arrive, and nobody hears the answer."""
    world, proxy = watched.world, watched.world.proxy
    assert proxy is not None
    proxy.hold(lambda key: not key.endswith(PROBE))
    with world.daemon() as daemon:
        world.until_held(daemon, CONCURRENCY)
        assert daemon.kill()
    proxy.release(late=number % 2 == 0)
    eventually(lambda: not proxy.waiting(), "the proxy lets go")
    assert world.ledger().in_flight


@pytest.mark.parametrize("first_death", [die_creating, die_planning, die_copying])
def test_a_recovering_daemon_killed_before_any_call_that_writes_goes_on_from_there(
    watched: Watched, syscalls_step: int, first_death: Callable[[Watched, int], None]
) -> None:
    points = 0
    for visit, number in enumerate(count(1, RECOVERY_STEPS * syscalls_step)):
        watched = begun_anew(watched)
        first_death(watched, visit)
        watched.check_death()
        call = dies_before(watched.world, number)
        watched.check_death()
        ends_well(watched)
        if call is None:
            break
        points += 1
    sys.stdout.write(f"{points} points\n")
    assert points
