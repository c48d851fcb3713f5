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
from tests.s3_servers import fresh_prefix


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


@pytest.mark.parametrize(
    ("statement", "changes", "code", "named"),
    [
        ("", {"table": "public.nowhere"}, ExitCode.USAGE, "no such table"),
        ("", {"value": "dat"}, ExitCode.USAGE, "no column 'dat'"),
        ("alter table attachments drop constraint attachments_pkey", {}, ExitCode.USAGE, "index"),
        ("alter table attachments alter data type jsonb using null", {}, ExitCode.USAGE, "jsonb"),
        ("alter table attachments alter id type char(9)", {}, ExitCode.USAGE, "char"),
        ("", {"dsn": "postgresql://nobody@127.0.0.1:9/app"}, ExitCode.UNREACHABLE, "127.0.0.1:9"),
    ],
)
def test_a_source_that_cannot_be_migrated_leaves_no_trace(
    migration: Migration, statement: str, changes: dict[str, str], code: ExitCode, named: str
) -> None:
    if statement:
        migration.database.sql(statement)
    migration.changes = changes
    assert named in refused(migration("run"), code)
    assert [path.name for path in migration.directory.iterdir()] == ["backfill.toml"]
    assert "<Key>" not in migration.listing()


@pytest.mark.parametrize(
    ("right", "named"),
    [
        ("", "SELECT"),
        (
            "grant select on attachments to {role}; alter table attachments enable row level security",
            "row-level security would hide rows",
        ),
    ],
)
def test_a_role_that_may_not_see_every_row_is_refused(migration: Migration, right: str, named: str) -> None:
    role = f"reader_{migration.database.name}"
    migration.database.sql(f"create role {role} login password 'hunter2'; {right.format(role=role)}")
    migration.changes = {"dsn": migration.database.dsn_of(role, "hunter2")}
    message = refused(migration("run"), ExitCode.REFUSED)
    assert named in message
    assert "hunter2" not in message
    assert not migration.journal.exists()


def test_a_wrong_password_is_refused_and_not_shown(migration: Migration) -> None:
    role = f"reader_{migration.database.name}"
    migration.database.sql(f"create role {role} login password 'hunter2'")
    migration.changes = {"dsn": migration.database.dsn_of(role, "hunter3")}
    assert "hunter" not in refused(migration("run"), ExitCode.REFUSED)
    assert not migration.journal.exists()


def test_a_wrong_secret_is_refused_and_nothing_is_written(migration: Migration) -> None:
    done = migration("run", AWS_SECRET_ACCESS_KEY="wrong-secret-canary")
    assert "credentials" in refused(done, ExitCode.REFUSED)
    assert "wrong-secret-canary" not in done.stdout + done.stderr
    assert "<Key>" not in migration.listing()
    assert migration("run").returncode == 0


def test_a_missing_bucket_is_refused_and_not_made(migration: Migration) -> None:
    migration.changes = {"bucket": "nowhere"}
    assert "nothing is created for you" in refused(migration("run"), ExitCode.REFUSED)
    assert "nothing is created for you" in refused(migration("run"), ExitCode.REFUSED)


def test_a_proxy_variable_that_would_be_ignored_is_refused(migration: Migration) -> None:
    assert "HTTP_PROXY" in refused(migration("run", HTTP_PROXY="http://proxy:3128"), ExitCode.USAGE)
    assert not migration.journal.exists()


def test_a_journal_of_another_migration_is_refused_showing_the_difference(migration: Migration) -> None:
    assert migration("run").returncode == 0
    migration.prefix = fresh_prefix()
    before = migration.journal.read_bytes()
    message = refused(migration("run"), ExitCode.USAGE)
    assert "prefix" in message
    assert migration.prefix in message
    assert "<Key>" not in migration.listing()
    assert migration.journal.read_bytes() == before


def test_a_journal_in_a_directory_that_is_not_there_is_refused(migration: Migration) -> None:
    migration.changes = {"journal": "none/journal.db"}
    assert "none" in refused(migration("run"), ExitCode.JOURNAL)
    assert "<Key>" not in migration.listing()


def test_a_file_that_is_no_journal_is_refused_and_left_alone(migration: Migration) -> None:
    migration.journal.write_bytes(b"no journal at all" * 400)
    refused(migration("run"), ExitCode.JOURNAL)
    assert migration.journal.read_bytes() == b"no journal at all" * 400
    assert "<Key>" not in migration.listing()


def test_a_key_that_is_null_somewhere_is_refused_before_anything_is_copied(migration: Migration) -> None:
    migration.database.sql(
        "alter table attachments drop constraint attachments_pkey; create unique index on attachments (id); "
        "alter table attachments alter id drop not null; insert into attachments values (null, now(), 'x')"
    )
    assert "NULL" in refused(migration("run"), ExitCode.USAGE)
    assert "<Key>" not in migration.listing()


def test_a_second_daemon_is_refused_and_names_the_first(migration: Migration) -> None:
    assert migration("plan").returncode == 0
    with Journal.open(migration.journal, now_us=1):
        message = refused(migration("run"), ExitCode.JOURNAL)
    assert "pid " in message
    assert "<Key>" not in migration.listing()


def test_metadata_over_2_kb_parks_the_row_and_exits_3(migration: Migration) -> None:
    migration.database.sql("update attachments set note = repeat('x', 2100) where id = '7'")
    migration.changes = {"metadata": '["note"]'}
    done = migration("run")
    assert done.returncode == ExitCode.PARKED
    assert migration.listing().count("<Key>") == 19


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
