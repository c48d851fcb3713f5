from __future__ import annotations

import logging
import socket
import threading
from functools import partial

import pytest
import trio
import trio.testing

from daemon.demo.postgres import EmbeddedPostgres
from daemon.errors import RefusedError, SourceUnfitError, UnreachableError
from daemon.retrying import Failure, FailureClass
from daemon.rows import Wanted
from tests.source.sources import CUTOFF_US, TABLE, Opening, scan_all, spec, sweep_all

ROWS = TABLE + "insert into t select i::text, '2020-01-01', '' from generate_series(1, 12000) i;"
WANTED = [Wanted(str(i), 0) for i in range(1, 65)]


@pytest.fixture(scope="module")
def own_server():
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
def own_database(own_server):
    """A server to freeze, kill and stop; the next test finds it running."""
    own_server.sql("drop table if exists t; " + ROWS)
    yield own_server
    if own_server.running:
        own_server.thaw()
    else:
        own_server.start()


def end_backends(database, name="backfillctl test"):
    """End every session of ours and wait until the server has none left."""
    return database.sql(
        f"select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where application_name = '{name}'"
    )


STATEMENTS = {
    "fetch": lambda source, facts: source.fetch(spec(), facts, WANTED),
    "sweep": lambda source, facts: sweep_all(source, spec(), facts),
    "scan": lambda source, facts: scan_all(source, spec(), facts),
    "describe": lambda source, facts: source.describe(spec()),
    "writers": lambda source, facts: source.writers_before(CUTOFF_US),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_frozen_server_does_not_delay_a_cancellation(name, own_database, caplog):
    try:
        with trio.fail_after(10):
            async with Opening(own_database.dsn())(give_up_after=900) as source:
                facts = await source.describe(spec())
                own_database.freeze()
                begun = trio.current_time()
                with trio.move_on_after(0.2) as scope:
                    await STATEMENTS[name](source, facts)
        assert scope.cancelled_caught
        assert trio.current_time() - begun < 4
    finally:
        own_database.thaw()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_frozen_server_does_not_delay_leaving_an_open_scan(own_database):
    try:
        with trio.fail_after(10):
            async with Opening(own_database.dsn())() as source:
                facts = await source.describe(spec())
                with trio.move_on_after(0.2) as scope:
                    async with source.scan(spec(), facts, cutoff_us=CUTOFF_US) as batches:
                        await anext(batches)
                        own_database.freeze()
                        begun = trio.current_time()
                        async for _ in batches:
                            pass
        assert scope.cancelled_caught
        assert trio.current_time() - begun < 4
    finally:
        own_database.thaw()


async def test_a_cancelled_statement_leaves_no_connection_in_doubt(own_database):
    async with Opening(own_database.dsn())(connections=2) as source:
        facts = await source.describe(spec())
        await source.fetch(spec(), facts, WANTED)
        (session,) = source._fetching
        assert "open" in repr(session)
        own_database.freeze()
        with trio.move_on_after(0.1):
            await source.fetch(spec(), facts, WANTED)
        assert "closed" in repr(session)


async def test_connecting_to_a_frozen_server_can_be_cancelled(own_database):
    own_database.freeze()
    try:
        with trio.fail_after(3), trio.move_on_after(0.2) as scope:
            async with Opening(own_database.dsn())():
                pass
        assert scope.cancelled_caught
    finally:
        own_database.thaw()


async def test_name_resolution_that_hangs_does_not_delay_a_cancellation(monkeypatch):
    hanging, released = threading.Event(), threading.Event()

    def getaddrinfo(*arguments, **options):
        hanging.set()
        released.wait(30)
        raise socket.gaierror("released")

    async def open_it():
        async with Opening("postgresql://reader@db.invalid/app")():
            pass

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(open_it)
                assert await trio.to_thread.run_sync(hanging.wait, 4)
                nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
    finally:
        released.set()


async def test_a_source_serves_again_after_a_cancellation(own_database):
    async with Opening(own_database.dsn())(connections=2) as source:
        facts = await source.describe(spec())
        own_database.freeze()
        with trio.move_on_after(0.1):
            await source.fetch(spec(), facts, WANTED)
        own_database.thaw()
        assert len(await source.fetch(spec(), facts, WANTED)) == 64


async def test_silence_is_a_timeout_without_an_answer(own_database, monkeypatch):
    monkeypatch.setattr("daemon.source.COMMAND_GRACE_SECONDS", 0.2)
    async with Opening(own_database.dsn())(statement_timeout=1.0) as source:
        facts = await source.describe(spec())
        assert await source.fetch(spec(), facts, WANTED)
        own_database.freeze()
        try:
            with pytest.raises(Failure) as caught:
                await source.fetch(spec(), facts, WANTED)
        finally:
            own_database.thaw()
    assert (caught.value.kind, caught.value.operation) == (FailureClass.TIMEOUT, "FETCH")
    assert caught.value.answered is False


async def test_a_terminated_backend_is_a_lost_connection_and_the_next_fetch_opens_another(database, opening):
    database.sql(ROWS)
    async with opening() as source:
        facts = await source.describe(spec())
        await source.fetch(spec(), facts, WANTED)
        end_backends(database)
        with pytest.raises(Failure) as caught:
            await source.fetch(spec(), facts, WANTED)
        assert (caught.value.kind, caught.value.answered) == (FailureClass.CONNECTION, False)
        assert len(await source.fetch(spec(), facts, WANTED)) == 64


async def test_a_planning_read_survives_a_terminated_backend(database, opening):
    database.sql(ROWS)
    async with opening(give_up_after=30) as source:
        facts = await source.describe(spec())
        end_backends(database)
        ranges = await sweep_all(source, spec(), facts)
    assert sum(swept.seen for swept in ranges) == 12000


async def test_a_scan_loses_its_snapshot_with_its_backend(database, opening):
    database.sql(ROWS)
    async with opening(give_up_after=30) as source:
        facts = await source.describe(spec())
        with pytest.raises(Failure) as caught:
            await scan_all(source, spec(), facts, meanwhile=lambda: end_backends(database))
        assert (caught.value.kind, caught.value.operation) == (FailureClass.CONNECTION, "SCAN")
        assert (await scan_all(source, spec(), facts))[2] == 12000


async def test_a_planning_read_waits_out_a_restart_of_the_server(own_database):
    async with Opening(own_database.dsn())(give_up_after=30) as source:
        facts = await source.describe(spec())
        own_database.kill()
        async with trio.open_nursery() as nursery:
            results = []

            async def sweep():
                results.extend(await sweep_all(source, spec(), facts))

            nursery.start_soon(sweep)
            await trio.testing.wait_all_tasks_blocked()
            own_database.start()
        assert sum(swept.seen for swept in results) == 12000


async def test_a_server_that_stays_away_is_unreachable_after_give_up_after(own_database):
    async with Opening(own_database.dsn())(give_up_after=0.3) as source:
        facts = await source.describe(spec())
        own_database.stop()
        with pytest.raises(UnreachableError, match=r"given up after 0\.3 s"):
            await sweep_all(source, spec(), facts)
        with pytest.raises(Failure) as caught:
            await source.fetch(spec(), facts, WANTED)
    assert (caught.value.kind, caught.value.answered) == (FailureClass.CONNECTION, False)


async def test_a_range_that_times_out_is_read_in_halves(database, opening):
    database.sql(
        TABLE
        + "insert into t select i::text, '2020-01-01', repeat('x', 500)::bytea from generate_series(1, 300) i;"
        "create function slow(text) returns boolean language plpgsql as"
        " 'begin perform pg_catalog.pg_sleep(0.0002); return true; end'"
    )
    wanted = spec(where="public.slow(id)")
    async with opening(statement_timeout=0.15) as source:
        facts = await source.describe(wanted)
        relation = facts.relations[0]
        assert facts.blocks[relation] > 8
        swept = await source.sweep_range(
            wanted, facts, relation=relation, first_block=0, next_block=None, cutoff_us=CUTOFF_US
        )
    assert (len({row.row_key for row in swept.rows}), swept.seen) == (300, 300)
    assert (swept.first_block, swept.next_block) == (0, None)


async def test_a_fetch_that_times_out_is_read_in_halves_down_to_the_slow_key(database, opening):
    database.sql(
        "create table base (id text primary key, created_at timestamptz, data bytea, slow boolean);"
        "insert into base select i::text, '2020-01-01', 'x', i = 13 from generate_series(1, 64) i;"
        "create function drag(d bytea, slow boolean) returns bytea language plpgsql stable as"
        " 'begin if slow then perform pg_catalog.pg_sleep(60); end if; return d; end';"
        "create view t as select id, created_at, public.drag(data, slow) as data from base"
    )
    wanted = [Wanted(str(i), 1) for i in range(1, 65)]
    async with opening(statement_timeout=0.15) as source:
        facts = await source.describe(spec())
        with pytest.raises(Failure) as caught:
            await source.fetch(spec(), facts, wanted)
        assert (caught.value.kind, caught.value.answered, caught.value.code) == (
            FailureClass.TIMEOUT,
            True,
            "57014",
        )
        without = [key for key in wanted if key.row_key != "13"]
        assert len(await source.fetch(spec(), facts, without)) == 63


async def test_a_locked_table_is_waited_for_and_then_given_up(database, opening, postgres_server):
    database.sql(ROWS)
    lock = "begin; lock table t in access exclusive mode; select pg_sleep(60)"
    command = [postgres_server.psql, "--no-psqlrc", "-c", lock, database.name]
    async with opening(lock_timeout=0.05, give_up_after=0.2) as source, trio.open_nursery() as nursery:
        facts = await source.describe(spec())
        locking = partial(
            trio.run_process, command, env=postgres_server.client_environment(), capture_stdout=True
        )
        nursery.start_soon(locking)
        with trio.fail_after(10):
            while (
                database.sql("select count(*) from pg_locks where mode = 'AccessExclusiveLock' and granted")
                == "0"
            ):
                await trio.lowlevel.checkpoint()
        with pytest.raises(UnreachableError, match="lock timeout"):
            await sweep_all(source, spec(), facts)
        nursery.cancel_scope.cancel()


async def test_a_damaged_row_fails_alone_and_its_data_is_not_quoted(database, opening):
    database.sql(
        "create table base (id text primary key, created_at timestamptz, data text);"
        "insert into base values ('good', '2020-01-01', '41'), ('bad', '2020-01-01', 'canary');"
        "create view t as select id, created_at, decode(data, 'hex') as data from base"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        with pytest.raises(Failure) as caught:
            await source.fetch(spec(), facts, [Wanted("good", 1), Wanted("bad", 1)])
        assert (caught.value.kind, caught.value.answered) == (FailureClass.UNSUITABLE_VALUE, True)
        assert "canary" not in caught.value.message
        (row,) = await source.fetch(spec(), facts, [Wanted("good", 1)])
    assert row.value == b"A"


async def test_a_where_that_fails_on_a_row_names_no_data(database, opening):
    database.sql(
        "create table t (id text primary key, created_at timestamptz, data bytea); insert into t values ('canary', '2020-01-01', '')"
    )
    wanted = spec(where="id::int > 0")
    async with opening() as source:
        facts = await source.describe(wanted)
        for read in (sweep_all, scan_all):
            with pytest.raises(SourceUnfitError, match="InvalidTextRepresentation") as caught:
                await read(source, wanted, facts)
            assert "canary" not in str(caught.value)


async def test_a_right_or_column_lost_in_mid_run_ends_it(database, opening):
    database.sql(
        ROWS + f"create role {database.name}_r login password 'x'; grant select on t to {database.name}_r"
    )
    async with opening(database.dsn_of(f"{database.name}_r", "x")) as source:
        facts = await source.describe(spec())
        database.sql(f"revoke select on t from {database.name}_r")
        with pytest.raises(RefusedError, match="permission denied"):
            await source.fetch(spec(), facts, WANTED)
        database.sql(
            f"drop role if exists x; drop owned by {database.name}_r; drop role {database.name}_r; alter table t drop data"
        )
    async with opening() as source:
        with pytest.raises(SourceUnfitError, match=r"column t\.data does not exist"):
            await source.fetch(spec(), facts, WANTED)


async def test_two_rows_under_one_key_are_not_copied_by_chance(database, opening):
    database.sql(
        "create table t (id text, created_at timestamptz, data bytea); insert into t values ('a', now(), 'x'), ('a', now(), 'y')"
    )
    async with opening() as source:
        facts = await source.describe(spec())
        with pytest.raises(Failure, match="more than one row has this key"):
            await source.fetch(spec(), facts, [Wanted("a", 1)])


async def test_more_fetches_than_connections_wait_for_their_turn(database, opening):
    database.sql(ROWS)
    async with opening(connections=3) as source:
        facts = await source.describe(spec())
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(source.fetch, spec(), facts, WANTED)
        count = database.sql(
            "select count(*) from pg_stat_activity where application_name = 'backfillctl test'"
        )
    assert count == "3"


async def test_nothing_stays_connected_afterwards(database, opening):
    database.sql(ROWS)
    async with opening() as source:
        await source.fetch(spec(), await source.describe(spec()), WANTED)
    with trio.fail_after(5):
        while (
            database.sql("select count(*) from pg_stat_activity where application_name = 'backfillctl test'")
            != "0"
        ):
            await trio.lowlevel.checkpoint()


async def test_a_cancellation_from_outside_drops_every_connection_though_the_server_is_frozen(own_database):
    sessions = []
    try:
        with trio.fail_after(10), trio.CancelScope() as outer:
            async with Opening(own_database.dsn())(connections=6) as source:
                facts = await source.describe(spec())
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(source.fetch, spec(), facts, WANTED)
                sessions = [source._planning, *source._fetching]
                own_database.freeze()
                begun = trio.current_time()
                outer.cancel()
                await source.describe(spec())
        assert outer.cancelled_caught
        assert trio.current_time() - begun < 2.5
        assert all("closed" in repr(session) for session in sessions)
    finally:
        own_database.thaw()


async def test_leaving_a_frozen_server_takes_no_longer_for_many_connections(own_database):
    async with Opening(own_database.dsn())(connections=6) as source:
        facts = await source.describe(spec())
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(source.fetch, spec(), facts, WANTED)
        own_database.freeze()
        begun = trio.current_time()
    own_database.thaw()
    assert trio.current_time() - begun < 2.5


async def test_an_error_inside_the_block_leaves_it_as_it_was(opening):
    with pytest.raises(KeyError, match="mine"):
        async with opening():
            raise KeyError("mine")


async def test_a_session_whose_setup_failed_is_not_used_without_its_settings(database, opening):
    database.sql(ROWS)
    async with opening(connections=2) as source:
        facts = await source.describe(spec())
        (session,) = source._fetching
        sound = session._settings
        session._settings = {**sound, "lock_timeout": "never"}
        for _ in range(2):
            with pytest.raises(Failure, match="InvalidParameterValue"):
                await source.fetch(spec(), facts, WANTED)
            assert "closed" in repr(session)
        session._settings = sound
        assert len(await source.fetch(spec(), facts, WANTED)) == 64
        shown = await session.fetch("show default_transaction_read_only", operation="FETCH")
    assert shown[0][0] == "on"
