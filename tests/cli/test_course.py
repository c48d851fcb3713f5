"""The course of migrations beyond the first run: finished ones, sources that come and go, other servers, reconciling."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from daemon.rows import ServerFacts
from journal.events import Kind
from journal.log import Journal
from tests.cli.migrations import Migration, refused
from tests.cli.scripted import scripted
from tests.s3_servers import BUCKET

SECOND = """[[source]]
            name = "others"
            table = "public.others"
            key = "id"
            value = "data"
            prefix = "{prefix}-others/"
"""
OTHERS = "create table others (id int primary key, data bytea); insert into others select n, 'x' from generate_series(1, 5) n"


@pytest.fixture
def finished(inside: Migration) -> Migration:
    """A migration that is complete."""
    inside.database.sql(OTHERS)
    assert inside("run").returncode == 0
    return inside


def add_others(migration: Migration) -> None:
    migration.sections["source"] = SECOND.format(prefix=migration.prefix[:-1])


def others(migration: Migration) -> str:
    """The counts of the second source."""
    (found,) = (
        one for one in json.loads(migration("status --json").stdout)["sources"] if one["name"] == "others"
    )
    return json.dumps(found)


def puts(migration: Migration) -> int:
    """Outcomes on record, of all sessions."""
    return migration("events --kind outcomes_recorded --json").stdout.count("\n")


def test_a_run_on_a_finished_migration_says_so_and_exits_0(finished: Migration) -> None:
    listing = finished.listing()
    again = finished("run")
    assert again.returncode == 0
    assert "nothing to copy: every key was settled already" in again.stderr
    assert finished.listing() == listing


def test_a_source_added_to_a_finished_migration_is_copied_and_nothing_else(finished: Migration) -> None:
    listing = finished.listing()
    before = puts(finished)
    add_others(finished)
    done = finished("run", "--verify")
    assert done.returncode == 0
    assert "5 B uploaded" in done.stderr
    assert "checked 25 keys" in done.stdout
    assert puts(finished) == before + 1
    assert finished.listing() == listing
    assert '"stored": 5' in others(finished)


def test_verify_names_a_source_that_was_never_planned(finished: Migration) -> None:
    add_others(finished)
    assert "others: not planned yet" in finished("verify").stderr


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_a_source_that_was_removed_from_the_config_is_refused(finished: Migration, command: str) -> None:
    add_others(finished)
    assert finished("plan").returncode == 0
    finished.sections.clear()
    with finished.untouched():
        message = refused(finished(command), ExitCode.USAGE)
    assert "others.source: journal has present, config has missing" in message


def test_reconciling_plans_rows_that_came_later_and_changed_ones(finished: Migration) -> None:
    finished.database.sql(
        "insert into attachments values ('late', now() - interval '3 days', 'late');"
        " update attachments set data = 'longer than before' where id = '4'; delete from attachments where id = '5'"
    )
    assert finished("run").returncode == 0
    assert "late" not in finished.listing()
    assert finished("plan --reconcile").returncode == 0
    assert "late" not in finished.listing()
    done = finished("run", "--verify")
    assert done.returncode == 0
    assert "22 B uploaded" in done.stderr
    assert "late" in finished.listing()


def test_a_dry_run_of_two_sources_shows_both_and_makes_nothing(inside: Migration) -> None:
    inside.database.sql(OTHERS)
    add_others(inside)
    with inside.untouched():
        shown = inside("plan --dry-run").stdout
    assert "attachments: 20 rows to copy, 31 B" in shown
    assert "others: 5 rows to copy, 5 B" in shown
    assert "total: 25 rows to copy, 36 B" in shown
    assert shown.count("requests: ") == 3
    assert "$" in shown
    assert [path.name for path in inside.directory.iterdir()] == ["backfill.toml"]


def test_a_dry_run_says_where_only_planning_can_tell_that_keys_are_unique(inside: Migration) -> None:
    inside.database.sql(
        "alter table attachments drop constraint attachments_pkey; create index on attachments (id)"
    )
    assert "no unique index proves (id)" in inside("plan --dry-run").stdout


def pretend_another_server(migration: Migration) -> dict[str, object]:
    """Let the journal name another server than there is; return what the real one is."""
    with Journal.open(migration.journal, now_us=1) as journal:
        facts = journal.latest_note(Kind.SERVER_RECORDED)
        assert facts is not None
        assert set(facts) == set(asdict(ServerFacts(**facts)))
        journal.note(Kind.SERVER_RECORDED, {**facts, "system_identifier": "7", "timeline": 9}, now_us=1)
    return facts


def test_another_server_is_refused_until_it_is_accepted_once(finished: Migration) -> None:
    facts = pretend_another_server(finished)
    with finished.untouched():
        message = refused(finished("run"), ExitCode.USAGE)
    assert "PostgreSQL is not the server on record" in message
    assert f"system_identifier: journal has 7, config has {facts['system_identifier']}" in message
    assert "--accept-source" in message
    assert finished("run", "--accept-source").returncode == 0
    assert "accepted" in finished("events").stdout
    assert finished("run").returncode == 0


def test_a_row_that_only_the_accepted_server_has_is_copied_though_its_source_was_closed(
    finished: Migration,
) -> None:
    finished.database.sql("insert into attachments values ('back', now() - interval '1 day', 'x')")
    pretend_another_server(finished)
    assert finished("run --accept-source").returncode == 0
    assert "back" in finished.listing()


def test_an_export_tells_of_every_event_and_every_planned_row(finished: Migration) -> None:
    lines = [json.loads(line) for line in finished("journal export").stdout.splitlines()]
    events = [line for line in lines if line["type"] == "event"]
    planned = {line["row_key"] for line in lines if line["type"] == "planned"}
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert planned == {str(number) for number in range(1, 21)}
    assert len(events) == finished("events").stdout.count("\n")


def test_the_ancestors_flags_reach_the_run(inside: Migration) -> None:
    flags = {
        "--cutoff-timestamp": "2024-01-01T00:00:00Z",
        "--key-batch-size": "7",
        "--checkpoint-interval-secs": "11",
    }
    assert inside("run", *(word for flag in flags.items() for word in flag)).returncode == 0
    found = json.loads(inside("events --kind settings_changed --json").stdout)["data"]["upload"]
    assert (found["key_batch_size"], found["checkpoint_interval_secs"]) == (7, 11)
    assert "2024-01-01T00:00:00" in inside("status").stdout
    assert "<Key>" not in inside.listing()


def test_storage_class_tags_and_encryption_are_asked_of_the_server_with_every_upload(
    inside: Migration,
) -> None:
    with scripted() as server:
        server.headers, server.methods = {"ETag": '"none"'}, {"HEAD": 404}
        inside.changes["endpoint"] = f"http://127.0.0.1:{server.port}"
        inside.sections["s3"] = (
            'sse = "aws:kms"\nkms_key_id = "key-7"\nstorage_class = "STANDARD_IA"\n'
            'tags = { team = "a b" }\nexpected_bucket_owner = "123456789012"'
        )
        assert inside("run").returncode == 0
    puts = [one for one in server.requests if one.line.startswith("PUT ") and "probe" not in one.line]
    assert len(puts) == 20
    for put in puts:
        assert put.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert put.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-7"
        assert put.headers["x-amz-storage-class"] == "STANDARD_IA"
        assert put.headers["x-amz-tagging"] == "team=a%20b"
        assert put.headers["x-amz-expected-bucket-owner"] == "123456789012"


@pytest.mark.parametrize(
    ("existing", "code", "said"),
    [
        ("compare", ExitCode.PARKED, "18 stored, 1 present, 0 skipped, 0 vanished, 1 parked"),
        ("overwrite", ExitCode.DONE, "20 stored, 0 present, 0 skipped, 0 vanished, 0 parked"),
        ("skip", ExitCode.DONE, "18 stored, 0 present, 2 skipped, 0 vanished, 0 parked"),
    ],
)
def test_objects_that_were_there_are_treated_as_the_policy_says(
    inside: Migration, existing: str, code: ExitCode, said: str
) -> None:
    for key, body in {"7": b"7", "8": b"another"}.items():
        status, _ = signed_request(
            inside.server.port,
            "PUT",
            f"/{BUCKET}/{inside.prefix}{key}",
            body=body,
            access_key=inside.server.access_key,
            secret_key=inside.server.secret_key,
        )
        assert status == 200
    inside.sections["s3"] = f'existing = "{existing}"'
    done = inside("run")
    assert done.returncode == code, done.stderr
    assert said in done.stderr
