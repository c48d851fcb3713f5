"""SIGKILL at random moments: nothing is lost, nothing is told that is not so, little is done twice."""

from __future__ import annotations

import hashlib
import secrets
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

import pytest

from journal.reader import Reader
from tests.conftest import Database
from tests.faults import raw_journal
from tests.faults.counting_proxy import CountingProxy
from tests.faults.raw_journal import Ledger
from tests.faults.waiting import eventually, happens
from tests.faults.worlds import PROBE, Row, Table, World
from tests.s3_servers import S3Server, fresh_prefix

CONNECTIONS = 3
"""postgres.connections is 4 by default, and one of them plans."""
FETCH_BATCH = 64
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


@dataclass
class Watched:
    """A migration under fire, with what its deaths allow it to repeat.

    Attributes:
        rows: what PostgreSQL has; the tables don't change.
        died_with: how often a process died with the object's key claimed and without outcome.
    """

    world: World
    concurrency: int
    rows: dict[str, dict[str, Row]]
    died_with: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    requeued: int = 0

    def object_of(self, ledger: Ledger, ordinal: int) -> str:
        planned = ledger.plan[ordinal]
        return self.world.object_key(planned.source, planned.row_key)

    def check(self) -> Ledger:
        """Compare journal, bucket, proxy and tables; after a death or an end."""
        world = self.world
        assert world.proxy is not None
        exchanges = [one for one in world.proxy.exchanges() if not one.key.endswith(PROBE)]
        exchanges = [one for one in exchanges if one.key.startswith(world.prefix)]
        ledger = world.ledger()
        self._check_plan(ledger)
        self._check_objects(ledger)
        self._check_checkpoints(ledger)
        self._check_puts(ledger, Counter(one.key for one in exchanges if one.method == "PUT"))
        puts = Counter(one.key for one in exchanges if one.method == "PUT" and one.status // 100 == 2)
        repeated = Counter({key: count - 1 for key, count in puts.items() if count > 1})
        assert repeated.total() <= self.died_with.total()
        failed = Counter(
            {self.object_of(ledger, ordinal): count for ordinal, count in ledger.attempts.items()}
        )
        assert repeated <= self.died_with + failed
        return ledger

    def _check_plan(self, ledger: Ledger) -> None:
        for source, rows in self.rows.items():
            planned = [plan for plan in ledger.plan.values() if plan.source == source]
            keys = [plan.row_key for plan in planned]
            assert len(keys) == len(set(keys))
            assert all(plan.created_at == rows[plan.row_key].created_us for plan in planned)
            if source in ledger.sealed:
                assert set(keys) == set(rows), f"{source} is sealed without some of its rows"
        assert ledger.closed <= ledger.sealed
        assert len(ledger.in_flight) <= 2 * self.concurrency + CONNECTIONS * FETCH_BATCH

    def _check_objects(self, ledger: Ledger) -> None:
        there = self.world.objects()
        for ordinal, outcome in ledger.stored().items():
            planned = ledger.plan[ordinal]
            row = self.rows[planned.source][planned.row_key]
            found = there.get(self.object_of(ledger, ordinal))
            assert found is not None, f"{planned} is settled as {outcome} and not in the bucket"
            assert (found.size, found.etag) == (row.size, row.md5) == (outcome.size, outcome.md5)
        claimed = {self.object_of(ledger, ordinal) for ordinal in ledger.claims}
        assert set(there) <= claimed, "an object was written before its claim was on record"

    def _check_checkpoints(self, ledger: Ledger) -> None:
        with Reader.open(self.world.journal) as reader:
            status = reader.status(now_us=0)
        for source in status.sources:
            position = source.checkpoint.position
            assert brute_force(ledger, source.name) == (
                None if position is None else (position.created_at, position.row_key)
            )
            cutoff_us = source.checkpoint.cutoff_us
            if cutoff_us is None:
                continue
            settled = {
                ledger.plan[ordinal].row_key
                for ordinal in ledger.outcomes
                if ledger.plan[ordinal].source == source.name
            }
            behind = {key for key, row in self.rows[source.name].items() if row.created_us >= cutoff_us}
            assert behind <= settled, "--cutoff-timestamp as printed would skip rows"

    def _check_puts(self, ledger: Ledger, sent: Counter[str]) -> None:
        allowed: Counter[str] = Counter()
        for ordinal, count in (ledger.claims + ledger.attempts).items():
            allowed[self.object_of(ledger, ordinal)] += count
        assert sent <= allowed, "more PUTs than claims and failed attempts"

    def note_death(self, ledger: Ledger) -> None:
        self.kills += 1
        self.died_with.update(self.object_of(ledger, ordinal) for ordinal in ledger.in_flight)


def brute_force(ledger: Ledger, source: str) -> tuple[int | None, str] | None:
    """The last key, newest first, before which no planned key is unsettled."""
    position = None
    keys = [(plan, ordinal) for ordinal, plan in ledger.plan.items() if plan.source == source]
    keys.sort(key=lambda key: (key[0].created_at or 0, key[0].row_key.encode()), reverse=True)
    for plan, ordinal in keys:
        if ordinal not in ledger.outcomes:
            break
        position = (plan.created_at, plan.row_key)
    return position


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


def run_to_the_end(watched: Watched) -> None:
    """Run undisturbed; keys that died too often for no fault of theirs are requeued, as an operator would."""
    world = watched.world
    with world.daemon() as daemon:
        code = daemon.exit_code()
    ledger = watched.check()
    if code == 3:
        assert set(ledger.parked.values()) == {"process_died"}
        watched.requeued += len(ledger.parked)
        done = world.command("requeue", "--failure", "process_died")
        assert done.returncode == 0, done.stderr
        with world.daemon() as daemon:
            code = daemon.exit_code()
    assert code == 0
    world.assert_copied()
    watched.check()
    expected = {
        world.object_key(source, key): row.md5
        for source, rows in watched.rows.items()
        for key, row in rows.items()
    }
    bodies = world.bucket.bodies(list(expected))
    assert {
        key: hashlib.md5(body, usedforsecurity=False).hexdigest() for key, body in bodies.items()
    } == expected
    assert world.status()["state"] == "complete"


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
