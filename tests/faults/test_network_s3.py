"""A bad network before S3, in mid-run: the daemon gets through or ends in time, and nothing is told that is not so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from daemon.demo.seaweed import EmbeddedSeaweed
from tests.faults.counting_proxy import CountingProxy
from tests.faults.fault_proxy import Fault, FaultProxy, Kind, Way
from tests.faults.waiting import eventually
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import World, is_row
from tests.s3_servers import S3Server

ROWS = 300
CONCURRENCY = 4
BEGUN = 20
"""Settled keys after which the network turns bad."""
EXIT_SECONDS_MAX = 15.0
"""For `give_up_after`, one more `io_timeout`, the end itself, and a loaded machine."""
FLIPS = 12
"""At least so many strike. One in a signed header is answered 403, which halts a run: there may be one a run."""
PLACES = (0, 1, 17, 200, 500, 900, 1200, 1700, 2500, 5000)
"""A PUT of a small row takes about 900 bytes here, its answer 260."""


@pytest.fixture
def network(proxy: CountingProxy) -> Iterator[FaultProxy]:
    """Bad where it is told to be; behind it, all that reaches the server is counted."""
    with FaultProxy(proxy.port) as network:
        yield network


@pytest.fixture
def bare(weed: S3Server) -> Iterator[FaultProxy]:
    """The same, straight to the server: the counting proxy does not understand a garbled request."""
    with FaultProxy(weed.port) as network:
        yield network


@pytest.fixture
def behind(world: World, network: FaultProxy) -> World:
    world.fill(world.tables[0], ROWS)
    world.endpoint = network.endpoint
    # So many uploads at all times: each connection comes to the byte at which it is struck.
    world.upload = {"concurrency": CONCURRENCY, "adaptive": False}
    world.s3 = {"io_timeout": "20s", "connect_timeout": "20s"}
    return world


def failures(world: World) -> Counter[str]:
    return Counter(data["failure"] for _, data in world.ledger().of_kind("attempt_failed"))


def outcomes(world: World) -> Counter[str]:
    return Counter(outcome.code for outcome in world.ledger().outcomes.values())


def struck(world: World, network: FaultProxy, faults: list[Fault]) -> Watched:
    """Run to exit 0 while each of the faults strikes a connection, and check everything."""
    assert world.proxy is not None
    watched = Watched.of(world, concurrency=CONCURRENCY)
    world.proxy.hold(is_row, after=BEGUN)
    with world.daemon() as daemon:
        world.until_settled(daemon, BEGUN)
        network.strike(*faults)
        world.proxy.release()
        assert daemon.exit_code() == 0
    assert network.struck == len(faults)
    watched.check_end()
    return watched


def test_requests_cut_by_resets_at_any_byte_are_sent_again(behind: World, network: FaultProxy) -> None:
    struck(behind, network, [Fault(Kind.RESET, Way.UP, after) for after in PLACES])
    assert failures(behind) == {"connection": len(PLACES)}
    assert outcomes(behind) == {"S": ROWS}


def test_answers_cut_by_resets_at_any_byte_are_asked_for_again(behind: World, network: FaultProxy) -> None:
    struck(behind, network, [Fault(Kind.RESET, Way.DOWN, after) for after in PLACES])
    assert failures(behind)["connection"] == len(PLACES)
    assert outcomes(behind)["R"] > 0


def test_answers_lost_after_the_server_had_stored_are_found_to_have_been_ours(
    behind: World, network: FaultProxy, proxy: CountingProxy
) -> None:
    struck(behind, network, [Fault(Kind.LOSE)] * 10)
    assert failures(behind)["connection"] == 10
    assert outcomes(behind).keys() == {"S", "R"}
    taken = Counter(one.key for one in proxy.exchanges() if (one.method, one.status) == ("PUT", 200))
    assert all(taken[key] == 1 for key in behind.objects())


def test_connections_that_fall_silent_at_any_byte_are_given_up_after_the_io_timeout(
    behind: World, network: FaultProxy
) -> None:
    behind.s3 = {"io_timeout": "3s", "connect_timeout": "3s"}
    faults = [Fault(Kind.STALL, way, after) for way in Way for after in (0, 1, 100)]
    struck(behind, network, faults)
    assert failures(behind) == {"timeout": len(faults)}


def test_a_slow_network_is_no_failure(behind: World, network: FaultProxy) -> None:
    network.strike(*[Fault(Kind.DELAY, way, amount=0.02) for way in Way])
    network.strike_all(Fault(Kind.THROTTLE, Way.UP, amount=200_000))
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        assert daemon.exit_code() == 0
    assert network.struck > 2
    watched.check_end()
    assert failures(behind) == {}


def test_a_network_that_refuses_for_a_while_is_waited_out(behind: World, network: FaultProxy) -> None:
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        behind.until_settled(daemon, BEGUN)
        network.refuse()
        behind.until_recorded(daemon, "attempt_failed", count=2 * CONCURRENCY)
        network.heal()
        assert daemon.exit_code() == 0
    watched.check_end()
    assert failures(behind).keys() == {"connection"}


@pytest.mark.parametrize("lasting", ["refuses", "silent", "resets"])
def test_a_network_that_stays_bad_ends_the_run_with_exit_5_in_time(
    lasting: str, behind: World, network: FaultProxy
) -> None:
    behind.upload |= {"give_up_after": "2s"}
    behind.s3 = {"io_timeout": "1s", "connect_timeout": "1s"}
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    with behind.daemon() as daemon:
        behind.until_settled(daemon, BEGUN)
        if lasting == "refuses":
            network.refuse()
        else:
            network.strike_all(Fault(Kind.STALL if lasting == "silent" else Kind.RESET))
        assert daemon.exit_code(EXIT_SECONDS_MAX) == 5
        assert "out of reach" in daemon.output()
    assert not watched.check().in_flight
    network.heal()
    run_to_the_end(watched)


def until_complete(world: World, watched: Watched, network: FaultProxy) -> None:
    """Run among flips until enough have struck, then heal, and go on as an operator would."""
    for _ in range(FLIPS + 3):
        with world.daemon() as daemon:
            code = daemon.exit_code()
        parked = watched.check().parked
        if network.struck >= FLIPS:
            network.heal()
        if code == 0:
            return
        for failure in set(parked.values()):
            assert world.command("requeue", "--failure", failure).returncode == 0
    raise AssertionError(code)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80])
@pytest.mark.parametrize(
    ("way", "every", "seen_as"),
    # Prime to the size of a request or an answer: head and body, at another place each time.
    [(Way.UP, 2311, {"corrupted", "forbidden"}), (Way.DOWN, 587, {"garbled"})],
)
def test_a_bit_flipped_on_the_way_is_never_recorded_as_stored(
    way: Way, every: int, seen_as: set[str], mask: int, behind: World, bare: FaultProxy
) -> None:
    behind.proxy, behind.endpoint = None, bare.endpoint
    behind.s3 = {"io_timeout": "500ms"}
    watched = Watched.of(behind, concurrency=CONCURRENCY)
    bare.strike(*[Fault(Kind.FLIP, way, every + 7 * n % 101, mask) for n in range(400)])
    until_complete(behind, watched, bare)
    assert bare.struck >= FLIPS
    assert seen_as & {failure for failure, count in failures(behind).items() if count}
    watched.check_end()


def test_an_s3_server_killed_three_times_in_mid_run_keeps_what_it_answered_for(
    exposed: World, disposable_weed: EmbeddedSeaweed
) -> None:
    exposed.fill(exposed.tables[0], 900)
    exposed.upload = {"concurrency": CONCURRENCY}
    watched = Watched.of(exposed, concurrency=CONCURRENCY)
    with exposed.daemon() as daemon:
        for round_ in range(3):
            exposed.until_settled(daemon, BEGUN + 200 * round_)
            before = failures(exposed).total()
            disposable_weed.kill()
            eventually(lambda before=before: failures(exposed).total() > before, "a failed attempt")
            disposable_weed.start()
        assert daemon.exit_code() == 0
    watched.check_end()
