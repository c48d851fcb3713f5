from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from daemon.demo.processes import SERVER_PORTS, ChildProcess, descendants, free_ports, scrubbed
from daemon.errors import BackfillError

PYTHON = Path(sys.executable)
DEADLINE = 10.0


def start(tmp_path, code, **options):
    return ChildProcess([PYTHON, "-c", code], log=tmp_path / "log", env=scrubbed(os.environ), **options)


def await_output(child, text):
    while text not in child.log_tail():
        assert child.wait(0.01) is None, child.log_tail()


def ends(pid):
    """Wait for a process that may not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], DEADLINE)[0])
    finally:
        os.close(descriptor)


def test_scrubbing_drops_what_leads_away_from_loopback_and_keeps_the_rest():
    hostile = {"PGHOST": "x", "AWS_PROFILE": "x", "https_proxy": "x", "NO_PROXY": "x", "XDG_RUNTIME_DIR": "x"}
    assert scrubbed({**hostile, "BACKFILL_CONFIG": "x", "PATH": "/bin", "LANG": "C"}) == {
        "PATH": "/bin",
        "LANG": "C",
    }


def test_free_ports_are_different_ones_that_are_lent_to_no_client():
    found = free_ports(20)
    assert len(set(found)) == 20
    assert set(found) <= set(SERVER_PORTS)


def test_a_port_in_use_is_not_called_free(monkeypatch):
    taken, free = free_ports(2)
    monkeypatch.setattr("daemon.demo.processes.SERVER_PORTS", [taken, free])
    monkeypatch.setattr("daemon.demo.processes.PORTS_TRIED_MAX", 2)
    with socket.create_server(("127.0.0.1", taken)):
        assert free_ports(1) == [free]
        with pytest.raises(BackfillError, match="found 1 in 2"):
            free_ports(2)


def test_a_child_that_ignores_the_polite_signal_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.demo.processes.STOP_GRACE_SECONDS", 0.05)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    with start(tmp_path, code) as child:
        await_output(child, "up")
        child.stop()
        assert child.returncode == -signal.SIGKILL


def test_a_polite_child_ends_by_the_signal_it_was_sent(tmp_path):
    with start(tmp_path, "import signal; print('up', flush=True); signal.pause()") as child:
        await_output(child, "up")
        child.stop(signal.SIGINT)
        assert child.returncode == -signal.SIGINT


def test_a_frozen_child_is_thawed_to_be_stopped(tmp_path):
    with start(tmp_path, "import signal; print('up', flush=True); signal.pause()") as child:
        await_output(child, "up")
        child.signal_tree(signal.SIGSTOP)
        child.stop()
        assert child.returncode == -signal.SIGTERM


def test_kill_takes_grandchildren_along(tmp_path):
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'],"
        " start_new_session=True); print('child', p.pid, flush=True); p.wait()"
    )
    with start(tmp_path, code) as child:
        await_output(child, "child ")
        grandchild = descendants(child.pid)[-1]
        child.kill()
        assert ends(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: only Linux signals orphans")
def test_sigkill_of_the_parent_leaves_no_child(tmp_path):
    code = (
        "import os, sys, signal; from pathlib import Path; from daemon.demo.processes import ChildProcess\n"
        f"child = ChildProcess([Path(sys.executable), '-c', 'import signal; print(1, flush=True); signal.pause()'],"
        f" log=Path({str(tmp_path / 'grandchild.log')!r}), env=dict(os.environ))\n"
        "while not child.log_tail(): child.wait(0.01)\n"
        "print(child.pid, flush=True); signal.pause()"
    )
    parent = subprocess.Popen([PYTHON, "-c", code], stdout=subprocess.PIPE, text=True)
    grandchild = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    assert ends(grandchild)


def test_starting_from_another_thread_is_refused(tmp_path):
    caught = []

    def attempt():
        try:
            start(tmp_path, "pass")
        except RuntimeError as error:
            caught.append(str(error))

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert caught == ["a child process can only be started from the main thread"]


def test_an_early_end_quotes_exit_code_and_output(tmp_path):
    with start(tmp_path, "print('no such thing'); raise SystemExit(7)") as child:
        assert child.wait(DEADLINE) == 7
        assert "exit code 7" in str(child.ended_early())
        assert "no such thing" in str(child.ended_early())
