"""What `run`, `plan` and `verify` say on stderr: the last line on every way out, JSON, keys redacted."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from journal.log import Journal
from tests.cli.conftest import SMALLEST, Invoke
from tests.cli.migrations import Migration, refused
from tests.s3_servers import BUCKET

LAST = re.compile(r"\S+Z (INFO|WARNING|ERROR) (.+): (.+); (.+ uploaded in .+); exit code (\d+)")
COUNTS = "{stored} stored, 0 present, 0 skipped, 0 vanished, {parked} parked, 0 in flight, {waiting} waiting"


def last(done: subprocess.CompletedProcess[str]) -> tuple[str, str, str, str]:
    """Level, outcome, counts and bytes of the last line; its exit code is the process's."""
    found = LAST.fullmatch(done.stderr.splitlines()[-1])
    assert found, done.stderr
    level, outcome, counts, amount, code = found.groups()
    assert int(code) == done.returncode
    return level, outcome, counts, amount.partition(" uploaded")[0]


def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stderr.splitlines()]


def spoil(migration: Migration, row_key: str) -> None:
    """Put another object under the key of a row."""
    path = f"/{BUCKET}/{migration.prefix}{row_key}"
    server = migration.server
    status, _ = signed_request(
        server.port, "PUT", path, body=b"foreign", access_key=server.access_key, secret_key=server.secret_key
    )
    assert status == 200


def test_the_last_line_of_plan_run_and_verify_states_how_it_ended(inside: Migration) -> None:
    nothing = COUNTS.format(stored=0, parked=0, waiting=20)
    assert last(inside("plan")) == ("INFO", "planned 20 rows, 31 bytes", nothing, "0 B")
    everything = COUNTS.format(stored=20, parked=0, waiting=0)
    assert last(inside("run")) == ("INFO", "every key is settled", everything, "31 B")
    assert last(inside("verify")) == ("INFO", "verified 20 keys", everything, "0 B")


def test_the_last_line_of_a_dry_run_says_that_nothing_was_written(inside: Migration) -> None:
    done = inside("plan --dry-run")
    assert last(done) == ("INFO", "counted, and nothing written", "no keys on record", "0 B")


def test_the_last_line_of_a_run_that_verifies_comes_after_the_verification(inside: Migration) -> None:
    assert last(inside("run --verify"))[1] == "verified 20 keys"


def test_the_last_line_leaves_no_file_beside_the_journal(inside: Migration) -> None:
    assert inside("run").returncode == 0
    beside = {path.name for path in inside.directory.iterdir()}
    assert beside == {"backfill.toml", "journal.db", "journal.db.lock"}


def test_the_last_line_tells_parked_keys(inside: Migration) -> None:
    spoil(inside, "7")
    done = inside("run")
    assert done.returncode == ExitCode.PARKED
    counts = COUNTS.format(stored=19, parked=1, waiting=0)
    assert last(done) == ("WARNING", "ended with 1 parked key", counts, "30 B")


def test_the_last_line_tells_a_mismatch(inside: Migration) -> None:
    assert inside("run").returncode == 0
    spoil(inside, "7")
    done = inside("verify")
    assert done.returncode == ExitCode.MISMATCH
    assert last(done)[:2] == ("WARNING", "verification found 1 differing")


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_the_last_line_comes_after_the_problems_of_a_configuration(inside: Migration, command: str) -> None:
    inside.changes = {"bucket": "B", "dsn": "mysql://"}
    done = inside(command)
    assert done.returncode == ExitCode.USAGE
    assert "2 problems" in done.stderr
    assert last(done) == ("ERROR", "did not start", "no keys on record", "0 B")


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_the_last_line_of_a_command_that_finds_the_journal_locked_counts_its_keys(
    inside: Migration, command: str
) -> None:
    assert inside("plan").returncode == 0
    with Journal.open(inside.journal, now_us=1):
        done = inside(command)
    assert done.returncode == ExitCode.JOURNAL
    counts = COUNTS.format(stored=0, parked=0, waiting=20)
    assert last(done) == ("ERROR", "did not start", counts, "0 B")


def test_the_last_line_of_a_halted_session_comes_after_the_error(inside: Migration) -> None:
    spoil(inside, "7")
    inside.sections["upload"] = "max_failures = 0"
    done = inside("run")
    assert done.returncode == ExitCode.PARKED
    assert "error: 1 keys parked in this session" in done.stderr
    level, outcome, counts, _ = last(done)
    assert (level, outcome) == ("WARNING", "halted")
    assert "1 parked" in counts


def test_a_signal_at_the_start_is_told_in_the_last_line(migration: Migration) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        migration.changes = {"endpoint": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        command = [sys.executable, "-m", "daemon", "run", "-c", str(migration.config())]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **migration.server.environment()}
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            try:
                silent, _ = listener.accept()
                with silent:
                    process.send_signal(signal.SIGINT)
                    _, errors = process.communicate(timeout=60)
            finally:
                process.kill()
    done = subprocess.CompletedProcess(command, process.returncode, "", errors)
    assert done.returncode == ExitCode.INTERRUPTED
    assert last(done)[:2] == (
        "WARNING",
        "stopped on SIGINT before it was done; the same command begins again",
    )


def test_under_systemd_every_line_has_its_priority_and_no_time(clean_env: None, tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w+") as stream:
        facts = os.fstat(stream.fileno())
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        env["JOURNAL_STREAM"] = f"{facts.st_dev}:{facts.st_ino}"
        command = [sys.executable, "-m", "daemon", "run"]
        assert subprocess.run(command, env=env, stderr=stream, check=False).returncode == ExitCode.USAGE
        stream.seek(0)
        lines = stream.read().splitlines()
    assert lines[0] == "<3>error: no configuration named"
    assert lines[1].startswith("<3>hint: ")
    assert lines[2] == "<3>ERROR did not start: no keys on record; 0 B uploaded in 0s; exit code 2"


def test_every_line_of_json_is_an_object_with_the_same_fields_first(inside: Migration) -> None:
    spoil(inside, "7")
    for command in ("plan --log-format json", "run --log-format json", "verify --log-format json"):
        lines = told(inside(command))
        assert lines
        for line in lines:
            assert list(line)[:6] == ["ts", "level", "event", "migration", "source", "message"]
            assert line["migration"] == "blobs"
        assert lines[-1]["event"] == "ended"


def test_the_last_line_of_json_has_every_number(inside: Migration) -> None:
    *_, end = told(inside("run --log-format json"))
    seconds = end.pop("seconds")
    assert 0 < seconds < 60
    assert {name: end[name] for name in list(end)[6:]} == {
        "outcome": "every key is settled",
        "stored": 20,
        "present": 0,
        "skipped": 0,
        "vanished": 0,
        "parked": 0,
        "in_flight": 0,
        "waiting": 0,
        "uploaded_bytes": 31,
        "exit_code": 0,
    }


def test_a_wrong_configuration_is_told_in_json_too(invoke: Invoke) -> None:
    result = invoke("run", "--log-format", "json")
    failed, ended = map(json.loads, result.stderr.splitlines())
    assert (failed["event"], failed["message"]) == ("failed", "no configuration named")
    assert "BACKFILL_CONFIG" in failed["hint"]
    assert (ended["event"], ended["exit_code"]) == ("ended", ExitCode.USAGE)


@pytest.mark.parametrize(
    "env",
    [{"BACKFILL_LOG_FORMAT": "json", "BACKFILL_LOG_REDACT_KEYS": "true"}, {}],
    ids=["variables", "flags"],
)
def test_the_log_of_redacted_keys_quotes_none(inside: Migration, env: dict[str, str]) -> None:
    inside.database.sql("update attachments set id = 'patient-' || id")
    spoil(inside, "patient-7")
    flags = [] if env else ["--log-format", "json", "--redact-keys"]
    done = inside("run", *flags, **env)
    assert done.returncode == ExitCode.PARKED
    assert "patient-" not in done.stderr
    (parked,) = (line for line in told(done) if line["event"] == "key_parked")
    assert re.fullmatch(r"key#[0-9a-f]{16}", parked["row_key"])
    assert parked["row_key"] in parked["message"]
    assert parked["object_key"] in parked["message"]
    for hashed in (parked["row_key"], parked["object_key"]):
        assert "key patient-7 of source attachments" in inside("explain", hashed).stdout
    assert f"redacted: {parked['row_key']}" in inside("explain patient-7").stdout


def test_a_hash_of_no_key_is_unknown_to_explain(inside: Migration) -> None:
    assert inside("plan").returncode == 0
    message = refused(inside("explain", "key#0123456789abcdef"), ExitCode.USAGE)
    assert "no source has planned" in message


def test_redacted_findings_of_a_verification_are_told_by_hash(inside: Migration) -> None:
    inside.database.sql("update attachments set id = 'patient-' || id")
    assert inside("run").returncode == 0
    spoil(inside, "patient-7")
    done = inside("verify --redact-keys")
    assert done.returncode == ExitCode.MISMATCH
    assert "patient-" not in done.stderr + done.stdout
    assert re.search(r"key#[0-9a-f]{16}", done.stdout)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ('format = "xml"', 'log.format: found "xml"'),
        ('redact_keys = "yes"', 'log.redact_keys: found "yes"'),
        ("colour = true", "log.colour: unknown"),
    ],
)
def test_a_wrong_log_section_is_refused(invoke: Invoke, write_config: Any, section: str, named: str) -> None:
    result = invoke("run", "-c", write_config(f"{SMALLEST}[log]\n{section}\n"))
    assert result.exit_code == ExitCode.USAGE
    assert named in result.stderr
