from __future__ import annotations

import pytest
import trio

from daemon.demo.postgres import EmbeddedPostgres
from daemon.retrying import Failure, FailureClass
from tests.source.sources import CUTOFF_US, TABLE, Opening, scan_all, spec, sweep_all


@pytest.fixture
def primary():
    with EmbeddedPostgres() as server:
        server.sql(TABLE + "insert into t select i::text, '2020-01-01', '' from generate_series(1, 12000) i")
        yield server


@pytest.fixture
def standby(primary):
    with EmbeddedPostgres(standby_of=primary, settings={"max_standby_streaming_delay": "0"}) as server:
        yield server


async def until(condition):
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_a_standby_is_read_knows_nothing_of_writers_and_shows_when_it_was_promoted(primary, standby):
    primary.sql("begin; insert into t values ('p', now(), ''); prepare transaction 'open'")
    async with Opening(standby.dsn())(give_up_after=30) as source:
        before = await source.server()
        facts = await source.describe(spec())
        assert sum(swept.seen for swept in await sweep_all(source, spec(), facts)) == 12000
        async with Opening(standby.dsn())() as reader, reader.scan(spec(), facts, cutoff_us=CUTOFF_US):
            writers = await source.writers_before(CUTOFF_US)
        primary.kill()
        standby.sql("select pg_promote()")
        after = await source.server()
        alone = await source.writers_before(CUTOFF_US)
    assert (before.in_recovery, before.timeline) == (True, 1)
    assert (writers.visible, writers.in_recovery, writers.pids) == (False, True, ())
    assert (after.in_recovery, after.timeline, after.system_identifier) == (
        False,
        2,
        before.system_identifier,
    )
    assert (alone.visible, alone.in_recovery, alone.prepared) == (True, False, ("open",))


async def test_a_standby_tells_how_far_it_has_replayed(primary, standby):
    clock = "select (extract(epoch from clock_timestamp()) * 1e6)::bigint"
    before, after = primary.sql(f"{clock}; insert into t values ('late', now(), ''); {clock}").splitlines()
    async with Opening(standby.dsn())() as source:
        await until(lambda: standby.sql("select count(*) from t where id = 'late'") == "1")
        writers = await source.writers_before(CUTOFF_US)
    assert int(before) <= writers.replay_us <= int(after)


async def test_a_snapshot_that_recovery_takes_away_is_a_conflict_and_a_new_scan_succeeds(primary, standby):
    conflicts = "select confl_snapshot from pg_stat_database_conflicts where datname = 'postgres'"

    async def scan_vacuumed_rows(source, facts):
        async with source.scan(spec(), facts, cutoff_us=CUTOFF_US) as batches:
            await anext(batches)
            primary.sql("delete from t where id::int % 2 = 0; vacuum t")
            await until(lambda: standby.sql(conflicts) != "0")
            await anext(batches)

    async with Opening(standby.dsn())(give_up_after=30) as source:
        facts = await source.describe(spec())
        with pytest.raises(Failure) as caught:
            await scan_vacuumed_rows(source, facts)
        rows, _, seen = await scan_all(source, spec(), facts)
    assert caught.value.kind in {FailureClass.CONFLICT, FailureClass.CONNECTION}
    assert (len(rows), seen) == (6000, 6000)
