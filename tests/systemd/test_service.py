"""The unit under a real systemd, against real servers: what README says of it, as it says it."""

from __future__ import annotations

import json
import signal

import pytest

from daemon.errors import ExitCode
from tests.faults.waiting import eventually
from tests.systemd.conftest import MakeInstance, Servers
from tests.systemd.instances import HELD, installation
from tests.systemd.machine import Machine

SHORT_SECONDS = 3.0
"""For a time-out that must not strike, and is to be outlived."""

pytestmark = [pytest.mark.root, pytest.mark.xdist_group("systemd")]


def test_readmes_commands_end_with_a_verified_bucket(make_instance: MakeInstance, machine: Machine) -> None:
    blobs = make_instance("blobs")
    machine.must("sh", "-ec", installation()[-1])
    blobs.until_done()
    blobs.verify()


def test_a_killed_daemon_is_started_again_and_resumes(make_instance: MakeInstance) -> None:
    killed = make_instance("killed")
    killed.adjust("RestartSec=100ms")
    killed.hold()
    killed.systemctl("start")
    killed.until_held()
    killed.machine.signal(int(killed.show("MainPID")), signal.SIGKILL)
    killed.until("NRestarts", "1")
    killed.world.proxy.release()
    killed.until_done()
    assert killed.events("keys_recovered") == 1


def test_a_frozen_daemon_is_ended_by_the_watchdog_and_started_again(make_instance: MakeInstance) -> None:
    frozen = make_instance("frozen")
    frozen.adjust("RestartSec=100ms", "WatchdogSec=3s")
    frozen.hold()
    frozen.systemctl("start")
    frozen.until_held()
    frozen.machine.signal(int(frozen.show("MainPID")), signal.SIGSTOP)
    frozen.until("NRestarts", "1")
    frozen.world.proxy.release()
    frozen.until_done()
    frozen.until_logged("Watchdog timeout")


@pytest.mark.parametrize("state", ["waiting", "paused"])
def test_a_daemon_that_settles_nothing_outlives_its_watchdog(state: str, make_instance: MakeInstance) -> None:
    idle = make_instance(state)
    idle.adjust("WatchdogSec=5s")
    idle.hold()
    idle.systemctl("start")
    idle.until_held()
    if state == "paused":
        assert idle.backfillctl("pause").returncode == 0
    fed: set[str] = set()

    def has_beaten_often() -> bool:
        fed.add(idle.show("WatchdogTimestampMonotonic"))
        return len(fed) > 7

    eventually(has_beaten_often, "eight beats, three to a watchdog")
    assert idle.show("NRestarts") == "0"
    assert idle.events("outcomes_recorded") == 0
    if state == "paused":
        assert idle.backfillctl("resume").returncode == 0
    idle.world.proxy.release()
    idle.until_done()


def test_stopped_in_the_middle_it_goes_on_when_started_again(make_instance: MakeInstance) -> None:
    stopped = make_instance("stopped")
    stopped.hold()
    stopped.systemctl("start")
    stopped.until_held()
    stopped.machine.must("systemctl", "stop", "--no-block", stopped.unit)
    stopped.until("ActiveState", "deactivating")
    stopped.world.proxy.release()
    stopped.until("ActiveState", "inactive")
    stopped.until_ended_with(ExitCode.TERMINATED)
    assert "Failed" not in stopped.log()
    assert stopped.events("drain_requested") == 1
    stopped.systemctl("start")
    stopped.until_done()


def test_a_second_instance_is_stopped_without_the_first_one_noticing(make_instance: MakeInstance) -> None:
    first, second = make_instance("first"), make_instance("second")
    first.hold()
    for one in (first, second):
        one.systemctl("start")
    eventually(
        lambda: all(
            any(key.startswith(one.world.prefix) for key in first.world.proxy.waiting())
            for one in (first, second)
        ),
        "both upload",
    )
    second.machine.must("systemctl", "stop", "--no-block", second.unit)
    second.until("ActiveState", "deactivating")
    first.world.proxy.release()
    first.until_done()
    assert first.events("session_started") == 1
    second.until("ActiveState", "inactive")
    assert first.events("drain_requested") == 0


def test_systemctl_shows_how_far_it_is(make_instance: MakeInstance) -> None:
    shown = make_instance("shown")
    shown.hold()
    shown.systemctl("start")
    eventually(
        lambda: shown.show("StatusText").startswith("rows_shown 0.0 % · "),
        f"a line: {shown.show('StatusText')}",
    )


def test_an_error_in_the_configuration_is_not_tried_again(make_instance: MakeInstance) -> None:
    wrong = make_instance("wrong")
    wrong.adjust("RestartSec=100ms")
    wrong.write("/etc/backfill/wrong.toml", "[migration]\nnam = 1\n", mode="0640")
    assert wrong.machine.run("systemctl", "start", wrong.unit).returncode != 0
    assert wrong.show("ActiveState") == "failed"
    assert (wrong.show("ExecMainStatus"), wrong.show("NRestarts")) == ("2", "0")


def test_a_journal_where_the_sandbox_lets_nothing_be_written_waits_for_the_operator(
    make_instance: MakeInstance,
) -> None:
    astray = make_instance("astray")
    path = "/etc/backfill/astray.toml"
    configuration = astray.machine.path(path).read_text()
    astray.write(path, configuration.replace("/var/lib/backfill/astray/", ""), mode="0640")
    assert astray.machine.run("systemctl", "start", astray.unit).returncode != 0
    assert (astray.show("ExecMainStatus"), astray.show("NRestarts")) == (str(int(ExitCode.JOURNAL)), "0")
    astray.until_logged("/etc/backfill/journal.db.lock: Read-only file system")


def test_an_end_out_of_reach_is_tried_again_for_ever(make_instance: MakeInstance, servers: Servers) -> None:
    away = make_instance("away")
    away.world.s3["io_timeout"] = away.world.upload["give_up_after"] = "1s"
    away.configure()
    away.adjust("RestartSec=100ms")
    servers.postgres.stop()
    try:
        away.machine.must("systemctl", "start", "--no-block", away.unit)
        away.until("NRestarts", "2")
        away.until_logged("status=5")
    finally:
        servers.postgres.start()
    away.until_done()


def test_it_waits_for_an_end_that_is_out_of_reach_longer_than_a_start_may_take(
    make_instance: MakeInstance, servers: Servers
) -> None:
    patient = make_instance("patient")
    patient.adjust(f"TimeoutStartSec={SHORT_SECONDS:g}s")
    servers.postgres.stop()
    try:
        patient.machine.must("systemctl", "start", "--no-block", patient.unit)
        patient.until_it_has_lasted("activating", SHORT_SECONDS + 1)
        patient.until_logged("attempt 3 failed")
    finally:
        servers.postgres.start()
    patient.until_done()


def test_a_start_that_waits_can_be_stopped(make_instance: MakeInstance, servers: Servers) -> None:
    unwanted = make_instance("unwanted")
    servers.postgres.stop()
    try:
        unwanted.machine.must("systemctl", "start", "--no-block", unwanted.unit)
        eventually(lambda: "attempt 1 failed" in unwanted.log(), "it waits")
        unwanted.systemctl("stop")
    finally:
        servers.postgres.start()
    unwanted.until_ended_with(ExitCode.TERMINATED)
    assert "Failed" not in unwanted.log()


def test_a_long_drain_is_granted_more_than_a_stop_may_take(make_instance: MakeInstance) -> None:
    slow = make_instance("slow")
    slow.adjust(f"TimeoutStopSec={SHORT_SECONDS:g}s")
    slow.hold()
    slow.systemctl("start")
    slow.until_held()
    slow.machine.must("systemctl", "stop", "--no-block", slow.unit)
    slow.until_it_has_lasted("deactivating", SHORT_SECONDS + 1)
    slow.world.proxy.release()
    slow.until("ActiveState", "inactive")
    slow.until_ended_with(ExitCode.TERMINATED)


@pytest.mark.parametrize(("secret", "way_out"), [("pgpass", "PGPASSFILE"), ("aws", "AWS_ACCESS_KEY_ID")])
def test_without_a_file_of_secrets_it_starts_and_says_what_is_missing(
    secret: str, way_out: str, make_instance: MakeInstance
) -> None:
    bare = make_instance(f"no_{secret}")
    bare.machine.must("rm", f"/etc/backfill/credentials/{bare.name}.{secret}")
    assert bare.machine.run("systemctl", "start", bare.unit).returncode != 0
    assert (bare.show("ActiveState"), bare.show("ExecMainStatus")) == ("failed", "6")
    bare.until_logged(way_out)


def test_a_reload_reads_the_configuration_again(make_instance: MakeInstance) -> None:
    read_again = make_instance("reloaded")
    read_again.hold()
    read_again.systemctl("start")
    read_again.until_held()
    read_again.world.upload["concurrency"] = HELD + 2
    read_again.configure()
    read_again.systemctl("reload")
    read_again.until_held(HELD + 2)
    assert read_again.show("ActiveState") == "active"
    read_again.world.proxy.release()
    read_again.until_done()
    assert read_again.events("session_started") == 1


@pytest.fixture(scope="session")
def people(machine: Machine) -> None:
    """A member of the control group, and somebody who is none."""
    machine.must("useradd", "--groups", "backfill", "member")
    machine.must("useradd", "stranger")


WHO = ["root", "member", "stranger"]


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_status_answers_root_always_members_while_the_daemon_lives_and_tells_others_what_to_type(
    alive: bool, make_instance: MakeInstance, people: None
) -> None:
    asked = make_instance("alive" if alive else "dead")
    asked.hold()
    asked.systemctl("start")
    asked.until_held()
    if not alive:
        asked.world.proxy.release()
        asked.until_done()
    answers = {who: asked.backfillctl("status", "--json", user=who) for who in WHO}
    served = {"root", "member"} if alive else {"root"}
    for who in served:
        assert json.loads(answers[who].stdout)["state"] == ("running" if alive else "complete"), answers[who]
    for who in set(WHO) - served:
        assert answers[who].returncode != 0
        problem, hint = answers[who].stderr.splitlines()
        assert problem.startswith("error: ")
        assert "sudo" in hint


def test_who_steers_the_daemon_goes_on_record_by_name(make_instance: MakeInstance, people: None) -> None:
    steered = make_instance("steered")
    steered.hold()
    steered.systemctl("start")
    steered.until_held()
    assert steered.backfillctl("pause", user="member").returncode == 0
    assert steered.backfillctl("pause", user="stranger").returncode != 0
    ((_, paused),) = steered.world.ledger().of_kind("paused")
    assert paused["who"].startswith("member (uid ")


def test_paused_by_root_while_it_is_stopped_it_is_paused_when_started(
    make_instance: MakeInstance, people: None
) -> None:
    paused = make_instance("held_back")
    paused.hold()
    paused.systemctl("start")
    paused.until_held()
    paused.machine.must("systemctl", "stop", "--no-block", paused.unit)
    paused.until("ActiveState", "deactivating")
    paused.world.proxy.release()
    paused.until("ActiveState", "inactive")
    assert paused.backfillctl("pause").returncode == 0
    paused.systemctl("start")
    eventually(lambda: " paused · " in paused.show("StatusText"), "it says that it is paused")
    assert paused.backfillctl("resume", user="member").returncode == 0
    paused.until_done()
