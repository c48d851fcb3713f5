"""The full checker of a migration under fire: journal, bucket, proxy and tables held against each other, byte for byte."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from journal.maintenance import check
from journal.reader import Reader
from tests.faults.counting_proxy import CountingProxy
from tests.faults.raw_journal import Ledger
from tests.faults.worlds import PROBE, Row, World

CONNECTIONS = 3
"""postgres.connections is 4 by default, and one of them plans."""
FETCH_BATCH = 64


@dataclass
class Watched:
    """A migration under fire, with what its deaths allow it to repeat.

    Attributes:
        concurrency: the uploads at once that its configuration names.
        rows: what PostgreSQL has; the tables don't change.
        died_with: how often a process died with the object's key claimed and without outcome.
    """

    world: World
    concurrency: int
    rows: dict[str, dict[str, Row]]
    died_with: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    requeued: int = 0

    @classmethod
    def of(cls, world: World, *, concurrency: int) -> Self:
        """Watch a world whose tables are filled."""
        return cls(world, concurrency, {table.name: world.rows(table) for table in world.tables})

    def object_of(self, ledger: Ledger, ordinal: int) -> str:
        planned = ledger.plan[ordinal]
        return self.world.object_key(planned.source, planned.row_key)

    def check(self) -> Ledger:
        """Compare journal, bucket, tables and, where there is one, proxy; after a death or an end."""
        ledger = self.world.ledger()
        self._check_plan(ledger)
        self._check_objects(ledger)
        self._check_checkpoints(ledger)
        if self.world.proxy is not None:
            self._check_puts(ledger, self.world.proxy)
        return ledger

    def check_death(self) -> None:
        """Compare everything after a death, which may have come before there was a journal, and note it."""
        if not self.world.journal.exists():
            assert self.world.objects() == {}
            return
        self.note_death(self.check())

    def check_end(self) -> None:
        """Compare everything once a run has exited with 0: every key settled, every object read and equal."""
        self.check()
        self.world.assert_copied()
        assert check(self.world.journal) == []
        expected = {
            self.world.object_key(source, key): row.md5
            for source, rows in self.rows.items()
            for key, row in rows.items()
        }
        bodies = self.world.bucket.bodies(list(expected))
        digests = {key: hashlib.md5(body, usedforsecurity=False).hexdigest() for key, body in bodies.items()}
        assert digests == expected

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

    def _check_puts(self, ledger: Ledger, proxy: CountingProxy) -> None:
        exchanges = [
            one
            for one in proxy.exchanges()
            if one.method == "PUT" and one.key.startswith(self.world.prefix) and not one.key.endswith(PROBE)
        ]
        allowed: Counter[str] = Counter()
        for ordinal, count in (ledger.claims + ledger.attempts).items():
            allowed[self.object_of(ledger, ordinal)] += count
        assert Counter(one.key for one in exchanges) <= allowed, "more PUTs than claims and failed attempts"
        taken = Counter(one.key for one in exchanges if one.status // 100 == 2)
        repeated = Counter({key: count - 1 for key, count in taken.items() if count > 1})
        assert repeated.total() <= self.died_with.total()
        failed = Counter(
            {self.object_of(ledger, ordinal): count for ordinal, count in ledger.attempts.items()}
        )
        assert repeated <= self.died_with + failed

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
    watched.check_end()
    assert world.status()["state"] == "complete"
