"""Ends that freeze, die, refuse or stay away while the daemon works, and operators who want it to stop."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.seaweed import EmbeddedSeaweed
from tests.faults import raw_journal
from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.worlds import Daemon, World

ROWS = 800
MARGIN_SECONDS = 4.0
"""What an exit may take beyond its deadline on a loaded machine."""


@pytest.fixture
def slow_planning(fragile: World) -> World:
    """A table whose rows PostgreSQL shows one by one, for minutes, while `naps` has a row."""
    fragile.sql("create table public.naps (seconds float)")
    fragile.sql(
        """create function public.napped() returns boolean language plpgsql as $$
        declare nap float;
        begin
          select max(seconds) from public.naps into nap;
          if nap is not null then perform pg_sleep(nap); end if;
          return true;
        end $$"""
    )
    fragile.fill(fragile.tables[0], 400)
    fragile.sql("insert into public.naps values (0.05)")
    return fragile


def ended(daemon: Daemon, number: signal.Signals, *, within: float) -> int:
    """Exit code after the signal, which must come within so many seconds and a margin."""
    daemon.send(number)
    return daemon.exit_code(within + MARGIN_SECONDS)


def last_end(world: World) -> dict[str, object]:
    """The journal's newest event must be the end of a session: its data."""
    _, _, kind, _, data = world.ledger().events[-1]
    assert kind == "session_ended"
    assert isinstance(data, dict)
    return data


def completes(world: World) -> None:
    with world.daemon() as daemon:
        assert daemon.exit_code() == 0
    world.assert_copied()


def copying(world: World, proxy: CountingProxy, daemon: Daemon) -> None:
    """Bring the daemon into the middle of copying and keep it there: its PUTs wait in the proxy."""
    world.until_settled(daemon, 50)
    proxy.hold()
    world.until_held(daemon, 1)
    assert raw_journal.settled_in(world.journal) < ROWS


def test_sigterm_while_postgres_is_frozen_in_mid_copy_ends_within_the_drain_deadline(
    fragile: World, proxy: CountingProxy, disposable_postgres: EmbeddedPostgres
) -> None:
    fragile.fill(fragile.tables[0], ROWS)
    fragile.upload = {"concurrency": 4, "drain_deadline": "2s"}
    with fragile.daemon() as daemon:
        copying(fragile, proxy, daemon)
        disposable_postgres.freeze()
        proxy.release()
        # With no row to upload all is quiet: each fetch waits for a server that does not answer.
        before = -1
        while before != (before := proxy.puts_answered()):
            eventually(lambda: not proxy.waiting(), "no PUT waits")
        code = ended(daemon, signal.SIGTERM, within=2.0)
    assert code == 143
    end = last_end(fragile)
    assert end["exit_code"] == 143
    assert "drained on SIGTERM" in str(end["reason"])
    assert fragile.ledger().of_kind("drain_requested")
    assert not fragile.ledger().in_flight
    disposable_postgres.thaw()
    completes(fragile)


def test_sigterm_while_postgres_is_frozen_in_planning_ends_at_once(
    slow_planning: World, disposable_postgres: EmbeddedPostgres
) -> None:
    world = slow_planning
    world.tables = [type(world.tables[0])("rows", where="public.napped()")]
    with world.daemon() as daemon:
        world.until_recorded(daemon, "pass_begun")
        disposable_postgres.freeze()
        code = ended(daemon, signal.SIGTERM, within=0.0)
    assert code == 143
    assert "drained on SIGTERM" in str(last_end(world)["reason"])
    disposable_postgres.thaw()
    world.sql("delete from public.naps")
    completes(world)


def test_sigterm_while_postgres_is_frozen_before_anything_began_leaves_no_journal(
    fragile: World, disposable_postgres: EmbeddedPostgres
) -> None:
    fragile.fill(fragile.tables[0], 10)
    disposable_postgres.freeze()
    with fragile.daemon() as daemon:
        eventually(lambda: connected(daemon.pid, disposable_postgres.port), "a connection to PostgreSQL")
        assert ended(daemon, signal.SIGTERM, within=0.0) == 143
    assert not fragile.journal.exists()
    disposable_postgres.thaw()
    completes(fragile)


def connected(pid: int, port: int) -> bool:
    """Whether the process has an open connection to the port."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    inodes = {f"socket:[{cells[9]}]" for cells in lines if cells[2].endswith(f":{port:04X}")}
    opened = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we looked
            opened.add(str(descriptor.readlink()))
    return bool(inodes & opened)


def test_one_ctrl_c_lets_uploads_in_hand_end_and_exits_130(world: World, proxy: CountingProxy) -> None:
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 8, "drain_deadline": "60s"}
    with world.daemon() as daemon:
        copying(world, proxy, daemon)
        held = set(proxy.waiting())
        daemon.send(signal.SIGINT)
        world.until_recorded(daemon, "drain_requested")
        proxy.release()
        assert daemon.exit_code() == 130
    ledger = world.ledger()
    assert not ledger.in_flight
    assert "drained on SIGINT" in str(last_end(world)["reason"])
    settled = {world.object_key("rows", ledger.plan[ordinal].row_key) for ordinal in ledger.stored()}
    assert held <= settled
    assert settled == set(world.objects())
    assert len(settled) < ROWS
    completes(world)


def test_a_second_ctrl_c_cancels_at_once_and_says_so(world: World, proxy: CountingProxy) -> None:
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 8, "drain_deadline": "60s"}
    with world.daemon() as daemon:
        copying(world, proxy, daemon)
        daemon.send(signal.SIGINT)
        world.until_recorded(daemon, "drain_requested")
        assert ended(daemon, signal.SIGINT, within=0.0) == 130
    assert "cancelled on SIGINT" in str(last_end(world)["reason"])
    ledger = world.ledger()
    assert ledger.of_kind("cancelled")
    assert not ledger.in_flight
    proxy.release()
    completes(world)


def test_a_second_signal_while_planning_cancels_too(slow_planning: World) -> None:
    world = slow_planning
    world.tables = [type(world.tables[0])("rows", where="public.napped()")]
    with world.daemon() as daemon:
        world.until_recorded(daemon, "pass_begun")
        daemon.send(signal.SIGTERM)
        daemon.send(signal.SIGTERM)
        assert daemon.exit_code(MARGIN_SECONDS) == 143
    assert last_end(world)["exit_code"] == 143


def test_a_postgres_killed_in_mid_copy_and_restarted_is_waited_out(
    fragile: World, proxy: CountingProxy, disposable_postgres: EmbeddedPostgres
) -> None:
    fragile.fill(fragile.tables[0], ROWS)
    fragile.sql("checkpoint")
    fragile.upload = {"concurrency": 4}
    with fragile.daemon() as daemon:
        copying(fragile, proxy, daemon)
        disposable_postgres.kill()
        proxy.release()
        eventually(lambda: "fetch of" in daemon.output(), "a failed fetch")
        disposable_postgres.start()
        assert daemon.exit_code() == 0
    fragile.assert_copied()


def test_backends_terminated_in_mid_copy_are_replaced(world: World, proxy: CountingProxy) -> None:
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 4}
    with world.daemon() as daemon:
        copying(world, proxy, daemon)
        killed = world.sql(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity"
            " where datname = current_database() and application_name like 'backfillctl%'"
        )
        assert int(killed) >= 2
        proxy.release()
        assert daemon.exit_code() == 0
    world.assert_copied()


def test_an_s3_server_killed_in_mid_copy_and_restarted_is_waited_out(
    exposed: World, disposable_weed: EmbeddedSeaweed
) -> None:
    exposed.fill(exposed.tables[0], ROWS)
    exposed.upload = {"concurrency": 2}
    with exposed.daemon() as daemon:
        exposed.until_settled(daemon, 50)
        disposable_weed.kill()
        exposed.until_recorded(daemon, "attempt_failed")
        disposable_weed.start()
        assert daemon.exit_code() == 0
    exposed.assert_copied()


def test_an_s3_server_that_stays_away_ends_the_run_with_exit_5(
    exposed: World, disposable_weed: EmbeddedSeaweed
) -> None:
    exposed.fill(exposed.tables[0], ROWS)
    exposed.upload = {"concurrency": 2, "give_up_after": "3s"}
    exposed.s3 = {"io_timeout": "3s"}
    with exposed.daemon() as daemon:
        exposed.until_settled(daemon, 50)
        disposable_weed.kill()
        assert daemon.exit_code() == 5
        told = daemon.output()
    assert "out of reach" in told
    assert last_end(exposed)["exit_code"] == 5
    assert exposed.ledger().of_kind("halted")
    assert not exposed.ledger().in_flight
    disposable_weed.start()
    completes(exposed)


def test_a_second_daemon_is_refused_and_the_first_goes_on(world: World, proxy: CountingProxy) -> None:
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 4}
    with world.daemon() as first:
        copying(world, proxy, first)
        refused = world.command("run")
        assert refused.returncode == 7
        assert f"pid {first.pid} on" in refused.stderr
        assert first.running()
        proxy.release()
        assert first.exit_code() == 0
    world.assert_copied()
