from __future__ import annotations

import dataclasses
import os
import socket
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.as_of import EVENTS_PER_PAGE, status_as_of
from journal.entries import AttemptFailed, Parked, Settled
from journal.errors import JournalCorrupt
from journal.lifecycle import Outcome
from journal.lock import Owner
from journal.log import Journal
from journal.reader import Reader
from journal.status import MigrationState, MigrationStatus
from tests.journal.journals import MD5, NOW_US, abandon, create, plan, planned, reopen, rows, settle, take

SECOND_US = 1_000_000
DEEDS = st.lists(st.tuples(st.integers(0, 21), st.integers(0, 5)), min_size=1, max_size=20)


class Life:
    """A journal through which one deed after the other is done, each at its own second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now_us = NOW_US
        self.journal = create(path)
        self.serial = 0
        self.parked = 0
        self.seen: dict[int, tuple[int, MigrationStatus]] = {}
        self.look()

    def look(self) -> None:
        """Keep the status of this moment; of one event the latest, since the log can't tell two moments of it."""
        with Reader.open(self.path) as reader:
            found = reader.status(now_us=self.now_us)
        self.seen[found.head_seq] = (self.now_us, found)

    def do(self, deed: int, number: int) -> None:
        self.now_us += SECOND_US
        deeds = (
            self.plan, self.claim, self.settle, self.settle, self.park, self.fail, self.release, self.requeue,
            self.pause, self.resume, self.tune, self.throttle, self.unthrottle, self.sample, self.sample,
            self.drain, self.halt, self.end, self.kill, self.begin, self.complete, self.probe,
        )  # fmt: skip
        deeds[deed](number)
        if not self.ended:
            # A sign of the session's life, which what commands record without one too is not.
            self.journal.note("settings_changed", {}, now_us=self.now_us)
        self.look()

    def begin(self, _number: int = 0) -> None:
        if not self.journal.latest_note("session_started") or self.ended:
            self.journal.start_session(
                now_us=self.now_us, facts={"pid": os.getpid(), "host": socket.gethostname()}
            )
            self.journal.recover(now_us=self.now_us)

    @property
    def ended(self) -> bool:
        with Reader.open(self.path) as reader:
            session = reader.status(now_us=self.now_us).session
        return session is None or session.ended_us is not None

    def flying(self) -> list[int]:
        return sorted(self.journal._projector.in_flight)

    def plan(self, number: int) -> None:
        if len(self.journal.sources) < 3:
            self.begin()
            self.serial += 1
            name = f"s{self.serial}"
            source = self.journal.add_source(name, {"table": name}, now_us=self.now_us)
            self.journal.begin_pass(source, kind="sweep", now_us=self.now_us)
            if number % 2:
                planned_rows = rows(number + 3, first=100 * self.serial)
                self.journal.seal_chunk(source, planned_rows, now_us=self.now_us)
                self.journal.seal_segment(
                    source, excluded={"where": number}, unusable=0, unusable_example=None, now_us=self.now_us
                )

    def claim(self, number: int) -> None:
        self.begin()
        for source in self.journal.sources.values():
            self.journal.claim(source.id, limit=number + 1, window=8, now_us=self.now_us)

    def settle(self, number: int) -> None:
        ended = self.flying()[: number + 1]
        outcomes = list(Outcome)
        if ended:
            self.journal.record(
                [Settled(one, outcomes[one % len(outcomes)], number, MD5) for one in ended],
                now_us=self.now_us,
            )

    def park(self, number: int) -> None:
        self.journal.record(
            [Parked(one, "rejected", f"no {number}") for one in self.flying()[:1]], now_us=self.now_us
        )

    def fail(self, number: int) -> None:
        self.journal.record(
            [AttemptFailed(one, "PUT", "server", f"500 {number}", 500) for one in self.flying()[:2]],
            now_us=self.now_us,
        )

    def release(self, number: int) -> None:
        self.journal.release(self.flying()[:number], now_us=self.now_us)

    def requeue(self, _number: int) -> None:
        self.journal.requeue(who="op", now_us=self.now_us)

    def pause(self, _number: int) -> None:
        self.journal.pause(who="alice", now_us=self.now_us)

    def resume(self, _number: int) -> None:
        self.journal.resume(who="bob", now_us=self.now_us)

    def tune(self, number: int) -> None:
        self.journal.set_tunables(
            {"concurrency": number}, {"concurrency": number}, who="alice", now_us=self.now_us
        )

    def throttle(self, number: int) -> None:
        self.begin()
        self.journal.begin_throttle("replica_lag", detail=f"{number} s", now_us=self.now_us)

    def unthrottle(self, number: int) -> None:
        self.begin()
        self.journal.end_throttle("replica_lag", detail="", milliseconds=number, now_us=self.now_us)

    def sample(self, number: int) -> None:
        self.begin()
        self.journal.sample({"network": number}, now_us=self.now_us)

    def drain(self, _number: int) -> None:
        self.begin()
        self.journal.note("drain_requested", {}, now_us=self.now_us)

    def halt(self, number: int) -> None:
        self.begin()
        self.journal.note("halted", {"message": str(number)}, now_us=self.now_us)

    def probe(self, number: int) -> None:
        self.begin()
        self.journal.note("probe_recorded", {"found": number}, now_us=self.now_us)

    def end(self, _number: int) -> None:
        if not self.ended:
            self.journal.release(self.flying(), now_us=self.now_us)
            self.journal.end_session(now_us=self.now_us, reason="drained", exit_code=143)
        self.journal.close()
        self.look()
        self.journal = Journal.open(self.path, now_us=self.now_us, wait_seconds=0)

    def kill(self, _number: int) -> None:
        abandon(self.journal)
        self.look()
        self.now_us += SECOND_US
        self.journal = Journal.open(self.path, now_us=self.now_us, wait_seconds=0)
        self.journal.start_session(
            now_us=self.now_us, facts={"pid": os.getpid(), "host": socket.gethostname()}
        )
        self.journal.recover(now_us=self.now_us)

    def complete(self, _number: int) -> None:
        self.begin()
        if not self.flying():
            self.journal.complete(now_us=self.now_us)


def nobodys(found: MigrationStatus | None) -> MigrationStatus:
    assert found is not None
    return dataclasses.replace(found, owner=None)


@settings(deadline=None, max_examples=25)
@given(DEEDS)
def test_the_status_of_any_moment_is_what_status_said_then(deeds: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        life = Life(Path(directory) / "journal.db")
        for deed, number in deeds:
            life.do(deed, number)
        with Reader.open(life.path) as reader:
            for at_us, then in life.seen.values():
                assert nobodys(status_as_of(reader, at_us)) == nobodys(then)
        life.journal.close()
        before = life.path.read_bytes()
        with Reader.open(life.path) as reader:
            for at_us, then in list(life.seen.values())[:-1]:
                assert nobodys(status_as_of(reader, at_us)) == nobodys(then)
        assert life.path.read_bytes() == before


def test_it_ends_at_the_newest_event_that_is_not_later_whatever_the_clock_did(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    heads = {}
    for second in (10, 20, 5, 15, 30):
        journal.note("settings_changed", {}, now_us=NOW_US + second * SECOND_US)
        heads[second] = max(heads.values(), default=6) + 1
    with Reader.open(tmp_path / "journal.db") as reader:
        assert reader.head_seq() == heads[30]

        def head(second: float) -> int:
            found = status_as_of(reader, NOW_US + round(second * SECOND_US))
            assert found is not None
            return found.head_seq

        assert head(5) == head(9.9) == heads[5]
        assert head(10) == head(12) == heads[5], "the later of the two times at which the clock said so"
        assert head(15) == head(29.9) == heads[15]
        assert head(30) == head(1000) == heads[30]


def test_there_is_no_status_before_the_first_event(tmp_path: Path) -> None:
    create(tmp_path / "journal.db")
    with Reader.open(tmp_path / "journal.db") as reader:
        assert status_as_of(reader, NOW_US - 1) is None
        assert status_as_of(reader, NOW_US) is not None


def test_a_session_is_alive_while_more_of_it_is_recorded_and_killed_from_its_last_event_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 2)
    journal.note("settings_changed", {}, now_us=NOW_US + SECOND_US)
    abandon(journal)
    with reopen(path) as journal:
        journal.requeue(who="op", now_us=NOW_US + 2 * SECOND_US)
        journal.pause(who="op", now_us=NOW_US + 3 * SECOND_US)
        journal.start_session(now_us=NOW_US + 4 * SECOND_US, facts={})
    with Reader.open(path) as reader:
        states = [status_as_of(reader, NOW_US + second * SECOND_US) for second in range(5)]
    assert [found.state for found in states if found is not None] == [
        MigrationState.RUNNING,
        MigrationState.KILLED,
        MigrationState.KILLED,
        MigrationState.KILLED,
        MigrationState.KILLED,
    ]


def test_verifying_after_a_kill_is_no_sign_that_the_session_lived(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 2)
    abandon(journal)
    with reopen(path) as journal:
        for second, kind in enumerate(
            ["verification_started", "finding_recorded", "verification_finished"], 1
        ):
            journal.note(kind, {}, now_us=NOW_US + second * SECOND_US)
    with Reader.open(path) as reader:
        states = [status_as_of(reader, NOW_US + second * SECOND_US) for second in range(4)]
    assert [found.state for found in states if found is not None] == [MigrationState.KILLED] * 4


def test_another_server_accepted_after_a_kill_is_no_sign_that_the_session_lived(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 2)
    abandon(journal)
    with reopen(path) as journal:
        journal.accept_server({}, now_us=NOW_US + SECOND_US, who="op")
    with Reader.open(path) as reader:
        found = status_as_of(reader, NOW_US)
    assert found is not None
    assert found.state is MigrationState.KILLED


def test_who_held_the_journal_then_is_the_process_of_the_session_that_was_open(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = create(path)
    journal.start_session(now_us=NOW_US + SECOND_US, facts={"pid": 7, "host": "db1"})
    journal.note("settings_changed", {}, now_us=NOW_US + 2 * SECOND_US)
    journal.end_session(now_us=NOW_US + 3 * SECOND_US, reason="drained", exit_code=143)
    with Reader.open(path) as reader:
        owners = [status_as_of(reader, NOW_US + second * SECOND_US) for second in range(4)]
    assert [found.owner for found in owners if found is not None] == [
        None,
        Owner(7, "db1", NOW_US + SECOND_US),
        Owner(7, "db1", NOW_US + SECOND_US),
        None,
    ]


def test_it_is_told_how_far_the_fold_is_page_by_page(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    for _ in range(2 * EVENTS_PER_PAGE):
        journal.note("settings_changed", {}, now_us=NOW_US)
    told: list[tuple[int, int]] = []
    with Reader.open(tmp_path / "journal.db") as reader:
        status_as_of(reader, NOW_US, folded=lambda done, of: told.append((done, of)))
        head = reader.head_seq()
    assert told == [(EVENTS_PER_PAGE, head), (2 * EVENTS_PER_PAGE, head), (head, head)]


def test_a_log_that_contradicts_itself_is_corrupt_and_not_guessed_at(tmp_path: Path) -> None:
    journal = create(tmp_path / "journal.db")
    source = plan(journal, rows(4))
    take(journal, source)
    settle(journal, [1])
    journal.close()
    writer = sqlite3.connect(tmp_path / "journal.db")
    writer.execute("DROP TRIGGER event_refuses_update")
    writer.execute("UPDATE event SET data = '[[77,\"S\",1,\"\"]]' WHERE kind = 'outcomes_recorded'")
    writer.commit()
    writer.close()
    with Reader.open(tmp_path / "journal.db") as reader, pytest.raises(JournalCorrupt, match="contradicts"):
        status_as_of(reader, NOW_US)
