"""`verify` as an operator types it; what each tier sees is tested with the damage it is to see."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from journal.events import Kind
from journal.reader import Reader
from tests.cli.migrations import Migration
from tests.s3_servers import BUCKET


def delete(migration: Migration, *keys: str) -> None:
    server = migration.server
    for key in keys:
        status, _ = signed_request(
            server.port,
            "DELETE",
            f"/{BUCKET}/{migration.prefix}{key}",
            access_key=server.access_key,
            secret_key=server.secret_key,
        )
        assert status in {200, 204}


def events_of(migration: Migration, kind: Kind) -> list[dict[str, object]]:
    with Reader.open(migration.journal) as reader:
        return [event.data for event in reader.events(kinds=[kind])]


@pytest.fixture
def copied(inside: Migration) -> Migration:
    done = inside("run")
    assert done.returncode == 0, done.stderr
    return inside


def test_everything_that_can_not_be_meant_is_told_at_once_and_nothing_is_touched(copied: Migration) -> None:
    flags = "--tier receipts --tier receipts --sample lots --source nothing --no-extra --repair"
    with copied.untouched():
        done = copied(f"verify {flags}")
    assert done.returncode == ExitCode.USAGE
    for problem in (
        "--tier receipts: given twice",
        'found "lots"; expected a share',
        "--sample: receipts and list look at every key",
        'found "nothing"; expected one of attachments',
        "--no-extra: these tiers look for no other objects",
        "--repair: receipts looks at no object",
    ):
        assert problem in done.stderr


def test_programs_get_every_run_with_its_numbers(copied: Migration) -> None:
    delete(copied, "7")
    done = copied("verify --tier receipts --tier list --json")
    assert done.returncode == ExitCode.MISMATCH
    document = json.loads(done.stdout)
    assert (document["exit_code"], document["repaired"]) == (4, None)
    receipts, listed = document["runs"]
    assert (receipts["tier"], receipts["checked"], receipts["exit_code"]) == ("receipts", 20, 0)
    assert (listed["right"], listed["found"]) == ({"md5": 19}, {"missing": 1})
    [example] = listed["examples"]
    assert (example["kind"], example["object_key"]) == ("missing", f"{copied.prefix}7")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, ExitCode.INTERRUPTED),
        (signal.SIGTERM, ExitCode.TERMINATED),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_one_that_is_stopped_is_taken_up_by_the_same_command_and_tells_of_all_its_tiers(
    migration: Migration, number: signal.Signals, code: int
) -> None:
    assert migration("run").returncode == 0
    flags = ("--tier", "receipts", "--tier", "list")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        migration.changes = {"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        command = [sys.executable, "-m", "daemon", "verify", "-c", str(migration.config()), *flags]
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
    if code > 0:
        assert "before it was done; the same command takes it up" in errors
    migration.changes = {}
    done = migration("verify", *flags, "--json")
    assert done.returncode == 0, done.stderr
    assert "list: taking up the verification that was interrupted" in done.stderr
    assert [(run["tier"], run["checked"]) for run in json.loads(done.stdout)["runs"]] == [
        ("receipts", 20),
        ("list", 20),
    ]
    assert len(events_of(migration, Kind.VERIFICATION_STARTED)) == 2
    assert not [name for name in migration.files() if "verify" in name]


def test_a_repair_is_told_by_status_done_by_run_and_proven_by_the_next_verification(
    copied: Migration,
) -> None:
    delete(copied, "7", "12")
    done = copied("verify --tier list --repair")
    assert done.returncode == ExitCode.MISMATCH
    assert "repair: 2 keys will be driven again; `backfillctl run` copies them" in done.stdout
    [revoked] = events_of(copied, Kind.OUTCOMES_REVOKED)
    assert revoked["cause"] == "repair"
    status = copied("status").stdout
    assert "stopped: every key is settled; now 2 keys wait to be driven again" in status
    assert "next: `backfillctl run` resumes" in status
    assert copied("run").returncode == 0
    assert "next: `backfillctl verify` compares the bucket with the journal" in copied("status").stdout
    assert copied("verify --tier list --no-extra").returncode == 0


def test_a_repair_with_nothing_to_mend_takes_nothing_back(copied: Migration) -> None:
    done = copied("verify --tier list --repair")
    assert done.returncode == 0
    assert "repair: nothing is to be driven again" in done.stdout
    assert events_of(copied, Kind.OUTCOMES_REVOKED) == []


def test_a_row_that_changed_is_taken_back_by_a_repair_and_a_new_one_left_to_planning(
    copied: Migration,
) -> None:
    copied.database.sql(
        "update attachments set data = '8' where id = '7';"
        " insert into attachments values ('late', now() - interval '3 days', 'late')"
    )
    done = copied("verify --tier source --repair")
    assert done.returncode == ExitCode.MISMATCH
    assert "repair: 1 key will be driven again" in done.stdout
    assert "`backfillctl plan --reconcile`" in done.stdout
    [revoked] = events_of(copied, Kind.OUTCOMES_REVOKED)
    assert len(revoked["ordinals"]) == 1


def test_without_flags_every_key_is_listed_and_a_sample_read(copied: Migration) -> None:
    done = copied("verify")
    assert done.returncode == 0
    assert [event["tier"] for event in events_of(copied, Kind.VERIFICATION_FINISHED)] == ["list", "content"]


def test_run_verifies_as_verify_does(inside: Migration) -> None:
    done = inside("run --verify")
    assert done.returncode == 0
    assert [event["tier"] for event in events_of(inside, Kind.VERIFICATION_FINISHED)] == ["list", "content"]
