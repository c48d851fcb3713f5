from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from journal.log import Journal
from tests.cli.migrations import Migration, refused


def test_a_table_is_planned_copied_and_verified_and_a_second_run_finds_nothing_to_do(
    migration: Migration,
) -> None:
    assert migration("plan").returncode == 0
    assert migration("run", "--verify").returncode == 0
    assert migration.listing().count("<Key>") == 20
    assert migration("verify").returncode == 0
    again = migration("run")
    assert again.returncode == 0
    assert migration("status").stdout.count("attachments") >= 1


def test_plan_dry_run_writes_nothing_anywhere(migration: Migration) -> None:
    done = migration("plan", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "20" in done.stdout
    assert [path.name for path in migration.directory.iterdir()] == ["backfill.toml"]
    assert "<Key>" not in migration.listing()


def test_a_journal_in_a_directory_that_is_not_there_is_refused(migration: Migration) -> None:
    migration.changes = {"journal": "none/journal.db"}
    assert "none" in refused(migration("run"), ExitCode.JOURNAL)
    assert "<Key>" not in migration.listing()


def test_a_file_that_is_no_journal_is_refused_and_left_alone(migration: Migration) -> None:
    migration.journal.write_bytes(b"no journal at all" * 400)
    refused(migration("run"), ExitCode.JOURNAL)
    assert migration.journal.read_bytes() == b"no journal at all" * 400
    assert "<Key>" not in migration.listing()


def test_a_second_daemon_is_refused_and_names_the_first(migration: Migration) -> None:
    assert migration("plan").returncode == 0
    with Journal.open(migration.journal, now_us=1):
        message = refused(migration("run"), ExitCode.JOURNAL)
    assert "pid " in message
    assert "<Key>" not in migration.listing()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, ExitCode.TERMINATED), (signal.SIGINT, ExitCode.INTERRUPTED)]
)
def test_a_signal_while_s3_says_nothing_ends_the_run_with_its_code_and_the_run_resumes(
    migration: Migration, number: signal.Signals, code: ExitCode
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        migration.changes = {"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        command = [sys.executable, "-m", "daemon", "run", "-c", str(migration.config())]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **migration.server.environment()}
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            try:
                silent, _ = listener.accept()
                with silent:
                    process.send_signal(number)
                    _, errors = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    migration.changes = {}
    assert migration("run").returncode == 0
    assert migration.listing().count("<Key>") == 20


def test_no_secret_is_in_any_output_or_file(migration: Migration) -> None:
    role = f"reader_{migration.database.name}"
    migration.database.sql(
        f"create role {role} login password 'hunter2canary'; grant select on attachments to {role}"
    )
    migration.changes = {"dsn": migration.database.dsn_of(role, "hunter2canary")}
    migration.config()
    said = ""
    for arguments in (
        ["check", "-c", "backfill.toml"],
        ["plan", "-c", "backfill.toml"],
        ["run", "-c", "backfill.toml", "--verify"],
        ["status", "-c", "backfill.toml", "--json"],
        ["events", "-c", "backfill.toml", "--json"],
        ["explain", "7", "-c", "backfill.toml"],
        ["journal", "export", "-c", "backfill.toml"],
    ):
        done = migration.command(*arguments, env=migration.server.environment())
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    written = b"".join(
        path.read_bytes()
        for path in migration.directory.rglob("*")
        if path.is_file() and path.suffix != ".toml"
    )
    assert len(said) > 1000
    assert len(written) > 1000
    for secret in ("hunter2canary", migration.server.secret_key):
        assert secret not in said
        assert secret.encode() not in written
