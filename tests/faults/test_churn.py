"""Tables that change all the while they are planned and copied: what the closing snapshot saw is settled."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple, Self

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from tests.faults.psql import Psql
from tests.faults.raw_journal import Ledger
from tests.faults.waiting import eventually
from tests.faults.worlds import Daemon, Table, World
from tests.s3_servers import S3Server

ROWS = 600
"""Seven to a page: more than one range of a sweep, which begins with 64 pages."""
TABLES = ("alpha", "beta")
LATE_TABLE = "beta"
LATE = 12
"""Rows that the late transaction adds."""
VACUUM_SECONDS = 1.5
PAUSE_SECONDS = 0.01
"""Between two changes: some are to hit each range of a sweep, the daemon is to get on all the same."""
WHERE = "public.napped()"
SCHEMA = """
create table public.history (source text, id text, md5 text, size int);
create function public.napped() returns boolean language sql volatile
  as $$ select pg_sleep(0.0005) is not null $$;
create function public.remember() returns trigger language plpgsql as $$
begin
  insert into public.history values (tg_table_name, new.id, md5(new.data), octet_length(new.data));
  return null;
end $$;
"""
TABLE = """
create table public.{name} (id text primary key, created_at timestamptz not null, data bytea not null, pad text);
create trigger remember after insert or update on public.{name}
  for each row execute function public.remember();
insert into public.{name} select 'k' || n, timestamptz '2024-05-01 12:00Z' + (n / 9) * interval '1 s',
  convert_to(repeat('v' || n || ' ', 1 + n % 30), 'UTF8'), repeat('p', 1000) from generate_series(1, {rows}) n;
analyze public.{name};
"""


class Now(NamedTuple):
    """A row as it is in the end; `changed_us` is when its last change was committed."""

    created_us: int
    md5: str
    size: int
    changed_us: int


@pytest.fixture
def stamped_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that knows when each transaction was committed."""
    with EmbeddedPostgres(settings={"track_commit_timestamp": "on"}) as server:
        yield server


class Churn:
    """Changes of every kind, in a thread and a session of its own, until the block ends."""

    def __init__(self, server: EmbeddedPostgres, seed: int) -> None:
        self._server = server
        self._random = Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failure: Exception | None = None
        self.done = 0
        self.highest = ROWS
        self._next_vacuum = 0.0
        # VACUUM FULL would queue behind the late transaction, and every reader behind VACUUM FULL.
        self.vacuumed = [name for name in TABLES if name != LATE_TABLE]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            with Psql(self._server) as psql:
                psql.run("set synchronous_commit = on")
                while not self._stop.wait(PAUSE_SECONDS):
                    psql.run(self._statement())
                    self.done += 1
        except Exception as error:  # noqa: BLE001 -- raised again where the block ends
            self._failure = error

    def _statement(self) -> str:
        if time.monotonic() > self._next_vacuum:
            # A sweep begins anew after each, five times at most.
            self._next_vacuum = time.monotonic() + VACUUM_SECONDS
            return f"vacuum full public.{self._random.choice(self.vacuumed)}"
        table = f"public.{self._random.choice(TABLES)}"
        key = f"k{self._random.randint(1, self.highest)}"
        first = self._random.randint(1, self.highest)
        some = f"id in (select 'k' || n from generate_series({first}, {first + 20}) n)"
        old = f"timestamptz '2024-05-01 12:00Z' + {self._random.randint(-50, 200)} * interval '1 s'"
        statements = {
            f"update {table} set data = convert_to(translate(convert_from(data, 'UTF8'), 'v0123', 'w1230'), 'UTF8') where {some}": 6,
            f"update {table} set data = data || '+'::bytea, pad = pad || 'q' where {some}": 6,
            f"update {table} set pad = pad || 'q' where {some}": 4,
            f"insert into {table} values ('new{self.done}', {old}, convert_to('new {self.done}', 'UTF8'), repeat('p', 1000))": 4,
            f"insert into {table} values ('young{self.done}', clock_timestamp(), 'young', '')": 2,
            f"delete from {table} where id = '{key}'": 4,
        }
        return self._random.choices(list(statements), list(statements.values()))[0]


@contextmanager
def late_transaction(server: EmbeddedPostgres) -> Iterator[Psql]:
    """A transaction that has added old rows to LATE_TABLE, which nobody else sees before it commits."""
    with Psql(server) as session:
        session.run("begin")
        session.run(
            f"insert into public.{LATE_TABLE} select 'late' || n, timestamptz '2024-05-01 12:00:30Z',"
            f" convert_to('late ' || n, 'UTF8'), '' from generate_series(1, {LATE}) n"
        )
        yield session


def rows_now(world: World, table: str) -> dict[str, Now]:
    listed = world.sql(
        "select id, (extract(epoch from created_at) * 1000000)::bigint, md5(data), octet_length(data),"
        f" (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint from public.{table}"
    )
    cells = [line.split("|") for line in listed.splitlines()]
    return {
        key: Now(int(created), md5, int(size), int(changed)) for key, created, md5, size, changed in cells
    }


def history(world: World) -> dict[tuple[str, str], set[tuple[int, str]]]:
    """Every value that a row ever had: size and MD5."""
    found = defaultdict(set)
    for line in world.sql("select source, id, size, md5 from public.history").splitlines():
        source, key, size, md5 = line.split("|")
        found[source, key].add((int(size), md5))
    return found


def closing_begun_us(ledger: Ledger, table: str) -> int:
    """When the pass that closed the source began; its snapshot is younger."""
    ((closed,), begun) = (
        [
            seq
            for seq, _, kind, source, _ in ledger.events
            if kind == "source_closed" and ledger.sources[source or 0] == table
        ],
        [
            (seq, ts)
            for seq, ts, kind, source, data in ledger.events
            if kind == "pass_begun" and ledger.sources[source or 0] == table and data["kind"] == "snapshot"
        ],
    )
    return max((seq, ts) for seq, ts in begun if seq < closed)[1]


def says(daemon: Daemon, text: str) -> bool:
    assert daemon.running(), daemon.output()
    return text in daemon.output()


def test_every_row_that_the_closing_snapshot_saw_is_settled_whatever_happened_meanwhile(
    stamped_postgres: EmbeddedPostgres, weed: S3Server, tmp_path: Path
) -> None:
    server = stamped_postgres
    world = World(
        tmp_path,
        server.dsn(),
        server.sql,
        weed,
        [Table(name, where=WHERE) for name in TABLES],
        upload={"concurrency": 8},
    )
    server.sql(SCHEMA + "".join(TABLE.format(name=name, rows=ROWS) for name in TABLES))
    with late_transaction(server) as late, Churn(server, seed=20260514) as churn:
        eventually(lambda: churn.done >= 10, "the tables change")
        with world.daemon() as daemon:
            world.until_recorded(daemon, "pass_begun", count=2)
            assert daemon.kill()
        with world.daemon() as daemon:
            eventually(partial(says, daemon, f"{TABLES[0]}: closing waits"), "closing waits for the late one")
            late.run("commit")
            churn.vacuumed = list(TABLES)
            # The rest has changed before the closing snapshots, and does not after them.
            churn.highest = ROWS // 3
            assert daemon.exit_code() == 0
    ledger = world.ledger()
    (cutoff_us,) = [data["cutoff_us"] for _, data in ledger.of_kind("cutoff_fixed")]
    had, there = history(world), world.objects()
    reached = 0
    for table in TABLES:
        latest = {plan.row_key: ordinal for ordinal, plan in ledger.plan.items() if plan.source == table}
        closing_us = closing_begun_us(ledger, table)
        now = rows_now(world, table)
        seen = {
            key: row for key, row in now.items() if row.created_us < cutoff_us and row.changed_us < closing_us
        }
        if table == LATE_TABLE:
            assert {f"late{n}" for n in range(1, LATE + 1)} <= set(seen)
        assert len(seen) > ROWS // 2
        assert len(seen) < len(now)
        for key, row in seen.items():
            assert ledger.outcomes[latest[key]].code in "SRP", key
            found = there[world.object_key(table, key)]
            assert found.size == row.size
            assert (found.size, found.etag) in had[table, key]
        kept = {
            plan.row_key
            for ordinal, plan in ledger.plan.items()
            if plan.source == table and ordinal in ledger.stored()
        }
        for key in kept:
            found = there[world.object_key(table, key)]
            assert (found.size, found.etag) in had[table, key]
        reached += len(kept)
    assert len(there) == reached, "objects that no outcome accounts for"
    assert all(plan.created_at is not None and plan.created_at < cutoff_us for plan in ledger.plan.values())
    assert set(ledger.outcomes) == set(ledger.plan)
    totals = world.status()["totals"]
    assert totals["planned_rows"] == totals["settled"] == len(ledger.plan)
    sys.stdout.write(f"{churn.done} changes, {len(ledger.plan)} rows planned, {reached} objects\n")
