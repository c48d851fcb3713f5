"""Whatever is wrong with a journal: every command says so on one screen, exits 7 and leaves the file as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from journal.checkpoint import Order
from journal.entries import PlannedRow
from journal.lock import Lock
from journal.log import Journal
from tests.cli.migrations import SCREEN_LINES

from .conftest import Invoke

NOW_US = 1_768_500_000_000_000
KEY = "a-key-of-some-length"

READING = [["status"], ["events"], ["explain", KEY], ["journal", "check"], ["journal", "export"]]
WRITING = [
    ["run"],
    ["plan"],
    ["plan", "--reconcile"],
    ["verify"],
    ["requeue", "--all"],
    ["journal", "rebuild"],
]
BACKUP = ["journal", "backup", "copy.db"]

EVERY = pytest.mark.parametrize("arguments", [*READING, *WRITING, BACKUP], ids=" ".join)


@pytest.fixture
def journal(smallest: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound journal of three planned rows, where the smallest configuration expects it."""
    monkeypatch.chdir(smallest.parent)
    path = smallest.parent / "journal.db"
    with Journal.create(
        path, name="blobs", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US
    ) as made:
        made.start_session(now_us=NOW_US, facts={"pid": 1})
        source = made.add_source("attachments", {"table": "public.attachments"}, now_us=NOW_US)
        made.begin_pass(source, kind="sweep", now_us=NOW_US)
        rows = [PlannedRow(key, NOW_US - age, 5) for age, key in enumerate([KEY, "b", "c"], start=1)]
        made.seal_chunk(source, rows, now_us=NOW_US)
        made.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        made.end_session(now_us=NOW_US, reason="an end of some length", exit_code=0)
    return path


def flip(path: Path, text: bytes) -> None:
    """Flip one bit of every place where `text` is."""
    content = path.read_bytes()
    assert text in content
    path.write_bytes(content.replace(text, bytes([text[0] ^ 1]) + text[1:]))


def overwrite_with_another_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE users (name TEXT)")
    connection.close()


def impatient(journal: Path, *, now_us: int, wait_seconds: float) -> Lock:
    """Take the lock without waiting for an owner that may be dying."""
    assert wait_seconds > 0
    return Lock(journal, now_us=now_us, wait_seconds=0)


def pretend_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "cut in a page": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "empty": lambda path: path.write_bytes(b""),
    "no database": lambda path: path.write_bytes(b"no journal at all" * 400),
    "another database": overwrite_with_another_database,
    "of a newer program": pretend_newer,
    "a flipped bit in the header": lambda path: flip(path, b"SQLite format 3\0"),
}


def refused(invoke: Invoke, config: Path, arguments: list[str]) -> str:
    """What a command says when it refuses the journal: one screen, what to do, exit 7, nothing on stdout."""
    result = invoke(*arguments, "-c", config)
    assert result.exit_code == ExitCode.JOURNAL, result.output
    assert result.stderr.startswith("error: ")
    assert "\nhint: " in result.stderr
    assert len(result.stderr.splitlines()) < SCREEN_LINES
    return result.stderr


@EVERY
@pytest.mark.parametrize("damage", UNREADABLE)
def test_a_file_that_cannot_be_trusted_is_refused_and_left_alone(
    invoke: Invoke, smallest: Path, journal: Path, damage: str, arguments: list[str]
) -> None:
    UNREADABLE[damage](journal)
    before = journal.read_bytes()
    assert str(journal) in refused(invoke, smallest, arguments)
    assert journal.read_bytes() == before
    assert not (journal.parent / "copy.db").exists()


@pytest.mark.parametrize("arguments", [*WRITING, ["journal", "check"]], ids=" ".join)
def test_a_flipped_bit_in_an_event_is_refused_by_all_that_write_and_by_check(
    invoke: Invoke, smallest: Path, journal: Path, arguments: list[str]
) -> None:
    flip(journal, b"an end of some length")
    before = journal.read_bytes()
    message = refused(invoke, smallest, arguments)
    assert "chain" in message
    assert "event" in message
    assert journal.read_bytes() == before


def test_check_tells_to_rebuild_only_where_that_helps(invoke: Invoke, smallest: Path, journal: Path) -> None:
    connection = sqlite3.connect(journal)
    connection.execute("UPDATE tally SET stored = 7")
    connection.commit()
    connection.close()
    assert "backfillctl journal rebuild" in refused(invoke, smallest, ["journal", "check"])
    flip(journal, b"an end of some length")
    message = refused(invoke, smallest, ["journal", "check"])
    assert "journal rebuild" not in message
    assert "restore a backup" in message


@pytest.mark.parametrize("arguments", [*READING[:3], BACKUP], ids=" ".join)
def test_a_flipped_bit_in_an_event_keeps_no_reading_command_from_ending_in_order(
    invoke: Invoke, smallest: Path, journal: Path, arguments: list[str]
) -> None:
    flip(journal, b"an end of some length")
    before = journal.read_bytes()
    result = invoke(*arguments, "-c", smallest)
    assert result.exit_code in {ExitCode.DONE, ExitCode.JOURNAL}
    assert journal.read_bytes() == before


@EVERY
def test_a_journal_that_is_a_directory_is_refused(
    invoke: Invoke, smallest: Path, arguments: list[str]
) -> None:
    (smallest.parent / "journal.db").mkdir()
    assert "expected a file, found a directory" in refused(invoke, smallest, arguments)


@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_what_writes_beside_a_daemon_is_refused_and_names_it(
    invoke: Invoke, smallest: Path, journal: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.open(journal, now_us=NOW_US):
        monkeypatch.setattr("journal.log.Lock", impatient)
        message = refused(invoke, smallest, arguments)
    assert "pid " in message


@pytest.mark.parametrize("arguments", [*READING, *WRITING[3:], BACKUP], ids=" ".join)
def test_without_a_journal_nothing_is_made_of_it_and_the_exit_code_is_2(
    invoke: Invoke, smallest: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(smallest.parent)
    result = invoke(*arguments, "-c", smallest)
    assert result.exit_code == ExitCode.USAGE
    assert "there is no such file" in result.stderr
    assert "hint: `backfillctl run` makes it" in result.stderr
    assert list(smallest.parent.iterdir()) == [smallest]


def test_an_export_to_a_file_leaves_none_where_there_is_no_journal(invoke: Invoke, smallest: Path) -> None:
    target = smallest.parent / "log.jsonl"
    assert invoke("journal", "export", "-o", target, "-c", smallest).exit_code == ExitCode.USAGE
    assert not target.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["journal", "backup"], "Missing argument"),
        (["explain"], "Missing argument"),
        (["journal"], "Usage: "),
    ],
    ids=["journal backup", "explain", "journal"],
)
def test_a_command_without_what_it_needs_shows_its_usage_and_exits_2(
    invoke: Invoke, smallest: Path, arguments: list[str], said: str
) -> None:
    result = invoke(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert said in result.stderr
