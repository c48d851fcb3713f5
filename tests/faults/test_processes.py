"""Upload processes: what they do together, and what the death of one, of the coordinator, or a stop leaves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.faults import raw_journal
from tests.faults.counting_proxy import CountingProxy
from tests.faults.waiting import eventually
from tests.faults.worlds import PROBE, Daemon, World

ROWS = 900


@pytest.fixture
def crew(world: World) -> World:
    """A table of ROWS rows, copied by two processes."""
    world.fill(world.tables[0], ROWS)
    world.upload = {"concurrency": 8, "processes": 2}
    return world


def workers(daemon: Daemon) -> list[int]:
    """Pids of the daemon's upload processes."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == daemon.pid and b"daemon.upload_process" in command:
            found.append(int(stat.parent.name))
    return sorted(found)


def a_row(key: str) -> bool:
    return not key.endswith(PROBE)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_two_processes_copy_every_row_once(crew: World, proxy: CountingProxy) -> None:
    with crew.daemon() as daemon:
        crew.until_recorded(daemon, "outcomes_recorded")
        pids = workers(daemon)
        assert daemon.exit_code() == 0
    assert len(pids) == 2
    assert gone(pids)
    crew.assert_copied()
    puts = [one.key for one in proxy.exchanges() if one.method == "PUT" and a_row(one.key)]
    assert len(puts) == len(set(puts)) == ROWS


def test_a_killed_process_costs_only_the_keys_it_held(crew: World, proxy: CountingProxy) -> None:
    proxy.hold(a_row)
    with crew.daemon() as daemon:
        crew.until_held(daemon, 8)
        victim, other = workers(daemon)
        os.kill(victim, signal.SIGKILL)
        crew.until_recorded(daemon, "keys_recovered")
        proxy.release()
        assert daemon.exit_code() == 0
        said = daemon.output()
    crew.assert_copied()
    assert gone([victim, other])
    ((_, taken),) = crew.ledger().of_kind("keys_recovered")
    assert 0 < len(taken["ordinals"]) < ROWS / 2
    assert taken["process"].endswith(f"(pid {victim}), killed by SIGKILL")
    assert "died (killed by SIGKILL)" in said
    assert raw_journal.count_of(crew.journal, "session_started") == 1


def test_a_coordinator_that_is_killed_takes_its_processes_along(crew: World, proxy: CountingProxy) -> None:
    proxy.hold(a_row)
    with crew.daemon() as daemon:
        crew.until_held(daemon, 8)
        pids = workers(daemon)
        assert daemon.kill()
    proxy.release()
    eventually(lambda: gone(pids), "the upload processes end")
    with crew.daemon() as daemon:
        assert daemon.exit_code() == 0
    crew.assert_copied()


def test_sigint_to_the_whole_group_drains_all_processes(crew: World, proxy: CountingProxy) -> None:
    proxy.hold(a_row)
    with crew.daemon() as daemon:
        crew.until_held(daemon, 8)
        pids = workers(daemon)
        for pid in (daemon.pid, *pids):
            os.kill(pid, signal.SIGINT)
        crew.until_recorded(daemon, "drain_requested")
        proxy.release()
        assert daemon.exit_code() == 130
    assert gone(pids)
    ledger = crew.ledger()
    assert 0 < len(ledger.outcomes) < ROWS
    assert raw_journal.count_of(crew.journal, "keys_recovered") == 0
    with crew.daemon() as daemon:
        assert daemon.exit_code() == 0
    crew.assert_copied()


def test_a_second_sigint_ends_processes_whose_puts_hang(crew: World, proxy: CountingProxy) -> None:
    proxy.hold(a_row)
    with crew.daemon() as daemon:
        crew.until_held(daemon, 8)
        pids = workers(daemon)
        daemon.send(signal.SIGINT)
        crew.until_recorded(daemon, "drain_requested")
        daemon.send(signal.SIGINT)
        assert daemon.exit_code(20) == 130
    assert gone(pids)
    proxy.release()
    with crew.daemon() as daemon:
        assert daemon.exit_code() == 0
    crew.assert_copied()


def test_a_pause_lets_processes_end_what_they_hold_and_begin_nothing(
    crew: World, proxy: CountingProxy
) -> None:
    proxy.hold(a_row)
    with crew.daemon() as daemon:
        crew.until_held(daemon, 8)
        assert crew.command("pause").returncode == 0
        proxy.release()
        eventually(lambda: not crew.ledger().in_flight, "nothing is in flight")
        settled = raw_journal.settled_in(crew.journal)
        assert 0 < settled < ROWS
        assert crew.command("resume").returncode == 0
        assert daemon.exit_code() == 0
    crew.assert_copied()


def test_fewer_uploads_than_processes_still_copy_everything(crew: World) -> None:
    crew.upload = {"concurrency": 1, "processes": 3}
    with crew.daemon() as daemon:
        assert daemon.exit_code() == 0
    crew.assert_copied()


def test_refused_credentials_end_the_session_as_in_one_process(crew: World) -> None:
    crew.secret_key = "a-secret-that-nobody-knows"
    with crew.daemon() as daemon:
        assert daemon.exit_code() == 6
