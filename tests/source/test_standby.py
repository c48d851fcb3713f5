from __future__ import annotations

import pytest
import trio

from daemon.config import ThrottleConfig
from daemon.demo.postgres import EmbeddedPostgres
from daemon.errors import ExitCode, RefusedError
from daemon.retrying import Failure, FailureClass
from daemon.rows import Wanted
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


async def test_a_standby_is_read_knows_nothing_of_writers_and_is_refused_once_promoted(primary, standby):
    primary.sql("begin; insert into t values ('p', now(), ''); prepare transaction 'open'")
    async with Opening(standby.dsn())(give_up_after=30) as source:
        before = await source.server()
        facts = await source.describe(spec())
        assert sum(swept.seen for swept in await sweep_all(source, spec(), facts)) == 12000
        async with Opening(standby.dsn())() as reader, reader.scan(spec(), facts, cutoff_us=CUTOFF_US):
            writers = await source.writers_before(CUTOFF_US)
        await source.health(ThrottleConfig(active_sessions=5))
        primary.kill()
        standby.sql("select pg_promote()")
        with pytest.raises(RefusedError, match="is on timeline 2; this session began on timeline 1"):
            await source.server()
        with pytest.raises(RefusedError, match="is a primary; this session began with a standby"):
            await source.writers_before(CUTOFF_US)
        with pytest.raises(RefusedError, match="is a primary; this session began with a standby"):
            await source.health(ThrottleConfig(active_sessions=5))
    async with Opening(standby.dsn())() as source:
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


ROLE = "create role everywhere superuser login password 'same'"


def either(first, second, **role):
    """Return a DSN that leads to `first` while it runs, else to `second`."""
    return first.dsn(**role).replace(f":{first.port}/", f":{first.port},127.0.0.1:{second.port}/")


READS = {
    "fetch": lambda source, facts: source.fetch(spec(), facts, [Wanted("1", 0)]),
    "sweep": lambda source, facts: sweep_all(source, spec(), facts),
    "scan": lambda source, facts: scan_all(source, spec(), facts),
    "writers": lambda source, facts: source.writers_before(CUTOFF_US),
    "server": lambda source, facts: source.server(),
}


@pytest.fixture(scope="module")
def other():
    """Another server, where the table is empty."""
    with EmbeddedPostgres() as server:
        server.sql(f"{TABLE} {ROLE}")
        yield server


@pytest.mark.parametrize("name", READS)
async def test_a_reconnect_that_reaches_another_server_is_refused_again_and_again(name, primary, other):
    primary.sql(ROLE)
    dsn = either(primary, other, user="everywhere", password="same")
    async with Opening(dsn)(give_up_after=30, connections=2) as source:
        facts = await source.describe(spec())
        began = (await source.server()).system_identifier
        if name != "fetch":
            await source.fetch(spec(), facts, [Wanted("1", 0)])
        primary.kill()
        found = None
        for _ in range(3):
            # The first statement after the loss may fail with the connection that it was sent on.
            try:
                found = await READS[name](source, facts)
            except Failure:
                continue
            except RefusedError as error:
                refusal = error
        assert found is None
    now = other.sql("select system_identifier from pg_control_system()")
    assert refusal.exit_code == ExitCode.REFUSED
    assert f"is another server (system identifier {now}) than this session began with ({began})" in str(
        refusal
    )
    assert "--accept-source" in refusal.hint


async def test_a_reconnect_that_reaches_the_primary_instead_of_its_standby_is_refused(primary, standby):
    async with Opening(either(standby, primary))(give_up_after=30) as source:
        facts = await source.describe(spec())
        standby.kill()
        with pytest.raises(RefusedError, match="is a primary; this session began with a standby"):
            await sweep_all(source, spec(), facts)


async def test_a_new_connection_to_a_promoted_standby_is_refused(primary, standby):
    async with Opening(standby.dsn())(connections=2) as source:
        facts = await source.describe(spec())
        standby.sql("select pg_promote()")
        with pytest.raises(RefusedError, match="is on timeline 2; this session began on timeline 1"):
            await source.fetch(spec(), facts, [Wanted("1", 0)])
