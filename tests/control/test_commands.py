"""The commands that steer a migration, as an operator types them, with a daemon and without one."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import signal
from pathlib import Path

import pytest

from daemon.commands.asking import as_owner
from daemon.commands.options import Whereabouts, config_option, journal_option
from daemon.errors import ConfigError, ExitCode
from daemon.local_sockets import bound
from journal.log import Journal
from journal.reader import Reader
from tests.control.conftest import ROWS
from tests.faults.waiting import eventually
from tests.faults.worlds import Daemon, World

ME = f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"


def events(world: World, kind: str) -> list:
    with Reader.open(world.journal) as reader:
        return [event.data for event in reader.events(kinds=[kind])]


def live(world: World) -> dict:
    done = world.command("status", "--live", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["live"]


def head_seq(world: World) -> int:
    with Reader.open(world.journal) as reader:
        return reader.head_seq()


def started(world: World) -> Daemon:
    daemon = world.daemon()
    world.until_recorded(daemon, "session_started", count=2)
    return daemon


def test_a_paused_migration_stays_paused_over_a_restart_and_says_by_whom(paused: World) -> None:
    with started(paused) as daemon:
        eventually(lambda: "paused by" in daemon.output(), "the warning")
        status = json.loads(paused.command("status", "--json").stdout)
        assert status["state"] == "paused"
        assert paused.ledger().outcomes == {}
        daemon.send(signal.SIGTERM)
        assert daemon.exit_code() == ExitCode.TERMINATED
    assert "`backfillctl resume`" in daemon.output().splitlines()[0]


def test_resume_lets_the_running_daemon_copy_everything(paused: World) -> None:
    with started(paused) as daemon:
        done = paused.command("resume")
        assert (done.returncode, done.stdout) == (0, "resumed\n")
        assert daemon.exit_code() == ExitCode.DONE
    paused.assert_copied()
    assert events(paused, "resumed") == [{"who": ME}]


def test_set_is_in_force_at_once_and_recorded_with_who(paused: World) -> None:
    with started(paused):
        done = paused.command("set", "concurrency=3", "rows-per-second=50")
        assert done.returncode == 0, done.stderr
        found = live(paused)
        assert (found["concurrency"], found["rows_per_second"]) == (3, 50)
    assert events(paused, "tunables_set")[-1]["who"] == ME


def test_drain_ends_the_daemon_with_code_8_and_says_who(paused: World) -> None:
    with started(paused) as daemon:
        assert paused.command("drain").returncode == 0
        assert daemon.exit_code() == ExitCode.STOPPED
    assert events(paused, "drain_requested") == [{"cause": f"drain by {ME}", "who": ME}]
    assert not (paused.directory / "journal.db.sock").exists()


def test_status_live_shows_what_status_shows_and_what_only_the_process_knows(paused: World) -> None:
    with started(paused) as daemon:
        plain, asked = paused.command("status"), paused.command("status", "--live")
        assert asked.returncode == 0, asked.stderr
        assert plain.stdout.splitlines()[0] == asked.stdout.splitlines()[0]
        assert plain.stdout.startswith("faults: paused")
        assert f"live: pid {daemon.pid}, " in asked.stdout.splitlines()[-1]
        assert "live: " not in plain.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pause",), "paused: the next `backfillctl run` begins nothing"),
        (("resume",), "not paused; nothing changed"),
        (("set", "concurrency=3"), "set: from the next `backfillctl run` on concurrency=3"),
        (("requeue", "--all"), "nothing requeued: no key is parked"),
    ],
)
def test_without_a_daemon_a_command_writes_the_journal_itself(
    world: World, words: tuple[str, ...], said: str
) -> None:
    assert world.command("plan").returncode == 0
    done = world.command(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(said)


@pytest.mark.parametrize("words", [("drain",), ("status", "--live")])
def test_without_a_daemon_what_only_it_can_do_is_refused_and_changes_nothing(
    world: World, words: tuple[str, ...]
) -> None:
    assert world.command("plan").returncode == 0
    before = head_seq(world)
    done = world.command(*words)
    assert done.returncode == ExitCode.USAGE
    assert "no daemon works on journal" in done.stderr
    assert "hint: " in done.stderr
    assert head_seq(world) == before


def test_a_setting_that_is_wrong_is_told_with_every_problem_and_changes_nothing(paused: World) -> None:
    with started(paused):
        done = paused.command("set", "concurrency=0", "speed=9", "rows-per-second=-1")
        assert done.returncode == ExitCode.USAGE
        assert [word in done.stderr for word in ("concurrency", "speed=9", "rows-per-second")] == [True] * 3
        assert live(paused)["concurrency"] == 64
    assert events(paused, "tunables_set") == []


def test_an_owner_without_a_socket_is_named_and_nothing_is_changed(world: World) -> None:
    assert world.command("plan").returncode == 0
    with Journal.open(world.journal, now_us=1):
        done = world.command("pause")
        assert done.returncode == ExitCode.JOURNAL
        assert f"pid {os.getpid()}" in done.stderr
        assert "answers on no control socket" in done.stderr
        drained = world.command("drain")
        assert drained.returncode == ExitCode.USAGE
        assert f"pid {os.getpid()}" in drained.stderr
    assert events(world, "paused") == []


def test_the_settings_of_an_operator_outlive_the_session_until_they_are_given_back(world: World) -> None:
    assert world.command("plan").returncode == 0
    assert world.command("pause").returncode == 0
    assert world.command("set", "concurrency=3").returncode == 0
    with started(world):
        assert live(world)["concurrency"] == 3
        done = world.command("set", "concurrency=config")
        assert done.stdout == "set: from now on everything as configured\n"
        assert live(world)["concurrency"] == 64


def test_the_rows_are_as_many_as_the_tests_say(world: World) -> None:
    assert world.sql("select count(*) from rows").strip() == str(ROWS)


def test_what_may_be_read_the_file_itself_says_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_args, **_options: False)
    for option, path in ((config_option, "/etc/hostname"), (journal_option, "/etc/hostname")):
        (parameter,) = option(lambda: None).__click_params__
        assert parameter.type.convert(path, parameter, None) == Path(path)


def test_a_user_without_a_name_is_quoted_for_the_shell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nameless = tmp_path / "control.sock"
    nameless.touch()
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    hint = as_owner(Whereabouts(tmp_path / "journal.db", (), "-c blobs.toml"), "drain", nameless)
    assert f"`sudo -u '#{os.getuid()}' backfillctl drain -c blobs.toml`" in hint


def test_a_directory_that_somebody_keeps_locked_holds_up_no_start(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with (
            pytest.raises(ConfigError, match="another process has locked the directory"),
            bound(tmp_path / "control.sock"),
        ):
            pytest.fail("it was locked")
    finally:
        os.close(descriptor)
    with bound(tmp_path / "control.sock"):
        assert (tmp_path / "control.sock").is_socket()
