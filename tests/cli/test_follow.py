"""`events --follow`: beside a process that commits, until it is left or nobody reads."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.commands import following
from daemon.commands.following import Filter, Printer, follow
from daemon.errors import ConfigError, ExitCode
from journal.errors import JournalCorrupt, JournalError
from journal.log import Journal
from tests.journal.journals import NOW_US, plan, planned, rows, settle, take

DEADLINE_SECONDS = 60


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Ten keys, claimed; its writer stays open."""
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    yield journal
    journal.close()


class Steps:
    """What happens between two looks, one after the other; then the reader goes."""

    def __init__(self, *steps: object) -> None:
        self._steps = list(steps)

    def __call__(self) -> bool:
        if not self._steps:
            return False
        step = self._steps.pop(0)
        step()  # type: ignore[operator]
        return True


def seqs(text: str) -> list[int]:
    return [json.loads(line)["seq"] for line in text.splitlines()]


def printer(journal: Journal, **filters: object) -> Printer:
    return Printer(journal.path, Filter(**filters), as_json=True)  # type: ignore[arg-type]


def test_what_is_there_is_printed_and_then_each_new_event_once(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    pause = lambda: journal.pause(who="op", now_us=NOW_US)  # noqa: E731
    follow(printer(journal), Steps(pause, lambda: None, lambda: settle(journal, [1, 2])))
    assert seqs(capsys.readouterr().out) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_filters_hold_for_new_events_too(journal: Journal, capsys: pytest.CaptureFixture[str]) -> None:
    def more() -> None:
        journal.pause(who="op", now_us=NOW_US)
        settle(journal, [1])

    follow(printer(journal, kinds=("outcomes_recorded",)), Steps(more, lambda: settle(journal, [2])))
    assert seqs(capsys.readouterr().out) == [9, 10]


def test_the_limit_counts_all_that_is_printed_and_ends_it(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = printer(journal, kinds=("keys_claimed", "outcomes_recorded"), limit=2)
    never = Steps(lambda: settle(journal, [1]), lambda: pytest.fail("it goes on after the last event"))
    follow(wanted, never)
    assert seqs(capsys.readouterr().out) == [7, 8]


def test_a_source_that_is_added_meanwhile_has_its_name(
    journal: Journal, capsys: pytest.CaptureFixture[str]
) -> None:
    follow(printer(journal, kinds=("source_added",)), Steps(lambda: plan(journal, rows(1))))
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["source-1", "source-2"]


def test_an_unknown_source_is_refused_at_once(journal: Journal) -> None:
    with pytest.raises(ConfigError, match="expected a source of this journal: source-1"):
        follow(printer(journal, source="x"), Steps())


def test_a_journal_that_was_replaced_by_a_shorter_one_ends_it(journal: Journal, tmp_path: Path) -> None:
    def replace() -> None:
        journal.close()
        journal.path.unlink()
        planned(journal.path, 1)[0].close()

    with pytest.raises(JournalCorrupt, match="it is another file"):
        follow(printer(journal), Steps(replace))


def test_trouble_that_may_pass_is_told_once_and_tried_again(
    journal: Journal, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Printer.look
    failing: list[bool] = []

    def troubled(self: Printer) -> None:
        if failing:
            raise JournalError("read journal: it is being opened")
        look(self)

    monkeypatch.setattr(Printer, "look", troubled)
    mend = lambda: (failing.clear(), settle(journal, [1]))  # noqa: E731
    follow(printer(journal), Steps(lambda: failing.append(True), lambda: None, mend))
    captured = capsys.readouterr()
    assert captured.err == "error: read journal: it is being opened; trying again\n"
    assert seqs(captured.out)[-1] == 8


def test_between_two_looks_nothing_keeps_the_writer_from_its_checkpoints(journal: Journal) -> None:
    def checkpoint() -> None:
        journal.sample({"network": 1}, now_us=NOW_US)
        connection = sqlite3.connect(journal.path)
        blocked, pages, moved = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.close()
        assert (blocked, pages, moved) == (0, 0, 0)

    follow(printer(journal), Steps(checkpoint, checkpoint))


def test_a_writer_that_closes_between_two_looks_leaves_one_file(journal: Journal) -> None:
    follow(printer(journal), Steps(journal.close))
    assert not journal.path.with_name("journal.db-wal").exists()


class Followed:
    """The command in a process of its own, its output read as it comes."""

    def __init__(self, path: Path, *options: str) -> None:
        command = [sys.executable, "-m", "daemon", "events", "--follow", "--json", "--journal", str(path)]
        self.process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self._read = b""

    def until(self, seq: int) -> None:
        """Read until the event `seq` has been printed, whole."""
        assert self.process.stdout is not None
        while not any(json.loads(line)["seq"] == seq for line in self._read.split(b"\n")[:-1]):
            ready, _, _ = select.select([self.process.stdout], [], [], DEADLINE_SECONDS)
            assert ready, self._read
            piece = os.read(self.process.stdout.fileno(), 65_536)
            assert piece, "the command has ended"
            self._read += piece

    def ended(self) -> tuple[int, bytes]:
        _, err = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, err


@pytest.fixture
def followed(journal: Journal) -> Iterator[Followed]:
    followed = Followed(journal.path)
    yield followed
    followed.process.kill()
    followed.process.communicate()


def test_events_committed_by_another_process_are_seen_until_ctrl_c(
    journal: Journal, followed: Followed
) -> None:
    followed.until(7)
    settle(journal, [1])
    followed.until(8)
    settle(journal, [2])
    followed.until(9)
    followed.process.send_signal(signal.SIGINT)
    assert followed.ended() == (ExitCode.INTERRUPTED, b"")


def test_it_ends_when_its_reader_goes_though_nothing_new_comes(followed: Followed) -> None:
    followed.until(7)
    assert followed.process.stdout is not None
    followed.process.stdout.close()
    assert followed.process.wait(DEADLINE_SECONDS) == ExitCode.FAILED
    assert followed.process.stderr is not None
    assert followed.process.stderr.read() == b""


def test_a_wait_into_a_file_or_a_pipe_that_is_read_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.001)
    reading, writing = os.pipe()
    with (tmp_path / "out").open("w") as file, os.fdopen(writing, "w") as pipe:
        for stream in (file, pipe):
            monkeypatch.setattr(sys, "stdout", stream)
            assert following.wait_for_reader()
        os.close(reading)
        assert not following.wait_for_reader()
