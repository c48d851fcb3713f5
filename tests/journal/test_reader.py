from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journal import reader as reader_module
from journal.errors import JournalCorrupt, JournalError, JournalMissing, JournalNewer, JournalOutdated
from journal.lock import Lock
from journal.log import Journal
from journal.reader import Reader
from journal.schema import APPLICATION_ID
from tests.journal.journals import NOW_US, create, park, plan, planned, rows, settle, take
from tests.journal.test_lock import daemon, process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534


def stored(reader: Reader) -> int:
    return reader.status(now_us=NOW_US).sources[0].counts.stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cleanly closed journal of ten keys, four stored."""
    journal, source = planned(tmp_path / "journal.db")
    with journal:
        settle(journal, [key.ordinal for key in take(journal, source, 4).keys])
    return tmp_path / "journal.db"


@contextmanager
def unwritable(path: Path) -> Iterator[Path]:
    """The journal copied into a directory that this process (root: another user from here on) can't write to."""
    place = Path(tempfile.mkdtemp(prefix="journal-reader-"))
    try:
        for file in path.parent.iterdir():
            shutil.copy(file, place)
            if os.geteuid() == 0:
                os.chown(place / file.name, NOBODY, NOBODY)
        place.chmod(0o555)
        if os.geteuid() == 0:
            os.seteuid(NOBODY)
        yield place / path.name
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
        place.chmod(0o755)
        shutil.rmtree(place)


def test_a_journal_that_a_daemon_writes_is_read_up_to_its_newest_commit(path: Path) -> None:
    with Journal.open(path, now_us=NOW_US) as journal, Reader.open(path) as reader:
        assert stored(reader) == 4
        settle(journal, [key.ordinal for key in take(journal, 1, 3).keys])
        assert stored(reader) == 7


def test_a_journal_of_a_killed_daemon_is_read_with_what_its_wal_holds(path: Path) -> None:
    with process(daemon(path)) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        with Reader.open(path) as reader:
            assert reader.status(now_us=NOW_US).sources[0].counts.in_flight == 3
            owner = reader.owner()
            assert owner is not None
            assert owner.pid == child.pid
        child.send_signal(signal.SIGKILL)
        child.wait()
        with Reader.open(path) as reader:
            assert reader.owner() is None
            assert reader.status(now_us=NOW_US).sources[0].counts.in_flight == 3


def test_a_killed_daemons_journal_is_read_where_the_directory_is_not_writable(path: Path) -> None:
    with process(daemon(path)) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
    with unwritable(path) as place, Reader.open(place) as reader:
        assert reader.status(now_us=NOW_US).sources[0].counts.in_flight == 3


def test_a_cleanly_closed_journal_is_read(path: Path) -> None:
    with Reader.open(path) as reader:
        assert stored(reader) == 4


def test_a_cleanly_closed_journal_is_read_where_the_directory_is_not_writable(path: Path) -> None:
    with unwritable(path) as place:
        with Reader.open(place) as reader:
            assert stored(reader) == 4
            assert reader._connection is None, "no connection outlives a batch of immutable reads"
            assert len(list(reader.events())) == reader.head_seq()
            assert [item.ordinal for item in reader.objects().objects] == [1, 2, 3, 4]
        assert sorted(file.name for file in place.parent.iterdir()) == ["journal.db", "journal.db.lock"]


def test_an_immutable_read_that_a_daemon_overtakes_is_not_believed(path: Path) -> None:
    """A daemon of another user starts between the check and the query."""
    with unwritable(path) as place, Reader.open(place) as reader:
        lock: list[Lock] = []

        def overtaken(connection: sqlite3.Connection) -> int:
            if os.getuid() == 0:
                os.seteuid(0)
            place.parent.chmod(0o755)
            lock.append(Lock(place, now_us=NOW_US, wait_seconds=0))
            if os.getuid() == 0:
                os.seteuid(NOBODY)
            place.parent.chmod(0o555) if os.getuid() else None
            return 1

        with pytest.raises(JournalError, match="in use or half recovered"):
            reader.read(overtaken)
        lock[0].release()


def test_an_immutable_read_of_a_file_that_changed_meanwhile_is_repeated(path: Path) -> None:
    with unwritable(path) as place, Reader.open(place) as reader:
        calls: list[int] = []

        def changed_once(connection: sqlite3.Connection) -> int:
            if not calls:
                os.utime(place, ns=(0, 0))
            calls.append(1)
            return len(calls)

        assert reader.read(changed_once) == 2


def test_immutable_is_never_used_while_there_is_a_wal(path: Path) -> None:
    with unwritable(path) as place:
        with Reader.open(place) as reader:
            assert reader._stamp() is not None
        if os.getuid() == 0:
            os.seteuid(0)
        place.parent.chmod(0o755)
        (place.parent / "journal.db-wal").touch()
        with Reader.open(place) as reader:
            assert reader._stamp() is None


def test_a_reader_holds_no_transaction_between_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "EVENTS_PER_PAGE", 2)
    with Reader.open(path) as reader:
        events = reader.events()
        next(events)
        assert reader._connection is not None
        assert not reader._connection.in_transaction
        connection = sqlite3.connect(path)
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        connection.close()


def test_events_page_up_to_the_head_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "EVENTS_PER_PAGE", 2)
    journal, _ = planned(tmp_path / "journal.db")
    with Reader.open(tmp_path / "journal.db") as reader:
        head = reader.head_seq()
        found = []
        for event in reader.events():
            journal.note("settings_changed", {}, now_us=NOW_US)
            found.append(event.seq)
        assert found == list(range(1, head + 1))
    journal.close()


def test_events_are_chosen_by_kind_source_time_and_number(tmp_path: Path) -> None:
    with create(tmp_path / "journal.db") as journal:
        for index, source in enumerate((1, 2, 1)):
            if index < 2:
                plan(journal, rows(1))
            journal.note("probe_recorded", {"n": index}, source=source, now_us=NOW_US + index)
    with Reader.open(tmp_path / "journal.db") as reader:
        probes = list(reader.events(kinds=["probe_recorded"]))
        assert [event.data for event in probes] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert [e.data["n"] for e in reader.events(kinds=["probe_recorded"], source="source-1")] == [0, 2]
        assert [e.data["n"] for e in reader.events(kinds=["probe_recorded"], source=2)] == [1]
        assert [e.data["n"] for e in reader.events(kinds=["probe_recorded"], since_us=NOW_US + 1)] == [1, 2]
        assert [e.data["n"] for e in reader.events(kinds=["probe_recorded"], limit=2)] == [0, 1]
        assert [e.data["n"] for e in reader.events(kinds=["probe_recorded"], after_seq=probes[0].seq)] == [
            1,
            2,
        ]
        with pytest.raises(JournalError, match="source nope"):
            list(reader.events(source="nope"))


def test_a_missing_journal_a_foreign_file_and_other_schemas_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(JournalMissing):
        Reader.open(tmp_path / "journal.db")
    (tmp_path / "text").write_text("no database" * 1000)
    with pytest.raises(JournalCorrupt):
        Reader.open(tmp_path / "text")
    for version, error in ((99, JournalNewer), (0, JournalCorrupt)):
        path = tmp_path / f"version-{version}"
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        with pytest.raises(error):
            Reader.open(path)


def test_an_older_schema_is_refused_with_what_upgrades_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = reader_module.schema.SCHEMA_VERSION
    monkeypatch.setattr(reader_module.schema, "SCHEMA_VERSION", found + 1)
    with pytest.raises(JournalOutdated, match=f"schema version is {found}, this program's is {found + 1}"):
        Reader.open(path)


def test_reading_leaves_the_journal_as_it_was(path: Path) -> None:
    def facts() -> tuple[int, int, bytes]:
        found = path.stat()
        return found.st_size, stat.S_IMODE(found.st_mode), path.read_bytes()

    before = facts()
    with Reader.open(path) as reader:
        reader.status(now_us=NOW_US)
        reader.explain("k00001")
    assert facts() == before


@pytest.mark.parametrize("left", [0, 1, 3], ids=["before the first event", "after one", "after some"])
def test_projections_that_are_being_derived_anew_are_never_shown(
    path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """A rebuild that is killed after so many transactions of one event, or still at work there."""
    monkeypatch.setattr("journal.appending.FOLD_EVENTS_MAX", 1)

    class Killed(Journal):
        commits = 0

        def _commit(self) -> None:
            super()._commit()
            self.commits += 1
            if self.commits == left + 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Killed.rebuild(path, now_us=NOW_US)
    with Reader.open(path) as reader:
        asked: list[Callable[[], object]] = [
            lambda: reader.status(now_us=NOW_US),
            lambda: reader.explain("k00001"),
            reader.objects,
            lambda: list(reader.events(source="source-1")),
            reader.resumption,
        ]
        for ask in asked:
            with pytest.raises(JournalError, match="its projections are being derived anew") as refused:
                ask()
            assert "backfillctl journal rebuild" in refused.value.hint
        assert len(list(reader.events())) == reader.head_seq()
    Journal.rebuild(path, now_us=NOW_US)
    with Reader.open(path) as reader:
        assert stored(reader) == 4


@pytest.mark.parametrize("statement", ["DELETE FROM progress", "UPDATE progress SET name = NULL"])
def test_a_journal_whose_progress_is_lost_is_refused_with_a_hint(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()
    with Reader.open(path) as reader, pytest.raises(JournalError, match="being derived anew"):
        reader.status(now_us=NOW_US)


def test_status_names_parked_keys_by_reason(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source, 3)
    park(journal, 1, "rejected")
    park(journal, 3, "rejected")
    park(journal, 2, "forbidden")
    with Reader.open(tmp_path / "journal.db") as reader:
        found = reader.status(now_us=NOW_US).sources[0]
    assert [(reason.failure, reason.count, reason.example_key) for reason in found.parked] == [
        ("rejected", 2, "k00002"),
        ("forbidden", 1, "k00001"),
    ]
    assert found.checkpoint.held_by_parked == 3
    journal.close()
