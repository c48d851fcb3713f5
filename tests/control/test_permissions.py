"""Who may steer and who may look: the owner, a member of the control group, a stranger; with a daemon and without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from tests.control.test_commands import events, live, started
from tests.faults.worlds import ROOT, World

MEMBER_UID, STRANGER_UID, GROUP = 61002, 61003, 61010
"""Numbers without names: nobody on this machine is one of them."""

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.getuid() != 0, reason="NOT TESTED: other users' rights, which needs root"),
]


@dataclass
class Guarded:
    """A journal in a directory that its owner alone may enter, a socket for the group, a config for everyone."""

    world: World
    config: Path
    socket: Path


@pytest.fixture
def guarded(paused: World) -> Iterator[Guarded]:
    place = Path(tempfile.mkdtemp(prefix="backfill-control-"))
    place.chmod(0o755)
    sockets = place / "run"
    sockets.mkdir()
    os.chown(sockets, 0, GROUP)
    sockets.chmod(0o750)
    paused.directory.chmod(0o700)
    config = place / "backfill.toml"
    paused.control_socket = sockets / "control.sock"
    text = paused.configure().read_text()
    config.write_text(text.replace('"journal.db"', f'"{paused.journal}"'))
    config.chmod(0o644)
    yield Guarded(paused, config, sockets / "control.sock")
    shutil.rmtree(place)


AS_USER = """
import importlib, os, pkgutil, sys
import daemon, journal
for package in (daemon, journal):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if "__main__" not in module.name and ".demo" not in module.name:
            importlib.import_module(module.name)
uid, groups = int(sys.argv[1]), [int(one) for one in sys.argv[2].split(",") if one]
os.setgroups(groups)
os.setgid(uid)
os.setuid(uid)
sys.argv = ["backfillctl", *sys.argv[3:]]
sys.modules["daemon.cli"].main()
"""
"""Loads everything while it may: the interpreter may lie where no other user can read."""


def as_user(
    guarded: Guarded, uid: int, *words: str, groups: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-c", AS_USER, str(uid), ",".join(map(str, groups))),
            *(*words, "-c", str(guarded.config)),
        ],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": "/"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_member_of_the_group_steers_and_looks_without_a_right_to_the_journal(guarded: Guarded) -> None:
    with started(guarded.world):
        os.chown(guarded.socket, 0, GROUP)

        def member(*words: str) -> subprocess.CompletedProcess[str]:
            done = as_user(guarded, MEMBER_UID, *words, groups=(GROUP,))
            assert done.returncode == 0, done.stderr
            return done

        assert "paused" in member("status").stdout
        assert "live: pid" in member("status", "--live").stdout
        member("set", "concurrency=2")
        member("requeue", "--all")
        assert live(guarded.world)["concurrency"] == 2
        member("resume")
    assert events(guarded.world, "tunables_set")[-1]["who"] == f"uid {MEMBER_UID}"
    assert events(guarded.world, "resumed")[-1]["who"] == f"uid {MEMBER_UID}"


@pytest.mark.parametrize(
    "words",
    [("status",), ("status", "--live"), ("pause",), ("resume",), ("set", "concurrency=2"), ("drain",)],
)
def test_a_stranger_is_refused_with_what_to_type_and_changes_nothing(
    guarded: Guarded, words: tuple[str, ...]
) -> None:
    with started(guarded.world) as daemon:
        done = as_user(guarded, STRANGER_UID, *words)
        assert done.returncode in {ExitCode.JOURNAL, ExitCode.REFUSED, ExitCode.FAILED}
        assert "Traceback" not in done.stderr
        assert f"sudo -u root backfillctl {' '.join(words).partition(' ')[0]}" in done.stderr
        assert daemon.running()
    assert events(guarded.world, "drain_requested") == []
    assert events(guarded.world, "tunables_set") == []
    assert events(guarded.world, "resumed") == []


def test_with_the_daemon_dead_a_member_is_told_what_to_type(guarded: Guarded) -> None:
    done = as_user(guarded, MEMBER_UID, "status", groups=(GROUP,))
    assert done.returncode != 0
    assert "sudo -u root backfillctl status" in done.stderr
    assert len(done.stderr.splitlines()) == 2
