from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from journal.anchors import newest_anchor
from journal.checkpoint import Order
from journal.entries import Parked, PlannedRow, Settled
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader

from .conftest import SMALLEST, Invoke, WriteConfig

NOW_US = 1_768_500_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of one source: `a` stored, `b` and `c` parked, `日` still pending."""
    path = tmp_path / "journal.db"
    with Journal.create(
        path, name="blobs", cutoff_us=NOW_US, order=Order.OLDEST_FIRST, now_us=NOW_US
    ) as journal:
        journal.start_session(now_us=NOW_US, facts={"pid": 1})
        source = journal.add_source("attachments", {"table": "public.attachments"}, now_us=NOW_US)
        journal.begin_pass(source, kind="sweep", now_us=NOW_US)
        rows = [PlannedRow(key, number, 5) for number, key in enumerate(["a", "b", "c", "日"])]
        journal.seal_chunk(source, rows, now_us=NOW_US)
        journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        claim = journal.claim(source, limit=3, window=10, now_us=NOW_US)
        assert claim is not None
        a, b, c = (key.ordinal for key in claim.keys)
        journal.record(
            [
                Settled(a, Outcome.STORED, 5, "d" * 32, None, None),
                Parked(b, "rejected", "PUT refused"),
                Parked(c, "foreign_object", "another's"),
            ],
            now_us=NOW_US,
        )
        journal.end_session(now_us=NOW_US, reason="halted", exit_code=3)
    return path


def states(path: Path) -> dict[str, str]:
    with Reader.open(path) as reader:
        return {key: reader.explain(key)[0].state for key in ("a", "b", "c", "日")}


def content(path: Path) -> bytes:
    with Reader.open(path) as reader:
        return b"".join(repr(event).encode() for event in reader.events())


def test_the_journal_is_found_through_the_config_even_if_the_rest_of_it_is_wrong(
    invoke: Invoke, path: Path, write_config: WriteConfig
) -> None:
    config = write_config(SMALLEST.replace('key = "id"', "key = 7"))
    assert invoke("events", "-c", config).exit_code == 0
    assert invoke("events", env={"BACKFILL_CONFIG": str(config)}).exit_code == 0
    assert invoke("events", env={"BACKFILL_JOURNAL": str(path)}).exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["events"], ["explain", "a"], ["requeue", "--all"], ["journal", "check"]],
)
def test_the_variable_of_the_journals_key_counts_before_the_file_as_it_does_for_run(
    invoke: Invoke, path: Path, write_config: WriteConfig, arguments: list[str]
) -> None:
    config = write_config(SMALLEST.replace("journal.db", "elsewhere.db"))
    variable = {"BACKFILL_MIGRATION_JOURNAL": str(path)}
    assert invoke(*arguments, "-c", config, env=variable).exit_code == 0
    assert invoke(*arguments, env=variable).exit_code == 0


def test_the_flag_and_the_short_variable_outdo_the_variable_of_the_journals_key(
    invoke: Invoke, path: Path, tmp_path: Path
) -> None:
    other = {"BACKFILL_MIGRATION_JOURNAL": str(tmp_path / "none.db")}
    assert invoke("status", "--journal", path, env=other).exit_code == 0
    assert invoke("status", env={**other, "BACKFILL_JOURNAL": str(path)}).exit_code == 0


def test_finding_the_journal_imports_no_pydantic(smallest: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from daemon.commands.options import find_journal;"
        f"find_journal(Path({str(smallest)!r}), None); print('pydantic' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("arguments", [["status"], ["events"], ["explain", "a"], ["requeue", "--all"]])
def test_a_journal_that_is_not_there_exits_2_and_is_not_made(
    invoke: Invoke, tmp_path: Path, arguments: list[str]
) -> None:
    result = invoke(*arguments, "--journal", tmp_path / "none.db")
    assert result.exit_code == ExitCode.USAGE
    assert "none.db" in result.stderr
    assert "hint: " in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["status"], ["events"], ["explain", "a"], ["requeue", "--all"]])
def test_a_file_that_is_no_journal_exits_7_and_is_left_alone(
    invoke: Invoke, tmp_path: Path, arguments: list[str]
) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"no journal at all" * 400)
    result = invoke(*arguments, "--journal", other)
    assert result.exit_code == ExitCode.JOURNAL
    assert result.stderr.startswith("error: ")
    assert other.read_bytes() == b"no journal at all" * 400


def test_a_journal_of_a_newer_program_exits_7(invoke: Invoke, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA user_version = 999")
    result = invoke("events", "--journal", path)
    assert result.exit_code == ExitCode.JOURNAL
    assert "newer" in result.stderr


def test_status_tells_what_is_parked(invoke: Invoke, path: Path) -> None:
    result = invoke("status", "--journal", path)
    assert result.exit_code == 0
    assert "attachments" in result.stdout
    assert "parked" in result.stdout


def test_status_as_json_carries_its_schema_version(invoke: Invoke, path: Path) -> None:
    found = json.loads(invoke("status", "--json", "--journal", path).stdout)
    assert found["schema_version"] == 2
    assert found["migration"] == "blobs"


def test_explain_tells_one_key_and_names_a_key_never_planned(invoke: Invoke, path: Path) -> None:
    assert "rejected" in invoke("explain", "b", "--journal", path).stdout
    assert "日" in invoke("explain", "日", "--journal", path).stdout
    json.loads(invoke("explain", "b", "--json", "--journal", path).stdout)
    result = invoke("explain", "z", "--journal", path)
    assert result.exit_code == ExitCode.USAGE
    assert "no source has planned a row with this key" in result.stderr


def test_events_are_one_a_line_and_can_be_narrowed(invoke: Invoke, path: Path) -> None:
    every = invoke("events", "--journal", path).stdout.splitlines()
    assert len(every) > 5
    assert len(invoke("events", "--journal", path, "--limit", "2").stdout.splitlines()) == 2
    assert any("  attachments  key_parked: " in line for line in every)
    parked = invoke("events", "--json", "--journal", path, "--kind", "key_parked", "--source", "attachments")
    assert {json.loads(line)["source"] for line in parked.stdout.splitlines()} == {"attachments"}
    assert [json.loads(line)["kind"] for line in parked.stdout.splitlines()] == ["key_parked", "key_parked"]
    assert invoke("events", "--journal", path, "--since", "2026-01-15T18:00:00Z").stdout.splitlines() == every
    assert invoke("events", "--journal", path, "--since", "2999-01-01T00:00:00Z").stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [["--kind", "key_parkd"], ["--source", "attachment"], ["--since", "yesterday"], ["--limit", "0"]],
)
def test_events_refuse_what_they_do_not_know(invoke: Invoke, path: Path, arguments: list[str]) -> None:
    result = invoke("events", "--journal", path, *arguments)
    assert result.exit_code == ExitCode.USAGE
    assert arguments[1] in result.stderr


@pytest.mark.parametrize(
    ("arguments", "requeued"),
    [
        (["--all"], {"b", "c"}),
        (["--key", "b"], {"b"}),
        (["--failure", "foreign_object"], {"c"}),
        (["--source", "attachments", "--failure", "rejected"], {"b"}),
    ],
)
def test_requeue_gives_parked_keys_another_chance(
    invoke: Invoke, path: Path, arguments: list[str], requeued: set[str]
) -> None:
    before = states(path)
    result = invoke("requeue", "--journal", path, *arguments)
    assert result.exit_code == 0
    after = states(path)
    assert {key for key in before if before[key] != after[key]} == requeued
    assert all(after[key] == "planned" for key in requeued)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--key", "typo"],
        ["--key", "a"],
        ["--failure", "unusable_key"],
        ["--source", "attachments", "--failure", "unusable_key"],
        ["--key", "b", "--failure", "foreign_object"],
    ],
)
def test_a_requeue_that_matches_nothing_exits_2_names_what_it_looked_for_and_changes_nothing(
    invoke: Invoke, path: Path, arguments: list[str]
) -> None:
    before = content(path)
    result = invoke("requeue", "--journal", path, *arguments)
    assert result.exit_code == ExitCode.USAGE
    assert all(word in result.stderr for word in arguments)
    assert "hint: `backfillctl status`" in result.stderr
    assert content(path) == before


def test_a_requeue_of_all_with_nothing_parked_is_no_failure(invoke: Invoke, path: Path) -> None:
    assert invoke("requeue", "--journal", path, "--all").exit_code == 0
    result = invoke("requeue", "--journal", path, "--all")
    assert (result.exit_code, result.stdout) == (0, "nothing requeued: no key is parked\n")


def test_a_requeue_of_many_keys_that_match_nothing_is_told_on_one_screen(invoke: Invoke, path: Path) -> None:
    keys = [word for number in range(500) for word in ("--key", f"no{number}")]
    result = invoke("requeue", "--journal", path, *keys)
    assert "and 495 more" in result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_the_command_that_status_advises_for_parked_keys_runs(
    invoke: Invoke, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    told = invoke("status", "--journal", path).stdout
    advised = told.partition("mend the cause, then `backfillctl ")[2].partition("`")[0]
    result = invoke(*advised.split(), "--journal", path)
    assert (result.exit_code, result.stdout.partition(";")[0]) == (0, "2 keys requeued")


@pytest.mark.parametrize("arguments", [["--failure", "rejcted"], ["--source", "attachment"]])
def test_requeue_refuses_what_it_does_not_know(invoke: Invoke, path: Path, arguments: list[str]) -> None:
    before = content(path)
    result = invoke("requeue", "--journal", path, *arguments)
    assert result.exit_code == ExitCode.USAGE
    assert arguments[1] in result.stderr
    assert content(path) == before


def test_requeue_beside_a_daemon_is_refused_and_names_it(invoke: Invoke, path: Path) -> None:
    before = content(path)
    with Journal.open(path, now_us=NOW_US):
        result = invoke("requeue", "--all", "--journal", path)
    assert result.exit_code == ExitCode.JOURNAL
    assert f"pid {os.getpid()}" in result.stderr
    assert "hint: " in result.stderr
    assert content(path) == before


def test_journal_check_is_content_with_a_sound_journal(invoke: Invoke, path: Path) -> None:
    result = invoke("journal", "check", "--journal", path)
    assert (result.exit_code, result.stdout) == (0, f"{path}: sound\n")


def test_journal_check_finds_a_flipped_byte_in_a_key(invoke: Invoke, path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("UPDATE plan SET row_key = 'x' WHERE row_key = 'a'")
    result = invoke("journal", "check", "--journal", path)
    assert result.exit_code == ExitCode.JOURNAL
    assert result.stderr.startswith("error: ")


def test_journal_rebuild_changes_nothing_that_status_shows(invoke: Invoke, path: Path) -> None:
    before = states(path)
    assert invoke("journal", "rebuild", "--journal", path).exit_code == 0
    assert states(path) == before


def test_journal_export_is_json_lines_and_never_over_a_file(
    invoke: Invoke, path: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in invoke("journal", "export", "--journal", path).stdout.splitlines()]
    assert [line["row_key"] for line in lines if line["type"] == "planned"] == ["a", "b", "c", "日"]
    out = tmp_path / "log.jsonl"
    assert invoke("journal", "export", "--journal", path, "-o", out).exit_code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == lines
    assert invoke("journal", "export", "--journal", path, "-o", out).exit_code == ExitCode.USAGE


def test_journal_backup_opens_and_never_overwrites(invoke: Invoke, path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert invoke("journal", "backup", copy, "--journal", path).exit_code == 0
    assert states(copy) == states(path)
    assert invoke("journal", "backup", copy, "--journal", path).exit_code == ExitCode.USAGE


def test_keys_beyond_ascii_work_in_a_locale_that_lacks_them(
    backfillctl: Callable[..., subprocess.CompletedProcess[str]], path: Path
) -> None:
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    told = backfillctl("explain", "日", "--journal", path, env=latin)
    assert (told.returncode, told.stdout.partition(":")[0]) == (0, "key \\u65e5 of source attachments")
    exported = backfillctl("journal", "export", "--journal", path, env=latin)
    assert json.loads(exported.stdout.splitlines()[-1])["row_key"] == "日"
    found = backfillctl("explain", "日", "--json", "--journal", path, env=latin)
    assert "\\u65e5" in found.stdout


def test_a_key_that_is_not_utf8_is_refused(
    backfillctl: Callable[..., subprocess.CompletedProcess[str]], path: Path
) -> None:
    done = backfillctl("explain", os.fsdecode(b"\xff"), "--journal", path)
    assert done.returncode == ExitCode.USAGE
    assert "is not UTF-8" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "arguments",
    [["status"], ["events"], ["events", "--json"], ["journal", "export"], ["status", "-h"], ["--version"]],
)
def test_an_output_that_is_full_is_told_on_one_line_and_exits_1(
    path: Path, arguments: list[str], unbuffered: str
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *arguments],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "BACKFILL_JOURNAL": str(path), "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        ExitCode.FAILED,
        "error: write standard output: no space left on device\n",
    )


def test_a_reader_that_goes_away_ends_the_command_quietly(path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-u", "-m", "daemon", "events", "--journal", path],
        cwd=Path(__file__).parents[2],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "")


def test_check_against_a_manifest_tells_a_journal_whose_end_is_gone(
    invoke: Invoke, path: Path, tmp_path: Path
) -> None:
    with Reader.open(path) as reader:
        anchor = reader.read(newest_anchor)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"journal": anchor.document()}))
    there = invoke("journal", "check", "--journal", path, "--manifest", manifest)
    assert (there.exit_code, there.output) == (0, f"{path}: sound, and it goes on from the manifest\n")
    manifest.write_text(json.dumps({"journal": anchor.document() | {"head_seq": anchor.head_seq + 2}}))
    gone = invoke("journal", "check", "--journal", path, "--manifest", manifest)
    assert gone.exit_code == ExitCode.JOURNAL
    assert "its tail was cut, or it is an older copy" in gone.stderr
    assert "run nothing on it" in gone.stderr


def test_what_is_no_manifest_is_a_wrong_argument(invoke: Invoke, path: Path) -> None:
    result = invoke("journal", "check", "--journal", path, "--manifest", path)
    assert (result.exit_code, result.stdout) == (ExitCode.USAGE, "")
