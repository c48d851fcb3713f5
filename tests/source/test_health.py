from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import trio

from daemon.causes import Cause
from daemon.config import ThrottleConfig
from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.processes import ChildProcess
from daemon.errors import BackfillError, ConfigError, RefusedError
from tests.source.sources import TABLE, Opening, scan_all, spec

EVERYTHING = ThrottleConfig(replica_lag=10, active_sessions=5, query="select 1", query_threshold=3)
SLEEPING = "select count(*) from pg_stat_activity where query like 'select pg_sleep(%' and state = 'active'"


@pytest.fixture(scope="module")
def primary():
    with EmbeddedPostgres() as server:
        server.sql(TABLE)
        yield server


@pytest.fixture(scope="module")
def standby(primary):
    with EmbeddedPostgres(standby_of=primary) as server:
        yield server


def asking(query, **settings):
    return ThrottleConfig(query=query, query_threshold=0, **settings)


async def read(dsn, throttle, cause):
    async with Opening(dsn)(throttle=throttle) as source:
        return (await source.health(throttle)).readings[cause]


async def until(condition):
    with trio.fail_after(30):
        while not await condition():
            await trio.lowlevel.checkpoint()


@asynccontextmanager
async def at_work(server, sessions):
    """Keep some sessions busy while the block runs."""

    def work():
        with suppress(BackfillError):  # it is terminated
            server.sql("select pg_sleep(60)")

    async def busy():
        return server.sql(SLEEPING) == str(sessions)

    async with trio.open_nursery() as nursery:
        for _ in range(sessions):
            nursery.start_soon(trio.to_thread.run_sync, work)
        try:
            await until(busy)
            yield
        finally:
            server.sql(f"select pg_terminate_backend(pid) {SLEEPING.partition('count(*)')[2]}")


async def test_only_what_is_asked_for_is_read(database):
    throttle = ThrottleConfig(active_sessions=5)
    async with Opening(database.dsn)(throttle=throttle) as source:
        health = await source.health(throttle)
    assert set(health.readings) == {Cause.ACTIVE_SESSIONS}
    assert health.silence == ""


async def test_a_primary_without_standby_has_no_lag_and_says_so(database):
    reading = await read(database.dsn, EVERYTHING, Cause.REPLICA_LAG)
    assert (reading.value, reading.note) == (0.0, "no standby is connected")


async def test_a_paused_replay_shows_as_growing_lag_on_the_standby_and_on_its_primary(primary, standby):
    throttle = ThrottleConfig(replica_lag=10)
    async with (
        Opening(primary.dsn())(throttle=throttle) as above,
        Opening(standby.dsn())(throttle=throttle) as below,
    ):

        async def lags():
            primary.sql("insert into t select gen_random_uuid()::text, now(), ''")
            health = [
                (await source.health(throttle)).readings[Cause.REPLICA_LAG] for source in (above, below)
            ]
            return [reading.value for reading in health]

        async def both_lag():
            return min(await lags()) > 0.5

        async def neither_lags():
            healths = [await source.health(throttle) for source in (above, below)]
            return max(health.readings[Cause.REPLICA_LAG].value for health in healths) < 0.5

        async def replayed_since_its_start():
            await lags()
            return standby.sql("select pg_last_xact_replay_timestamp() is not null") == "t"

        await until(replayed_since_its_start)
        await until(neither_lags)
        standby.sql("select pg_wal_replay_pause()")
        try:
            await until(both_lag)
        finally:
            standby.sql("select pg_wal_replay_resume()")
        await until(neither_lags)


async def test_what_receives_wal_without_replaying_it_is_no_standby(primary, tmp_path):
    throttle = ThrottleConfig(replica_lag=10)
    receiver = ChildProcess(
        [str(primary.psql.with_name("pg_receivewal")), "--status-interval=1", "-D", str(tmp_path)],
        log=tmp_path / "receiver.log",
        env=primary.client_environment(),
    )

    async def seems_to_lag():
        primary.sql("insert into t values (gen_random_uuid()::text, now(), '')")
        lagging = "replay_lag > '0.3 s' and application_name = 'pg_receivewal'"
        return primary.sql(f"select count(*) from pg_stat_replication where {lagging}") == "1"

    try:
        await until(seems_to_lag)
        async with Opening(primary.dsn())(throttle=throttle) as source:

            async def no_lag_is_read():
                return (await source.health(throttle)).readings[Cause.REPLICA_LAG].value < 0.3

            await until(no_lag_is_read)
    finally:
        receiver.kill()


async def test_an_idle_primary_is_no_lag_of_its_standby(primary, standby):
    throttle = ThrottleConfig(replica_lag=10)
    primary.sql("insert into t values (gen_random_uuid()::text, now(), '')")

    async def old():
        return standby.sql("select clock_timestamp() - pg_last_xact_replay_timestamp() > '0.3 s'") == "t"

    await until(old)
    assert (await read(standby.dsn(), throttle, Cause.REPLICA_LAG)).value == 0.0


async def test_our_own_sessions_at_work_do_not_count(database):
    database.sql(f"{TABLE} create view slow as select id, created_at, data from t, pg_sleep(60)")
    database.sql("insert into t values ('1', '2020-01-01', '')")
    throttle = ThrottleConfig(active_sessions=5)
    ours = "application_name = 'backfillctl test' and state = 'active' and query ~ 'slow'"

    async def busy():
        return database.sql(f"select count(*) from pg_stat_activity where {ours}") == "1"

    async with Opening(database.dsn)(throttle=throttle) as source:
        facts = await source.describe(spec("slow"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scan_all, source, spec("slow"), facts)
            await until(busy)
            reading = (await source.health(throttle)).readings[Cause.ACTIVE_SESSIONS]
            nursery.cancel_scope.cancel()
    assert reading.value == 0.0


async def test_sessions_of_others_at_work_are_counted(primary):
    throttle = ThrottleConfig(active_sessions=5)
    async with Opening(primary.dsn())(throttle=throttle) as source:
        facts = await source.describe(spec())
        before = (await source.health(throttle)).readings[Cause.ACTIVE_SESSIONS].value
        async with source.scan(spec(), facts, cutoff_us=0), at_work(primary, 3):
            during = (await source.health(throttle)).readings[Cause.ACTIVE_SESSIONS].value
    assert (before, during) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("select 3", 3.0),
        ("select 2.5::numeric -- a comment", 2.5),
        ("select -1::bigint", -1.0),
        ("select 0.25::real", 0.25),
        ("select count(*) from (values (1), (2)) as v", 2.0),
        ("with v as (select 7 as n) select n from v", 7.0),
        ("values (4)", 4.0),
    ],
)
async def test_a_query_of_one_row_and_one_number_is_a_reading(database, query, value):
    reading = await read(database.dsn, asking(query), Cause.QUERY)
    assert (reading.value, reading.problem) == (value, "")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("select 1 where false", "it returned no row"),
        ("select null::int", "it returned NULL"),
        ("select 'nan'::float8", "it returned NaN"),
        ("select generate_series(1, 1000000000)", "it returned more than one row"),
        ("select 1/0", "DivisionByZeroError (SQLSTATE 22012)"),
        ("select 1 from pg_sleep(60)", "canceling statement due to statement timeout"),
    ],
)
async def test_a_query_that_may_do_better_later_is_a_reading_without_value(database, query, problem):
    reading = await read(database.dsn, asking(query, reading_timeout=0.5), Cause.QUERY)
    assert reading.value is None
    assert problem in reading.problem
    assert reading.error is None


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("selec 1", "syntax error at or near"),
        ("select 1; select 2", "syntax error"),
        ("select count(*) from public.none", 'relation "public.none" does not exist'),
        ("select count(*) from t", 'relation "t" does not exist'),
        ("select 1, 2", "it returned 2 columns; expected one"),
        ("select 'many'", "it returned a value of type str; expected a number"),
        ("select true", "it returned a value of type bool; expected a number"),
        ("select nextval('public.s')", "cannot execute nextval() in a read-only transaction"),
    ],
)
async def test_a_query_that_can_never_do_is_told_with_what_to_correct(database, query, problem):
    database.sql("create table public.t (); create sequence public.s")
    reading = await read(database.dsn, asking(query), Cause.QUERY)
    assert isinstance(reading.error, ConfigError)
    assert reading.problem.startswith("throttle.query: ")
    assert problem in reading.problem
    assert "throttle.query" in reading.error.hint or "select one number" in reading.error.hint


async def test_missing_rights_are_told_reading_by_reading(database):
    role = f"blind_{database.name}"
    database.sql(f"create role {role} login password 'x'; create table public.q (n int)")
    throttle = ThrottleConfig(
        replica_lag=10, active_sessions=5, query="select max(n) from public.q", query_threshold=3
    )
    async with Opening(database.dsn_of(role, "x"))(throttle=throttle) as source:
        before = (await source.health(throttle)).readings
        database.sql(f"grant pg_read_all_stats to {role}; grant select on public.q to {role}")
        after = (await source.health(throttle)).readings
    assert all(isinstance(reading.error, RefusedError) for reading in before.values())
    assert "GRANT pg_read_all_stats" in before[Cause.ACTIVE_SESSIONS].error.hint
    assert "permission denied for table q" in before[Cause.QUERY].problem
    assert [reading.error for reading in after.values()] == [None, None, None]
    database.sql(f"drop owned by {role}; drop role {role}")


async def test_readings_have_one_of_the_connections_and_open_it_only_when_asked(database):
    ours = (
        f"select count(*) from pg_stat_activity where datname = '{database.name}'"
        " and application_name ~ 'test'"
    )
    async with Opening(database.dsn)(throttle=EVERYTHING, connections=3) as source:
        before = int(database.sql(ours))
        await source.health(EVERYTHING)
        after = int(database.sql(ours))
        assert len(source._fetching) == 1
    assert after == before + 1


async def test_a_lost_connection_is_silence_and_the_next_round_reads_again(primary):
    async with Opening(primary.dsn())(throttle=EVERYTHING) as source:
        await source.health(EVERYTHING)
        primary.stop()
        down = await source.health(EVERYTHING)
        primary.start()
        await until(lambda: _answers(source))
    assert down.silence
    assert {reading.value for reading in down.readings.values()} == {None}


async def _answers(source):
    return not (await source.health(EVERYTHING)).silence


async def test_a_server_that_hangs_ends_neither_a_reading_late_nor_a_cancellation(primary):
    throttle = ThrottleConfig(active_sessions=5, reading_timeout=0.1)
    async with Opening(primary.dsn())(throttle=throttle) as source:
        await source.health(throttle)
        primary.freeze()
        try:
            with trio.fail_after(2):
                with trio.move_on_after(0.5) as scope:
                    await source.health(throttle)
                assert scope.cancelled_caught
        finally:
            primary.thaw()

        async def reads():
            return (await source.health(throttle)).readings[Cause.ACTIVE_SESSIONS].value is not None

        await until(reads)
