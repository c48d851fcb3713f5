"""The power goes while the daemon works: all that anybody saw of the journal before is there afterwards."""

from __future__ import annotations

import secrets
import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.conftest import Database
from tests.faults import raw_journal
from tests.faults.counting_proxy import CountingProxy
from tests.faults.disks import Disk
from tests.faults.waiting import eventually, happens
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import PROBE, Table, World
from tests.s3_servers import S3Server, fresh_prefix

FILE_SYSTEMS = ["ext4", "xfs"]
CONCURRENCY = 8
ROWS = 400
MOMENTS = [
    "session_started",
    "chunk_sealed",
    "keys_recovered",
    "keys_claimed",
    "keys_claimed",
    "outcomes_recorded",
    "outcomes_recorded",
    "source_closed",
]
"""What a cut waits for in the journal, before a delay of its own."""

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("systemd")]
"""A group: systemd's tests make mount namespaces, which would keep our mounts alive after umount."""


def seen_of(journal: Path) -> list[object]:
    """The log as a reader sees it."""
    return list(raw_journal.read(journal).events) if journal.exists() else []


def cut_once(watched: Watched, disk: Disk, random: Random) -> bool:
    """Cut the power at a random moment of a run; False if the run came to its end before that."""
    world, proxy = watched.world, watched.world.proxy
    assert proxy is not None
    moment = random.choice(MOMENTS)
    delay = random.choice([0.0, random.uniform(0.0, 0.1), random.uniform(0.0, 0.6)])
    dies_first = random.choice([True, False])
    if random.choice([True, False]):
        proxy.hold(lambda key: not key.endswith(PROBE) and key.endswith("7-row"))
    seq = raw_journal.head_of(world.journal)
    with world.daemon() as daemon:

        def reached(kind: str) -> bool:
            return not daemon.running() or raw_journal.count_of(world.journal, kind, after_seq=seq) > 0

        eventually(partial(reached, "session_started"), "a session")
        happens(partial(reached, moment), within=2.0)
        happens(lambda: not daemon.running(), within=delay)
        seen = seen_of(world.journal)
        ended = not daemon.running()
        disk.cut_power()
        if dies_first:
            daemon.kill()
        proxy.release(late=random.choice([True, False]))
        # The next write fails, and with it the daemon, if nobody kills it.
        code = daemon.exit_code() if not dies_first else None
    assert code in {None, 0, 1, 3}, daemon.output()
    eventually(lambda: not proxy.waiting(), "the proxy lets go")
    disk.boot()
    assert seen_of(world.journal)[: len(seen)] == seen, "events that were seen before the cut are lost"
    sys.stdout.write(f"  cut {delay:.3f} s after {moment}: {len(seen)} events seen, exit code {code}\n")
    return not ended


@pytest.mark.parametrize("number", range(len(FILE_SYSTEMS)), ids=FILE_SYSTEMS)
def test_what_was_seen_before_a_power_cut_is_there_afterwards_and_the_run_goes_on(
    number: int, database: Database, weed: S3Server, proxy: CountingProxy, tmp_path: Path, power_cuts: int
) -> None:
    wanted = power_cuts // len(FILE_SYSTEMS)
    seed = secrets.randbits(32)
    random = Random(seed)
    sys.stdout.write(f"seed {seed}\n")
    cuts = 0
    tables = [Table("alpha"), Table("beta", layout="tiered")]
    with Disk(FILE_SYSTEMS[number], tmp_path) as disk:
        world = World(
            tmp_path,
            database.dsn,
            database.sql,
            weed,
            tables,
            proxy=proxy,
            upload={"concurrency": CONCURRENCY},
            journal_directory=disk.place,
        )
        for table in tables:
            world.fill(table, ROWS)
        rows = {table.name: world.rows(table) for table in tables}
        while cuts < wanted:
            world.new_journal()
            world.prefix = fresh_prefix()
            watched = Watched(world, CONCURRENCY, rows)
            while cuts < wanted and cut_once(watched, disk, random):
                cuts += 1
                watched.check_death()
            run_to_the_end(watched)
        sys.stdout.write(f"{cuts} power cuts\n")
