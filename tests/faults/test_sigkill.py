"""SIGKILL at random moments: nothing is lost, nothing is told that is not so, little is done twice."""

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
from tests.faults.waiting import eventually, happens
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import Row, Table, World
from tests.s3_servers import S3Server, fresh_prefix

MOMENTS = [
    *["session_started"] * 4,
    "pass_begun",
    "chunk_sealed",
    "segment_sealed",
    "keys_recovered",
    "keys_claimed",
    "keys_reclaimed",
    "outcomes_recorded",
    "source_closed",
]
"""What a kill waits for in the journal, before a delay of its own."""
SETUPS = [
    (16, 1, [Table("alpha"), Table("beta", layout="tiered"), Table("gamma")]),
    (16, 2, [Table("alpha"), Table("beta", layout="tiered"), Table("gamma")]),
    (64, 1, [Table("alpha")]),
    (64, 2, [Table("alpha")]),
    (4, 1, [Table("alpha", layout="tiered"), Table("beta")]),
    (1, 1, [Table("alpha")]),
]
"""Concurrency, processes and tables of each migration."""
ROWS = {1: 1600, 2: 1000, 3: 800}
"""Rows of each table, by the number of tables."""


def kill_once(watched: Watched, random: Random) -> bool:
    """Run the daemon and SIGKILL it at a random moment; False if it came to its end before that."""
    world, proxy = watched.world, watched.world.proxy
    assert proxy is not None
    moment = random.choice(MOMENTS)
    delay = random.choice([random.uniform(0.0, 0.08), random.uniform(0.05, 1.5)])
    patience = random.uniform(0.5, 1.5)
    # Many die with PUTs on their way for longer than a group commit waits; those arrive late, or never.
    held_seconds = random.choice([0.0, random.uniform(0.08, 0.2), random.uniform(0.08, 0.2)])
    late = random.choice([True, False])
    seq = raw_journal.head_of(world.journal)
    with world.daemon() as daemon:

        def reached(kind: str) -> bool:
            return not daemon.running() or raw_journal.count_of(world.journal, kind, after_seq=seq) > 0

        eventually(partial(reached, "session_started"), "a session")
        if moment != "session_started" and not happens(partial(reached, moment), within=patience):
            moment = f"{patience:.3f} s without {moment}"
        happens(lambda: not daemon.running(), within=delay)
        if held_seconds:
            proxy.hold()
            happens(lambda: not daemon.running(), within=held_seconds)
        killed = daemon.kill()
        proxy.release(late=late)
        eventually(lambda: not proxy.waiting(), "the proxy lets go")
        if not killed:
            assert daemon.exit_code() in {0, 3}, daemon.output()
            return False
    sys.stdout.write(
        f"  kill {watched.kills + 1}: {delay:.3f} s after {moment}, PUTs held {held_seconds:.3f} s\n"
    )
    return True


@pytest.mark.parametrize("number", range(len(SETUPS)))
def test_a_daemon_killed_again_and_again_loses_nothing_and_repeats_only_what_it_held(
    number: int, database: Database, weed: S3Server, proxy: CountingProxy, tmp_path: Path, kills: int
) -> None:
    concurrency, processes, tables = SETUPS[number]
    wanted = kills // len(SETUPS) + (number < kills % len(SETUPS))
    seed = secrets.randbits(32)
    random = Random(seed)
    sys.stdout.write(f"seed {seed}, concurrency {concurrency}, {processes} processes, {len(tables)} tables\n")
    rows: dict[str, dict[str, Row]] = {}
    killed = requeued = rounds = held = recovered = 0
    while killed < wanted:
        world = World(
            tmp_path,
            database.dsn,
            database.sql,
            weed,
            tables,
            proxy=proxy,
            upload={"concurrency": concurrency, "processes": processes, "key_batch_size": 200},
            prefix=fresh_prefix(),
        )
        if not rows:
            for table in tables:
                world.fill(table, ROWS[len(tables)])
                rows[table.name] = world.rows(table)
        world.new_journal()
        watched = Watched(world, concurrency, rows)
        while killed < wanted and kill_once(watched, random):
            killed += 1
            watched.note_death(watched.check())
        run_to_the_end(watched)
        requeued += watched.requeued
        held += watched.died_with.total()
        recovered += sum(outcome.code == "R" for outcome in world.ledger().outcomes.values())
        rounds += 1
    sys.stdout.write(
        f"{killed} kills in {rounds} rounds: {held} keys claimed without outcome, {recovered} of them found stored,"
        f" {requeued} parked for dying too often and requeued\n"
    )
    assert killed == wanted


def test_a_key_that_four_processes_died_with_is_parked_and_comes_back_when_requeued(
    world: World, proxy: CountingProxy
) -> None:
    (table,) = world.tables
    world.fill(table, 300)
    world.upload = {"concurrency": 8}
    poison = world.object_key("rows", "77-row")
    proxy.hold(poison.__eq__)
    for death in range(4):
        seq = raw_journal.head_of(world.journal)
        with world.daemon() as daemon:
            world.until_held(daemon, 1)
            # Innocent keys in flight would become suspects too.
            world.until_settled(daemon, 299)
            assert daemon.kill()
        assert raw_journal.count_of(world.journal, "keys_recovered", after_seq=seq) == (death > 0)
        proxy.release()
        eventually(lambda: not proxy.waiting(), "the dead process's PUT is dropped")
        proxy.hold(poison.__eq__)
    with world.daemon() as daemon:
        assert daemon.exit_code() == 3
    ledger = world.ledger()
    assert {ledger.plan[ordinal].row_key: why for ordinal, why in ledger.parked.items()} == {
        "77-row": "process_died"
    }
    proxy.release()
    assert world.command("requeue", "--failure", "process_died").returncode == 0
    with world.daemon() as daemon:
        assert daemon.exit_code() == 0
    world.assert_copied()
