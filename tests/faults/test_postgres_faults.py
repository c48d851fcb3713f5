"""PostgreSQL dies, throws its clients out, fails over, or insists on TLS, while the daemon plans and copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from daemon.demo.postgres import EmbeddedPostgres
from tests.faults.counting_proxy import CountingProxy
from tests.faults.fault_proxy import Fault, FaultProxy, Kind
from tests.faults.waiting import eventually
from tests.faults.watched import Watched
from tests.faults.worlds import Table, World, is_row
from tests.s3_servers import S3Server

ROWS = 600
COPIED = 10
"""Keys 490 to 499 of a tail that a standby lacks, among the first that are driven."""
CONCURRENCY = 4
TERMINATE = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
    " where datname = current_database() and application_name like 'backfillctl%'"
)


def test_a_postgres_killed_while_planned_and_while_copied_from_is_waited_out(
    fragile: World, proxy: CountingProxy, disposable_postgres: EmbeddedPostgres
) -> None:
    fragile.fill(fragile.tables[0], ROWS)
    fragile.sql("checkpoint")
    fragile.upload = {"concurrency": CONCURRENCY}
    watched = Watched.of(fragile, concurrency=CONCURRENCY)
    proxy.hold(is_row)
    with fragile.daemon() as daemon:
        for kind in ("session_started", "pass_begun"):
            fragile.until_recorded(daemon, kind)
            disposable_postgres.kill()
            disposable_postgres.start()
        fragile.until_held(daemon, CONCURRENCY)
        disposable_postgres.kill()
        proxy.release()
        eventually(lambda: "fetch of" in daemon.output(), "a failed fetch")
        disposable_postgres.start()
        assert daemon.exit_code() == 0
    watched.check_end()


def test_backends_terminated_again_and_again_while_planning_cost_only_time(world: World) -> None:
    world.sql(
        "create function public.napped() returns boolean language sql volatile"
        " as $$ select pg_sleep(0.001) is not null $$"
    )
    world.tables = [Table("rows", where="public.napped()")]
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": CONCURRENCY}
    watched = Watched.of(world, concurrency=CONCURRENCY)
    with world.daemon() as daemon:
        world.until_recorded(daemon, "pass_begun")
        for _ in range(5):
            eventually(lambda: int(world.sql(TERMINATE)), "a backend to terminate")
        assert daemon.exit_code() == 0
    watched.check_end()


def test_backends_terminated_again_and_again_while_copying_cost_only_time(
    world: World, proxy: CountingProxy
) -> None:
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": CONCURRENCY}
    watched = Watched.of(world, concurrency=CONCURRENCY)
    proxy.hold(is_row)
    terminated = 0
    with world.daemon() as daemon:
        for _ in range(5):
            world.until_held(daemon, CONCURRENCY)
            terminated += int(world.sql(TERMINATE))
            settled = len(world.ledger().outcomes)
            proxy.release()
            world.until_settled(daemon, settled + 20)
            proxy.hold(is_row)
        proxy.release()
        assert daemon.exit_code() == 0
    assert terminated > 2
    watched.check_end()


@pytest.fixture
def primary() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
def standby(primary: EmbeddedPostgres) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(standby_of=primary) as server:
        yield server


@pytest.fixture
def pair(
    primary: EmbeddedPostgres, standby: EmbeddedPostgres, weed: S3Server, proxy: CountingProxy, tmp_path: Path
) -> World:
    """A table on both, and a DSN that leads to whichever may be written to."""
    hosts = f":{primary.port},127.0.0.1:{standby.port}/"
    dsn = f"{primary.dsn().replace(f':{primary.port}/', hosts)}?target_session_attrs=read-write"
    world = World(tmp_path, dsn, primary.sql, weed, [Table("rows")], proxy=proxy)
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": CONCURRENCY}
    return world


def fail_over(world: World, primary: EmbeddedPostgres, standby: EmbeddedPostgres) -> None:
    primary.kill()
    if not standby.running:
        standby.start()
    standby.sql("select pg_promote()")
    world.sql = standby.sql


def assert_demands_acceptance(world: World) -> None:
    refused = world.command("run")
    assert refused.returncode == 2
    assert "timeline" in refused.stderr
    assert "--accept-source" in refused.stderr


def test_a_failover_to_a_standby_with_everything_is_refused_until_accepted_and_then_loses_nothing(
    pair: World, proxy: CountingProxy, primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    watched = Watched.of(pair, concurrency=CONCURRENCY)
    proxy.hold(is_row)
    with pair.daemon() as daemon:
        pair.until_held(daemon, CONCURRENCY)
        written = primary.sql("select pg_current_wal_flush_lsn()")
        eventually(
            lambda: standby.sql(f"select pg_last_wal_replay_lsn() >= '{written}'::pg_lsn") == "t",
            "the standby has all",
        )
        fail_over(pair, primary, standby)
        proxy.release()
        assert daemon.exit_code() == 6
        told = daemon.output()
    assert "is on timeline 2; this session began on timeline 1" in told
    assert "--accept-source" in told
    assert not watched.check().in_flight
    assert_demands_acceptance(pair)
    with pair.daemon("--accept-source") as daemon:
        assert daemon.exit_code() == 0
    watched.check_end()


def test_a_failover_to_a_standby_without_the_newest_rows_keeps_what_was_copied_and_calls_the_rest_vanished(
    pair: World, proxy: CountingProxy, primary: EmbeddedPostgres, standby: EmbeddedPostgres
) -> None:
    kept = set(pair.rows(pair.tables[0]))
    written = primary.sql("select pg_current_wal_flush_lsn()")
    eventually(
        lambda: standby.sql(f"select pg_last_wal_replay_lsn() >= '{written}'::pg_lsn") == "t",
        "the standby has all",
    )
    standby.stop()
    pair.sql(
        "insert into rows select 'tail' || n, timestamptz '2024-06-01 12:00Z' + n * interval '1 s', 'x'::bytea"
        " from generate_series(1, 500) n"
    )
    # One to plan, one to fetch: uploads are in the plan's order, so what is let through comes before what is held.
    pair.postgres = {"connections": 2}
    watched = Watched.of(pair, concurrency=CONCURRENCY)
    proxy.hold(lambda key: is_row(key) and "/tail49" not in key)
    with pair.daemon() as daemon:
        pair.until_held(daemon, CONCURRENCY)
        pair.until_settled(daemon, COPIED)
        fail_over(pair, primary, standby)
        proxy.release()
        assert daemon.exit_code() == 6
    watched.check()
    assert_demands_acceptance(pair)
    with pair.daemon("--accept-source") as daemon:
        assert daemon.exit_code() == 0
    ledger = watched.check()
    codes = {key: Counter[str]() for key in ("kept", "tail")}
    for ordinal, outcome in ledger.outcomes.items():
        codes["kept" if ledger.plan[ordinal].row_key in kept else "tail"][outcome.code] += 1
    assert codes["kept"].keys() <= set("SRP")
    assert codes["kept"].total() == len(kept)
    assert codes["tail"].keys() <= set("SRPV")
    assert codes["tail"]["S"] >= COPIED
    assert codes["tail"]["V"] > 0
    assert codes["tail"].total() == 500
    assert ledger.closed == {"rows"}


READER = "reader"
PASSWORD = "tls-canary-91c4"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls_server(debian_binaries: Path, authority: trustme.CA) -> Iterator[EmbeddedPostgres]:
    """A server that lets nobody in without TLS, and tells in its log who came in."""
    certificate = authority.issue_cert("127.0.0.1")
    files = {
        "server.key": certificate.private_key_pem.bytes(),
        "server.crt": b"".join(blob.bytes() for blob in certificate.cert_chain_pems),
        "pg_hba.conf": b"hostssl all all 127.0.0.1/32 scram-sha-256\n",
    }
    settings = {"ssl": "on", "log_connections": "on"}
    with EmbeddedPostgres(binaries=debian_binaries, settings=settings, files=files) as server:
        yield server


@pytest.fixture
def strict(
    tls_server: EmbeddedPostgres, authority: trustme.CA, weed: S3Server, proxy: CountingProxy, tmp_path: Path
) -> Iterator[World]:
    """A migration whose role and password only TLS may carry; `roots.pem` is the right authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "roots.pem"))
    world = World(
        tmp_path,
        f"{tls_server.dsn(user=READER, password=PASSWORD)}?sslmode=verify-full&sslrootcert={tmp_path}/roots.pem",
        tls_server.sql,
        weed,
        [Table("rows")],
        proxy=proxy,
    )
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": CONCURRENCY}
    world.sql(f"create role {READER} login password '{PASSWORD}'; grant select on rows to {READER}")
    yield world
    world.sql(f"drop owned by {READER}; drop role {READER}; drop table rows")


def assert_refused(world: World, server: EmbeddedPostgres, problem: str, hint: str) -> None:
    """Nothing is written, and the server has not even heard who wanted to come in."""
    logged = server.log.stat().st_size
    done = world.command("run")
    assert done.returncode == 6, done.stderr
    assert problem in done.stderr
    assert hint in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert not world.journal.exists()
    assert world.objects() == {}
    with server.log.open("rb") as log:
        log.seek(logged)
        said = log.read().decode()
    assert "authenticated" not in said
    assert "authorized" not in said


def test_a_server_of_an_unknown_authority_is_refused_before_the_password_is_sent(
    strict: World, tls_server: EmbeddedPostgres
) -> None:
    trustme.CA().cert_pem.write_to_path(str(strict.directory / "roots.pem"))
    assert_refused(strict, tls_server, "TLS failed", "sslrootcert")


def test_a_client_that_declines_tls_is_refused_before_the_password_is_sent(
    strict: World, tls_server: EmbeddedPostgres
) -> None:
    strict.dsn = f"{tls_server.dsn(user=READER, password=PASSWORD)}?sslmode=disable"
    assert_refused(strict, tls_server, "no encryption", "pg_hba.conf")


def test_under_tls_every_flipped_bit_is_seen_and_everything_arrives(
    strict: World, tls_server: EmbeddedPostgres
) -> None:
    watched = Watched.of(strict, concurrency=CONCURRENCY)
    with FaultProxy(tls_server.port) as network:
        strict.dsn = strict.dsn.replace(f":{tls_server.port}/", f":{network.port}/")
        with strict.daemon() as daemon:
            strict.until_recorded(daemon, "session_started")
            network.strike(*[Fault(Kind.FLIP, after=after, amount=0x10) for after in (10, 1_000)])
            assert daemon.exit_code() == 0
        assert network.struck
    watched.check_end()
