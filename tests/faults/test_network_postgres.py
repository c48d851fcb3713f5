"""A bad network before PostgreSQL, while planning and while copying: the daemon gets through or ends in time."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from tests.faults.counting_proxy import CountingProxy
from tests.faults.fault_proxy import Fault, FaultProxy, Kind, Way
from tests.faults.waiting import eventually
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import Daemon, World, is_row

ROWS = 600
CONCURRENCY = 4
EXIT_SECONDS_MAX = 25.0
"""`give_up_after`, and one statement that the driver waits 6 s for (1 s, and 5 s of grace), and a loaded machine."""
PLACES = (0, 1, 40, 300, 900, 2500)


@pytest.fixture
def network(postgres_server: EmbeddedPostgres) -> Iterator[FaultProxy]:
    with FaultProxy(postgres_server.port) as network:
        yield network


@pytest.fixture
def behind(world: World, network: FaultProxy, postgres_server: EmbeddedPostgres) -> World:
    world.fill(world.tables[0], ROWS)
    parameters = "sslmode=disable&connect_timeout=2"
    world.dsn = f"{world.dsn.replace(f':{postgres_server.port}/', f':{network.port}/')}?{parameters}"
    world.postgres = {"statement_timeout": "1s"}
    world.s3 = {"io_timeout": "2s"}
    world.upload = {"concurrency": CONCURRENCY}
    return world


def reach(moment: str, world: World, daemon: Daemon, proxy: CountingProxy) -> None:
    """Bring the daemon to where it plans, or where it copies, and keep it copying until the proxy is released."""
    proxy.hold(is_row)
    if moment == "planning":
        world.until_recorded(daemon, "session_started")
        return
    world.until_held(daemon, CONCURRENCY)


@pytest.mark.parametrize("moment", ["planning", "copying"])
@pytest.mark.parametrize("fault", ["requests cut", "answers cut", "answers lost"])
def test_connections_that_break_at_any_byte_are_opened_again(
    fault: str, moment: str, behind: World, network: FaultProxy, proxy: CountingProxy
) -> None:
    kind = Kind.LOSE if fault == "answers lost" else Kind.RESET
    way = Way.UP if fault == "requests cut" else Way.DOWN
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        reach(moment, behind, daemon, proxy)
        network.strike(*[Fault(kind, way, after) for after in PLACES])
        proxy.release()
        assert daemon.exit_code() == 0
    assert network.struck == len(PLACES)
    watched.check_end()


@pytest.mark.parametrize("moment", ["planning", "copying"])
def test_a_connection_that_falls_silent_is_given_up_and_opened_again(
    moment: str, behind: World, network: FaultProxy, proxy: CountingProxy
) -> None:
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        reach(moment, behind, daemon, proxy)
        network.strike(Fault(Kind.STALL, after=100))
        proxy.release()
        assert daemon.exit_code() == 0
    assert network.struck == 1
    watched.check_end()


def test_a_slow_network_only_takes_longer(behind: World, network: FaultProxy) -> None:
    network.strike(*[Fault(Kind.DELAY, amount=0.02)] * 2)
    network.strike_all(Fault(Kind.THROTTLE, amount=1_000_000))
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        assert daemon.exit_code() == 0
    assert network.struck > 2
    watched.check_end()
    assert not behind.ledger().of_kind("attempt_failed")


@pytest.mark.parametrize("moment", ["planning", "copying"])
@pytest.mark.parametrize("lasting", ["refuses", "silent"])
def test_a_network_that_stays_bad_ends_the_run_with_exit_5_in_time(
    lasting: str, moment: str, behind: World, network: FaultProxy, proxy: CountingProxy
) -> None:
    behind.upload |= {"give_up_after": "2s"}
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        reach(moment, behind, daemon, proxy)
        if lasting == "refuses":
            network.refuse()
        else:
            network.strike_all(Fault(Kind.STALL))
        proxy.release()
        assert daemon.exit_code(EXIT_SECONDS_MAX) == 5
    assert not watched.check().in_flight
    network.heal()
    run_to_the_end(watched)


def test_sigterm_ends_the_run_within_its_deadline_though_the_network_is_silent(
    behind: World, network: FaultProxy, proxy: CountingProxy
) -> None:
    behind.upload |= {"drain_deadline": "1s"}
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        reach("copying", behind, daemon, proxy)
        network.strike_all(Fault(Kind.STALL))
        proxy.release()
        eventually(lambda: network.struck, "a silent connection")
        daemon.send(signal.SIGTERM)
        assert daemon.exit_code(6.0) == 143
    assert not watched.check().in_flight
    network.heal()
    run_to_the_end(watched)


@pytest.mark.parametrize("way", list(Way), ids=lambda way: way.name)
@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_messages_with_flipped_bits_end_the_run_at_worst_and_leave_no_key_behind(
    mask: int, way: Way, behind: World, network: FaultProxy
) -> None:
    behind.upload |= {"give_up_after": "5s"}
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    for first in (150, 700, 1900):
        network.strike(*[Fault(Kind.FLIP, way, first, mask)])
        with behind.daemon() as daemon:
            # asyncpg can crash on bytes that are no answer; then this is one more death.
            code = daemon.exit_code(60.0)
        assert network.struck
        assert code in {0, 2, 3, 5, 6, -signal.SIGSEGV}, daemon.output()
        network.heal()
    with behind.daemon() as daemon:
        assert daemon.exit_code() == 0
    ledger = behind.ledger()
    settled = {ledger.plan[ordinal].row_key for ordinal in ledger.stored()}
    assert settled >= set(watched.rows["rows"])


@pytest.mark.parametrize("tier", ["source", "content"])
def test_a_bit_of_a_value_flipped_without_tls_is_not_seen_by_the_copy_but_by_verification_and_mended_by_repair(
    tier: str, behind: World, network: FaultProxy
) -> None:
    behind.sql("update public.rows set data = convert_to(repeat('v', 500000), 'UTF8') where id = '302-row'")
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    # Far behind all that a connection carries beside that value.
    network.strike_all(Fault(Kind.FLIP, after=400_000))
    with behind.daemon() as daemon:
        assert daemon.exit_code() == 0
    assert network.struck
    network.heal()
    ledger = behind.ledger()
    rows = watched.rows["rows"]
    wrong = [
        ledger.plan[ordinal].row_key
        for ordinal, outcome in ledger.stored().items()
        if outcome.md5 != rows[ledger.plan[ordinal].row_key].md5
    ]
    assert wrong == ["302-row"]
    verified = behind.command("verify", "--tier", tier, "--repair")
    assert verified.returncode == 4, verified.stderr
    assert "302-row" in verified.stdout + verified.stderr
    with behind.daemon() as daemon:
        assert daemon.exit_code() == 0
    there = {key: listed.etag for key, listed in behind.objects().items()}
    assert there == {behind.object_key("rows", key): row.md5 for key, row in rows.items()}
