"""A source that says it has enough: the daemon stops reading it, says why, and goes on when it may."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.runtime import wall_clock_us
from tests.faults.waiting import eventually
from tests.faults.worlds import Daemon, Table, World
from tests.s3_servers import S3Server

ROWS = 1500
QUICK = {"check_interval": 0.1, "rows_per_second": 150}
"""Slow enough to be caught in the middle of copying."""
BEHIND = "select clock_timestamp() - pg_last_xact_replay_timestamp() > '6 s'"
IN_HAND_MAX = 2 * 4 + 3 * 64
"""Rows that were fetched, or being fetched, when it was told to stop: what uploaders and fetchers hold."""


@pytest.fixture
def standby(disposable_postgres: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(standby_of=disposable_postgres) as server:
        yield server


@pytest.fixture
def following(
    disposable_postgres: EmbeddedPostgres, standby: EmbeddedPostgres, weed: S3Server, tmp_path: Path
) -> World:
    """A world whose daemon reads a standby."""
    return World(tmp_path, standby.dsn(), disposable_postgres.sql, weed, [Table("rows")])


def until_throttled(world: World, daemon: Daemon, cause: str) -> str:
    """Wait until the journal says so; return the detail."""
    details: list[str] = []

    def throttled() -> bool:
        assert daemon.running(), f"ended before it was throttled:\n{daemon.output()}"
        found = [
            data["detail"] for _, data in world.ledger().of_kind("throttle_began") if data["cause"] == cause
        ]
        details[:] = found[-1:]
        return bool(found)

    eventually(throttled, f"throttled by {cause}")
    return details[0]


def while_throttled(world: World, cause: str, kind: str, *, until_us: int) -> list[Any]:
    """The data of the events of `kind` from the newest beginning of a slow-down by `cause` before `until_us` on."""
    events = [event for event in world.ledger().events if event[1] <= until_us]
    begun = max(
        seq for seq, _, event, _, data in events if event == "throttle_began" and data["cause"] == cause
    )
    return [data for seq, _, event, _, data in events if event == kind and seq > begun]


def test_a_standby_that_falls_behind_stops_the_reads_until_it_has_caught_up(
    following: World, standby: EmbeddedPostgres
) -> None:
    following.fill(following.tables[0], ROWS)
    eventually(
        lambda: standby.sql("select to_regclass('public.rows') is not null") == "t", "the table is replicated"
    )
    eventually(
        lambda: standby.sql("select count(*) from public.rows") == str(ROWS), "its rows are replicated"
    )
    following.upload = {"concurrency": 4}
    following.throttle = {"replica_lag": "1s", **QUICK}
    with following.daemon() as daemon:
        following.until_settled(daemon, 50)
        standby.sql("select pg_wal_replay_pause()")
        following.sql("create table public.later ()")
        detail = until_throttled(following, daemon, "replica_lag")
        # As long as this takes, everything left would be copied if nothing held it.
        eventually(lambda: standby.sql(BEHIND) == "t", "the standby is behind for longer than copying takes")
        status = following.status()
        until_us = wall_clock_us()
        standby.sql("select pg_wal_replay_resume()")
        assert daemon.exit_code() == 0
    assert detail.startswith("replica lag ")
    assert detail.endswith(", above 1 s")
    uploaded = while_throttled(following, "replica_lag", "outcomes_recorded", until_us=until_us)
    assert sum(len(data) for data in uploaded) <= IN_HAND_MAX
    assert "replica_lag" in str(status)
    assert while_throttled(following, "replica_lag", "keys_claimed", until_us=until_us) == []
    ended = [
        data for _, data in following.ledger().of_kind("throttle_ended") if data["cause"] == "replica_lag"
    ]
    assert ended
    assert sum(data["ms"] for data in ended) > 0
    following.assert_copied()


def test_a_query_above_its_threshold_throttles_and_so_does_one_that_fails_in_mid_run(world: World) -> None:
    world.fill(world.tables[0], ROWS)
    world.sql("create table public.queue (n int)")
    world.throttle = {"query": "select count(*) from public.queue", "query_threshold": 0, **QUICK}
    with world.daemon() as daemon:
        world.until_settled(daemon, 50)
        world.sql("insert into public.queue values (1)")
        first = until_throttled(world, daemon, "query")
        world.sql("delete from public.queue")
        eventually(
            lambda: "query" in {data["cause"] for _, data in world.ledger().of_kind("throttle_ended")},
            "the query no longer throttles",
        )
        world.sql("alter table public.queue rename to away")
        eventually(
            lambda: "could not be read" in until_throttled(world, daemon, "query"), "the failure is shown"
        )
        second = until_throttled(world, daemon, "query")
        until_us = wall_clock_us()
        world.sql("alter table public.away rename to queue")
        assert daemon.exit_code() == 0
    assert first == "throttle.query 1, above 0"
    assert 'relation "public.queue" does not exist' in second
    assert while_throttled(world, "query", "keys_claimed", until_us=until_us) == []
    world.assert_copied()


def test_a_threshold_that_a_reload_raises_lets_a_throttled_daemon_go_on(world: World) -> None:
    world.fill(world.tables[0], ROWS)
    world.sql("create table public.queue (n int)")
    limits = {"query_hibernate": 0.5, "hibernate": "1h", **QUICK}
    world.throttle = {"query": "select count(*) from public.queue", "query_threshold": 0, **limits}
    with world.daemon() as daemon:
        world.until_settled(daemon, 50)
        world.sql("insert into public.queue values (1)")
        detail = until_throttled(world, daemon, "hibernation")
        world.throttle |= {"query_threshold": 5, "query_hibernate": 10, "rows_per_second": 100_000}
        world.configure()
        daemon.send(signal.SIGHUP)
        assert daemon.exit_code() == 0
    assert detail == "throttle.query 1, above 0.5"
    world.assert_copied()


def test_a_throttled_daemon_drains_at_once(world: World) -> None:
    world.fill(world.tables[0], ROWS)
    world.sql("create table public.queue (n int)")
    world.throttle = {"query": "select count(*) from public.queue", "query_threshold": 0, **QUICK}
    with world.daemon() as daemon:
        world.until_settled(daemon, 50)
        world.sql("insert into public.queue values (1)")
        until_throttled(world, daemon, "query")
        daemon.send(signal.SIGTERM)
        assert daemon.exit_code(5) == 143
    assert world.ledger().in_flight == set()


@pytest.mark.parametrize(
    ("query", "code", "problem"),
    [
        ("selec 1", 2, "throttle.query: measure from PostgreSQL"),
        ("select 1, 2", 2, "throttle.query: it returned 2 columns"),
    ],
)
def test_a_query_that_can_never_do_is_refused_before_anything_is_touched(
    world: World, query: str, code: int, problem: str
) -> None:
    world.fill(world.tables[0], 10)
    world.throttle = {"query": query, "query_threshold": 0}
    with world.daemon() as daemon:
        assert daemon.exit_code() == code
        assert problem in daemon.output()
        assert "hint:" in daemon.output()
    assert not world.journal.exists()
    assert world.objects() == {}
