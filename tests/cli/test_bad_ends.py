"""Whatever is wrong with PostgreSQL, the table, the bucket or the way there: told on one screen, nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.demo.processes import ChildProcess, free_ports, scrubbed
from daemon.errors import ExitCode
from tests.cli.migrations import Migration, refused
from tests.cli.scripted import scripted
from tests.conftest import Database

DRIVING = pytest.mark.parametrize("command", ["plan", "run"])
LOOSE = (
    "alter table attachments drop constraint attachments_pkey; alter table attachments alter id drop not null"
)
NULL_KEY = "insert into attachments values (null, now() - interval '1 day', 'x')"


@pytest.fixture
def migration(inside: Migration) -> Migration:
    return inside


# The table and its keys


@DRIVING
@pytest.mark.parametrize(
    ("statements", "named", "advice"),
    [
        (
            f"{LOOSE}; create index on attachments (id); insert into attachments select * from attachments",
            "rows repeat the key of another",
            "source.key",
        ),
        (
            f"{LOOSE}; create index on attachments (id); {NULL_KEY}",
            "1 rows have a NULL in their key (id)",
            "source.where",
        ),
        (
            f"{LOOSE}; create unique index on attachments (id); {NULL_KEY}",
            "1 rows have a NULL in their key (id)",
            "source.where",
        ),
        (
            "insert into attachments values ('none', now() - interval '1 day', null)",
            "1 rows have data NULL",
            'decide in [[source]] or [layer_cache], whichever "attachments" comes from',
        ),
        (
            "insert into attachments values ('none', null, 'x')",
            "1 rows have at NULL",
            'decide in [[source]] or [layer_cache], whichever "attachments" comes from',
        ),
        ("alter table attachments alter data type jsonb using null", "jsonb", "source.table"),
        ("alter table attachments alter data type oid using null", "oid", "source.table"),
        (
            "delete from attachments; alter table attachments alter id type float8 using 1",
            "double precision",
            "key",
        ),
        ("alter table attachments drop constraint attachments_pkey", "index", "create"),
    ],
    ids=["repeated", "null", "null, unique", "no value", "no date", "jsonb", "oid", "float", "no index"],
)
def test_a_table_that_cannot_be_migrated_is_refused_and_keeps_no_journal(
    migration: Migration, command: str, statements: str, named: str, advice: str
) -> None:
    migration.database.sql(statements)
    with migration.untouched():
        message = refused(migration(command), ExitCode.USAGE)
    assert named in message
    assert advice in message.partition("hint: ")[2]


@DRIVING
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"table": "public.nowhere"}, "no such table"),
        ({"table": "nowhere.attachments"}, "no such table"),
        ({"value": "dat"}, "no column 'dat'"),
        ({"key": "di"}, "no column 'di'"),
        ({"metadata": '["knot"]'}, "no column 'knot'"),
        ({"value": "dat", "key": "di"}, "no column 'di'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_a_table_or_column_that_is_not_there_is_refused_and_named(
    migration: Migration, command: str, changes: dict[str, str], named: str
) -> None:
    migration.changes |= changes
    with migration.untouched():
        assert named in refused(migration(command), ExitCode.USAGE)


def test_what_the_hint_for_null_keys_says_is_accepted_by_the_next_run(migration: Migration) -> None:
    migration.database.sql(f"{LOOSE}; create index on attachments (id); {NULL_KEY}")
    hint = refused(migration("run"), ExitCode.USAGE)
    assert """source.where = '"id" IS NOT NULL'""" in hint
    migration.sections["source"] = """where = '"id" IS NOT NULL'"""
    assert migration("run").returncode == 0
    assert migration.listing().count("<Key>") == 20


def test_a_refusal_of_a_second_source_keeps_the_plan_of_the_first(migration: Migration) -> None:
    migration.database.sql(
        "create table others (id text, at timestamptz, data bytea); create index on others (id);"
        " insert into others select '1', now() - interval '1 day', 'x' from generate_series(1, 2)"
    )
    migration.sections["source"] = (
        '[[source]]\nname = "others"\ntable = "public.others"\nkey = "id"\ncreated_at = "at"\nvalue = "data"\n'
        f'prefix = "{migration.prefix[:-1]}-others/"'
    )
    assert "others: 1 rows repeat" in refused(migration("plan"), ExitCode.USAGE)
    assert "planned as ordinal" in migration("explain 7").stdout


@DRIVING
def test_a_cutoff_that_is_past_here_and_future_for_the_server_is_refused(
    migration: Migration, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.commands.options.now_us", lambda: 32_503_680_000_000_000)
    migration.sections["migration"] = "cutoff = 2999-01-01T00:00:00Z"
    with migration.untouched():
        assert "cutoff" in refused(migration(command), ExitCode.USAGE)


# PostgreSQL


@DRIVING
@pytest.mark.parametrize(
    ("right", "named"),
    [
        ("grant connect on database {database} to {role}", "SELECT"),
        ("grant select (id, at) on attachments to {role}", "SELECT"),
        (
            "grant select on attachments to {role}; alter table attachments enable row level security",
            "row-level security would hide rows",
        ),
    ],
    ids=["no right", "no right on the value", "row-level security"],
)
def test_a_role_that_may_not_read_every_row_is_refused(
    migration: Migration, command: str, right: str, named: str
) -> None:
    role = f"reader_{migration.database.name}"
    migration.database.sql(
        f"create role {role} login password 'hunter2'; {right.format(role=role, database=migration.database.name)}"
    )
    migration.changes["dsn"] = migration.database.dsn_of(role, "hunter2")
    with migration.untouched():
        message = refused(migration(command), ExitCode.REFUSED)
    assert named in message
    assert "hunter2" not in message


@DRIVING
def test_a_database_that_is_not_there_is_refused(migration: Migration, command: str) -> None:
    migration.changes["dsn"] = migration.database.dsn.replace(migration.database.name, "nowhere")
    with migration.untouched():
        assert "nowhere" in refused(migration(command), ExitCode.REFUSED)


@DRIVING
def test_a_server_that_nobody_runs_is_unreachable(migration: Migration, command: str) -> None:
    migration.changes["dsn"] = "postgresql://reader@127.0.0.1:9/app"
    with migration.untouched():
        assert "127.0.0.1:9" in refused(migration(command), ExitCode.UNREACHABLE)


POOLER = """
[databases]
app = host=127.0.0.1 port={port} dbname={database} user=postgres password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
"""


@pytest.fixture
def pooler(database: Database) -> Iterator[str]:
    """The DSN of a pgbouncer in transaction mode before the database."""
    binary = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if binary is None:
        pytest.skip("NOT TESTED: pgbouncer, apt package pgbouncer")
    # pgbouncer refuses to run as root, and its user must reach its files.
    server = database.server
    folder = server.directory / f"pooler-{database.name}"
    folder.mkdir(mode=0o755)
    (own_port,) = free_ports(1)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        POOLER.format(port=server.port, database=database.name, password=server.password, own_port=own_port)
    )
    process = ChildProcess([Path(binary), settings], log=folder / "log", env=scrubbed({}), user=server.user)
    while b"process up" not in (folder / "log").read_bytes():
        assert process.wait(0.01) is None, process.log_tail()
    yield f"postgresql://postgres@127.0.0.1:{own_port}/app?sslmode=disable"
    process.stop()


@DRIVING
def test_a_pooler_in_transaction_mode_is_refused(migration: Migration, pooler: str, command: str) -> None:
    migration.changes["dsn"] = pooler
    with migration.untouched():
        message = refused(migration(command), ExitCode.REFUSED)
    assert "a pooler in transaction mode" in message
    assert "session mode" in message


# The bucket


def test_a_wrong_access_key_is_refused(migration: Migration) -> None:
    with migration.untouched():
        message = refused(migration("run", AWS_ACCESS_KEY_ID="AKIANOBODY"), ExitCode.REFUSED)
    assert "InvalidAccessKeyId" in message
    assert "credentials" in message


def test_a_wrong_secret_is_refused_and_not_shown(migration: Migration) -> None:
    with migration.untouched():
        message = refused(migration("run", AWS_SECRET_ACCESS_KEY="another-canary"), ExitCode.REFUSED)
    assert "SignatureDoesNotMatch" in message
    assert "another-canary" not in message


def test_a_missing_bucket_is_refused_and_not_made(migration: Migration) -> None:
    migration.changes["bucket"] = "nowhere"
    with migration.untouched():
        assert "nothing is created for you" in refused(migration("run"), ExitCode.REFUSED)


def test_an_endpoint_that_nobody_serves_is_unreachable(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.contact.SILENCE_SECONDS_MAX", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    migration.changes["endpoint"] = f"http://127.0.0.1:{port}"
    with migration.untouched():
        message = refused(migration("run"), ExitCode.UNREACHABLE)
    assert "s3.endpoint" in message.partition("hint: ")[2]


@pytest.mark.parametrize(
    ("status", "headers", "body", "named"),
    [
        (
            301,
            {"x-amz-bucket-region": "eu-west-1"},
            b"<Error><Code>PermanentRedirect</Code><Message>use the specified endpoint</Message></Error>",
            "the bucket is in region eu-west-1",
        ),
        (
            400,
            {},
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>wrong</Message><Region>eu-west-1</Region></Error>",
            "the bucket is in region eu-west-1",
        ),
        (307, {"Location": "http://127.0.0.1:9/contract"}, b"", "a redirect to 127.0.0.1, not followed"),
    ],
    ids=["301", "400", "307"],
)
def test_a_bucket_elsewhere_is_refused_by_its_first_answer(
    migration: Migration, status: int, headers: dict[str, str], body: bytes, named: str
) -> None:
    with scripted() as server, migration.untouched():
        server.status, server.headers, server.body = status, headers, body
        migration.changes["endpoint"] = f"http://127.0.0.1:{server.port}"
        message = refused(migration("run"), ExitCode.USAGE)
    assert named in message
    assert "s3.region" in message.partition("hint: ")[2]
    assert [asked.line.split()[0] for asked in server.requests] == ["HEAD", "PUT"]


@pytest.mark.parametrize("command", ["run", "verify"])
def test_a_proxy_variable_that_would_be_ignored_is_refused(migration: Migration, command: str) -> None:
    assert migration("plan").returncode == 0
    with migration.untouched():
        message = refused(migration(command, http_proxy="http://someone:hunter2@proxy:3128"), ExitCode.USAGE)
    assert "http_proxy" in message
    assert "NO_PROXY" in message
    assert "hunter2" not in message


def test_metadata_over_2_kb_parks_the_row_with_its_reason_and_all_else_is_copied(
    migration: Migration,
) -> None:
    migration.database.sql("update attachments set note = repeat('x', 2100) where id = '7'")
    migration.changes["metadata"] = '["note"]'
    assert migration("run").returncode == ExitCode.PARKED
    assert migration.listing().count("<Key>") == 19
    assert "7" in migration("status").stdout
    assert "metadata" in migration("explain 7").stdout
    assert migration("requeue --all").stdout.startswith("1 key requeued")
    assert migration("run").returncode == ExitCode.PARKED


# The journal's identity


OTHERS: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("migration.name", {"name": "other"}, {}),
    ("migration.order", {}, {"migration": 'order = "oldest-first"'}),
    ("attachments.cutoff", {}, {"migration": "cutoff = 2024-01-01T00:00:00Z"}),
    ("attachments.table", {"table": "public.copies"}, {}),
    ("attachments.key", {"key": "other_id"}, {}),
    ("attachments.value", {"value": "other_data"}, {}),
    ("attachments.created_at", {"created_at": "other_at"}, {}),
    ("attachments.where", {}, {"source": "where = 'true'"}),
    ("attachments.prefix", {"prefix": "elsewhere/"}, {}),
    ("attachments.layout", {}, {"source": 'layout = "tiered"'}),
    ("attachments.reverse_key", {}, {"source": "reverse_key = true"}),
    ("attachments.source", {"source": "other"}, {}),
]


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_a_journal_of_another_migration_is_refused_showing_the_difference_in_every_field(
    migration: Migration, command: str
) -> None:
    migration.database.sql(
        "alter table attachments add other_id text not null default gen_random_uuid(), add other_data bytea,"
        " add other_at timestamptz; create unique index on attachments (other_id);"
        " create table copies (like attachments including all)"
    )
    assert migration("plan").returncode == 0
    for name, changes, sections in OTHERS:
        migration.changes, migration.sections = changes, sections
        with migration.untouched():
            message = refused(migration(command), ExitCode.USAGE)
        assert f"{name}: journal has " in message


def test_another_database_is_another_migration(migration: Migration) -> None:
    assert migration("plan").returncode == 0
    other = f"{migration.database.name}_copy"
    migration.database.server.sql(f"create database {other} template {migration.database.name}")
    try:
        migration.changes["dsn"] = migration.database.dsn.replace(migration.database.name, other)
        with migration.untouched():
            message = refused(migration("run"), ExitCode.USAGE)
    finally:
        migration.database.server.sql(f"drop database {other} with (force)")
    assert "attachments.database: journal has " in message
    assert other in message


def test_a_journal_of_another_bucket_or_endpoint_is_refused(migration: Migration) -> None:
    assert migration("plan").returncode == 0
    migration.changes |= {"bucket": "other-bucket", "endpoint": "http://localhost:9"}
    message = refused(migration("verify"), ExitCode.USAGE)
    assert "attachments.bucket: journal has " in message
    assert "attachments.endpoint_host: journal has " in message


# Rights on the journal's directory

WITHOUT_OVERRIDE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for capability in (1, 2):
    libc.prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Drops CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from the bounding set (PR_CAPBSET_DROP): after that modes bind
root as they bind everybody; whom they bind already the calls merely fail."""


@pytest.fixture
def bound_by_modes(
    migration: Migration, tmp_path: Path
) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """Run a command as a user whom the modes of files bind, with the journal in `place`, of the mode given."""
    place = tmp_path / "place"
    place.mkdir()
    migration.changes["journal"] = "place/journal.db"

    def run(*arguments: str, mode: int) -> subprocess.CompletedProcess[str]:
        config = migration.config()
        place.chmod(mode)
        try:
            return subprocess.run(
                [
                    sys.executable,
                    "-c",
                    WITHOUT_OVERRIDE,
                    sys.executable,
                    "-m",
                    "daemon",
                    *arguments,
                    "-c",
                    config,
                ],
                env={
                    **os.environ,
                    **migration.server.environment(),
                    "PYTHONPATH": str(Path(__file__).parents[2]),
                },
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            place.chmod(0o700)

    yield run
    place.chmod(0o700)


@pytest.mark.parametrize(
    ("mode", "made", "arguments"),
    [
        (0o500, False, ["run"]),
        (0o500, True, ["run"]),
        (0o500, True, ["requeue", "--all"]),
        (0o000, True, ["plan"]),
        (0o000, True, ["status"]),
    ],
    ids=lambda value: f"{value:04o}" if type(value) is int else None,
)
def test_a_directory_without_rights_is_refused(
    migration: Migration,
    bound_by_modes: Callable[..., subprocess.CompletedProcess[str]],
    mode: int,
    made: bool,
    arguments: list[str],
) -> None:
    if made:
        assert migration("plan").returncode == 0
    place = migration.directory / "place"
    before = [path.read_bytes() for path in place.glob("journal.db")]
    message = refused(bound_by_modes(*arguments, mode=mode), ExitCode.JOURNAL)
    assert "Traceback" not in message
    assert str(place / "journal.db") in message
    assert [path.read_bytes() for path in place.glob("journal.db")] == before


def test_check_shows_a_directory_without_rights_among_its_findings(
    bound_by_modes: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = bound_by_modes("check", mode=0o000)
    assert done.returncode == ExitCode.JOURNAL, done.stderr
    assert "FAIL  journal" in done.stdout
    assert "permission denied" in done.stdout
    assert done.stderr == ""


@DRIVING
def test_a_token_that_would_travel_in_clear_is_refused(migration: Migration, command: str) -> None:
    with migration.untouched():
        message = refused(migration(command, BACKFILL_POSTGRES_AUTH="rds-iam"), ExitCode.USAGE)
    assert "expected verify-full, or at least require" in message
