from __future__ import annotations

import errno
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import journal.log
from journal import maintenance
from journal.checkpoint import Order
from journal.entries import Parked, Settled
from journal.errors import IllegalTransition, JournalFailed, JournalFull
from journal.events import DATA_CHARS_MAX
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.stage_file import discard_stage
from tests.journal.journals import MD5, NOW_US, plan, planned, reopen, rows, settle, take

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


class Crash(BaseException):
    """Stands for SIGKILL at a commit."""


class CrashingJournal(Journal):
    """A journal that dies at commit `left`, before or after it reaches the disk."""

    left = -1
    after = False

    def _commit(self) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Crash
        super()._commit()
        if self.left == 0:
            raise Crash


def test_a_full_disk_keeps_nothing_of_the_batch_and_the_same_call_works_once_there_is_room(
    tmp_path: Path,
) -> None:
    """Tried with ever more room, so that it runs out in the event, in each projection, and then not at all."""
    journal, source = planned(tmp_path / "journal.db", 3000)
    claim = take(journal, source, 2000, 2000)
    batch = [Settled(key.ordinal, Outcome.STORED, 100, MD5) for key in claim.keys]
    before = journal.statistics(), journal.counts()
    (pages,) = journal._connection.execute("PRAGMA page_count").fetchone()
    refusals = 0
    for room in range(1000):
        journal._connection.execute(f"PRAGMA max_page_count = {pages + room}")
        try:
            journal.record(batch, now_us=NOW_US)
            break
        except JournalFull:
            refusals += 1
        assert (journal.statistics(), journal.counts()) == before
    assert refusals > 20
    assert journal.counts()["source-1"].stored == 2000
    journal.close()
    assert maintenance.check(tmp_path / "journal.db") == []


def test_an_event_beyond_the_limit_is_refused_and_the_log_stays_usable(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    claim = take(journal, source, 2)
    before = journal.statistics()
    with pytest.raises(IllegalTransition, match="characters"):
        journal.record(
            [
                Settled(claim.keys[0].ordinal, Outcome.STORED, 1, MD5),
                Parked(claim.keys[1].ordinal, "rejected", "x" * DATA_CHARS_MAX),
            ],
            now_us=NOW_US,
        )
    assert journal.statistics() == before
    settle(journal, [1, 2])
    journal.close()


@pytest.mark.parametrize("after", [False, True])
def test_a_commit_that_was_interrupted_makes_the_log_refuse_every_later_call(
    tmp_path: Path, after: bool
) -> None:
    journal, source = planned(tmp_path / "journal.db")
    journal.close()
    journal = CrashingJournal.open(tmp_path / "journal.db", now_us=NOW_US)
    take(journal, source, 3)
    journal.left, journal.after = 1, after
    with pytest.raises(Crash):
        settle(journal, [1, 2])
    calls: list[Callable[[], object]] = [
        lambda: settle(journal, [3]),
        lambda: journal.claim(source, limit=1, window=9, now_us=NOW_US),
        lambda: journal.release([3], now_us=NOW_US),
        lambda: journal.note("halted", {}, now_us=NOW_US),
        lambda: journal.end_session(now_us=NOW_US, reason="", exit_code=1),
        lambda: journal.recover(now_us=NOW_US),
        lambda: plan(journal, rows(1)),
        lambda: journal.complete(now_us=NOW_US),
        journal.counts,
    ]
    for call in calls:
        with pytest.raises(JournalFailed, match=r"failed before|interrupted"):
            call()
    journal.close()
    with reopen(tmp_path / "journal.db") as journal:
        assert journal.counts()["source-1"].stored == (2 if after else 0)


def test_an_io_error_in_mid_run_leaves_the_outcome_unknown_and_the_next_process_finds_out(
    tmp_path: Path,
) -> None:
    journal, _ = planned(tmp_path / "journal.db", 5000)
    journal.close()
    script = f"""
        import resource, signal, sys
        from pathlib import Path
        from journal.errors import JournalFailed
        from journal.log import Journal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        journal = Journal.open(Path({str(tmp_path / "journal.db")!r}), now_us=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        for attempt in range(2):
            try:
                while True:
                    journal.claim(1, limit=100, window=9000, now_us=1)
            except JournalFailed as error:
                print(error.problem)
        journal.close()
    """
    answer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    first, second = answer.stdout.splitlines()
    assert "SQLITE_IOERR_WRITE" in first
    assert "whether the last batch was committed is unknown" in first
    assert "it failed before" in second
    with reopen(tmp_path / "journal.db") as journal:
        assert journal.in_flight % 100 == 0
        journal.recover(now_us=NOW_US)
        settle(journal, [key.ordinal for key in take(journal, 1).keys])


def test_memory_follows_the_disk_only_after_the_commit(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    journal.close()
    journal = CrashingJournal.open(tmp_path / "journal.db", now_us=NOW_US)
    before = journal.statistics().head_seq
    journal.left = 1
    with pytest.raises(Crash):
        take(journal, source, 3)
    assert journal.statistics().head_seq == before
    journal.close()


def test_projections_that_lag_are_folded_forward_at_opening(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source, 4)
    settle(journal, [1, 2])
    expected = journal.counts()
    journal.close()
    connection = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    (head,) = connection.execute("SELECT max(seq) FROM event").fetchone()
    connection.execute("DELETE FROM outcome")
    connection.execute("UPDATE claim SET left = 4")
    connection.execute("UPDATE tally SET stored = 0, stored_bytes = 0, settled_bytes = 0")
    connection.execute("UPDATE progress SET projected_seq = ?", (head - 1,))
    connection.close()
    with reopen(tmp_path / "journal.db") as journal:
        assert (journal.counts(), journal.in_flight) == (expected, 2)


def on_a_broken_disk(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_stage_that_can_not_be_deleted_any_more_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "unlink", on_a_broken_disk)
    with pytest.raises(JournalFailed, match=r"delete .*journal\.db\.stage: Input/output error"):
        discard_stage(tmp_path / "journal.db")


def test_what_is_left_of_a_journal_that_could_not_be_made_hides_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        monkeypatch.setattr(journal.log, "remove_database", on_a_broken_disk)
        raise JournalFull("create journal: the disk is full")

    monkeypatch.setattr(journal.log, "_first_event", full)
    with pytest.raises(JournalFull):
        Journal.create(tmp_path / "journal.db", name="t", cutoff_us=None, order=Order.NEWEST_FIRST, now_us=1)
