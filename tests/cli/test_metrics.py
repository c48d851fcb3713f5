from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from tests.cli.migrations import Migration, refused


class Session:
    """`run` as a process of its own, whose log is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = ""
        self.url = re.search(r"http://127\.0\.0\.1:\d+/", self.until("status page and metrics: ")).group()

    def until(self, words: str) -> str:
        """Return the next line of the log with these words; fails at its end."""
        for line in self.process.stderr:
            self.said += line
            if words in line:
                return line
        raise AssertionError(f"it never said {words!r}:\n{self.said}")

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.said += self.process.communicate(timeout=60)[1]
        return self.process.returncode


@contextmanager
def session(migration: Migration, linger: str = "10m") -> Iterator[Session]:
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "BACKFILL_METRICS_PORT": "0",
        "BACKFILL_METRICS_LINGER": linger,
        **migration.server.environment(),
    }
    command = [sys.executable, "-m", "daemon", "run", "-c", str(migration.config())]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield Session(process)
        finally:
            process.kill()


def total(text: str, name: str) -> float:
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"backfill_{name}{{"))


def test_metrics_outlive_the_session_until_a_signal_and_the_exit_code_is_the_sessions(
    migration: Migration,
) -> None:
    with session(migration) as running:
        running.until("every key is settled; status page")
        status, text = running.get("metrics")
        assert status == 200
        assert total(text, "outcomes_total") == total(text, "planned_rows") == 20
        assert 'backfill_state{migration="blobs",state="complete"} 1.0' in text
        assert total(text, "request_seconds_count") >= 20
        assert total(text, "journal_commit_seconds_count") >= 1
        assert 'backfill_request_seconds_count{migration="blobs",operation="FETCH"} 0.0' not in text
        assert running.get("readyz")[0] == running.get("healthz")[0] == 200
        assert json.loads(running.get("status.json")[1])["state"] == "complete"
        assert running.end() == ExitCode.DONE
    assert "exit code 0" in running.said.splitlines()[-1]


def test_totals_go_on_where_the_session_before_left_them(migration: Migration) -> None:
    assert migration("run").returncode == 0
    with session(migration) as running:
        running.until("nothing to copy: every key was settled already; status page")
        text = running.get("metrics")[1]
        assert total(text, "outcomes_total") == 20
        assert total(text, "session") == 2
        assert running.end(signal.SIGINT) == ExitCode.DONE


def test_lingering_ends_by_itself(migration: Migration) -> None:
    with session(migration, linger="100ms") as running:
        running.said += running.process.communicate(timeout=60)[1]
        assert running.process.returncode == ExitCode.DONE


def test_it_is_alive_but_not_ready_while_an_end_does_not_answer(migration: Migration) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        migration.changes = {"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        with session(migration) as running:
            silent, _ = listener.accept()
            with silent:
                assert running.get("healthz")[0] == 200
                assert running.get("readyz")[0] == 503
                assert running.get("metrics")[0] == 200
                assert running.end() == ExitCode.TERMINATED


def test_a_port_in_use_is_refused_before_anything_is_touched(migration: Migration) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(("127.0.0.1", 0)) as endpoint,
    ):
        port = taken.getsockname()[1]
        migration.changes = {"endpoint": f"http://127.0.0.1:{endpoint.getsockname()[1]}"}
        with migration.untouched():
            message = refused(migration("run", BACKFILL_METRICS_PORT=str(port)), ExitCode.USAGE)
        assert f"listen on 127.0.0.1 port {port}: address already in use" in message
        endpoint.setblocking(False)
        with pytest.raises(BlockingIOError):
            endpoint.accept()
    assert not migration.journal.exists()
