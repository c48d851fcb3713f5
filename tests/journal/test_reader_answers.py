"""What a reader gives page by page, and what it leaves behind: nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journal import reader as reader_module
from journal.connection import spill_into
from journal.entries import AttemptFailed, Settled
from journal.errors import JournalCorrupt, JournalError
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.journal.journals import MD5, NOW_US, plan, planned, reopen, rows, settle, take
from tests.journal.test_reader import unwritable

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A cleanly closed journal of two sources: ten keys, four of them stored, and three keys, one of them present."""
    journal, first = planned(tmp_path / "journal.db")
    with journal:
        second = plan(journal, rows(3, first=50))
        for source in (first, second):
            take(journal, source)
        settle(journal, [1, 2])
        settle(journal, [3, 4], size=7)
        settle(journal, [12], Outcome.PRESENT)
        settle(journal, [5], Outcome.SKIPPED)
        journal.record([AttemptFailed(6, "PUT", "server", "m")], now_us=NOW_US)
    return tmp_path / "journal.db"


def count(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT count(*) FROM outcome").fetchone()[0]
    assert isinstance(found, int)
    return found


def beside(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_an_undisturbing_reader_leaves_nothing_beside_a_journal_that_nobody_holds(path: Path) -> None:
    before = beside(path)
    with Reader.open(path, undisturbing=True) as reader:
        assert reader.read(count) == 6
        assert beside(path) == before
    assert beside(path) == before


def test_an_undisturbing_reader_follows_whoever_begins_to_write(path: Path) -> None:
    with Reader.open(path, undisturbing=True) as reader:
        assert reader.read(count) == 6
        with reopen(path) as journal:
            settle(journal, [6])
            assert reader.read(count) == 7
            settle(journal, [7])
            assert reader.read(count) == 8


def test_what_a_reader_has_opened_is_closed_with_it_once_and_for_all(path: Path) -> None:
    with Reader.open(path, undisturbing=True) as reader:
        header = reader._header
        assert header is not None
        os.fstat(header)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(header)
    reader.close()
    assert reader.read(count) == 6
    reader.close()


def test_a_query_that_fails_leaves_no_transaction_behind(path: Path) -> None:
    def fails(connection: sqlite3.Connection) -> None:
        assert connection.in_transaction
        raise ZeroDivisionError

    with Reader.open(path) as reader:
        with pytest.raises(ZeroDivisionError):
            reader.read(fails)
        assert reader._connection is not None
        assert not reader._connection.in_transaction
        assert reader.read(count) == 6


def test_what_sqlite_refuses_is_told_with_the_journals_name(path: Path) -> None:
    told = r"open journal .*journal\.db: no such table"
    with Reader.open(path) as reader:
        with pytest.raises(JournalError, match=told):
            reader.read(lambda connection: connection.execute("SELECT * FROM nowhere"))
        with pytest.raises(JournalError, match=told), reader.working_connection() as connection:
            connection.execute("SELECT * FROM nowhere")


def test_an_immutable_read_is_tried_three_times(path: Path) -> None:
    tries: list[int] = []

    def disturbed(connection: sqlite3.Connection) -> None:
        tries.append(count(connection))
        os.utime(place, ns=(0, len(tries)))

    with unwritable(path) as place, Reader.open(place) as reader:
        with pytest.raises(JournalError, match="in use or half recovered") as refused:
            reader.read(disturbed)
        assert refused.value.hint == "run the command as the journal's owner"
    assert tries == [6, 6, 6]


def _longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(4096))


def _another_file(path: Path) -> None:
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def _byte(at: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(at)
            (found,) = file.read(1)
            file.seek(at)
            file.write(bytes([found ^ 1]))

    return change


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (_longer, False),
        (_another_file, False),
        (lambda path: None, True),
        # SQLite's change counter, and the copy of it beside the version that wrote it.
        *((_byte(at), False) for at in (24, 27, 92, 95)),
        *((_byte(at), True) for at in (23, 28, 91, 96)),
    ],
)
def test_a_file_is_the_same_by_its_identity_its_size_and_its_change_counter_when_its_time_is(
    path: Path, change: Callable[[Path], None], same: bool
) -> None:
    reader = Reader(path)
    stamp, facts = reader._stamp(), path.stat()
    assert stamp is not None
    change(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert (reader._stamp() == stamp) is same
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1000))
    assert reader._stamp() != stamp
    reader.close()


def test_a_file_that_can_not_be_opened_is_told_with_who_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(asked: Path, flags: int) -> int:
        if asked == path:
            raise PermissionError(13, "Permission denied")
        return real(asked, flags)

    real = os.open
    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(JournalError, match=r"journal\.db: Permission denied") as refused:
        Reader(path)._stamp()
    assert "owner" in refused.value.hint


def test_a_working_connection_spills_beside_the_journal_and_is_closed_at_the_end(path: Path) -> None:
    with closing(sqlite3.connect(":memory:")) as earlier:
        spill_into(earlier, path.parent.parent)
    with Reader.open(path) as reader:
        with reader.working_connection() as connection:
            connection.execute("CREATE TEMP TABLE t AS SELECT * FROM outcome")
            assert connection.execute("PRAGMA temp_store_directory").fetchone() == (
                str(path.parent.resolve()),
            )
            assert count(connection) == 6
        with pytest.raises(Exception, match="closed"):
            connection.execute("SELECT 1")


def test_a_working_connection_on_a_file_that_changed_meanwhile_is_not_believed(path: Path) -> None:
    with unwritable(path) as place, Reader.open(place) as reader:
        with reader.working_connection() as connection:
            assert count(connection) == 6
        with (
            pytest.raises(JournalError, match="in use or half recovered"),
            reader.working_connection(),
        ):
            os.utime(place, ns=(0, 0))


def test_data_of_another_shape_than_any_writers_is_corrupt(path: Path) -> None:
    def looks(connection: sqlite3.Connection) -> object:
        return {}["outcome"]

    with (
        Reader.open(path) as reader,
        pytest.raises(JournalCorrupt, match=r"what no writer writes \(KeyError\('outcome'\)\)"),
    ):
        reader.read_projected(looks)


def test_events_are_given_in_pages_up_to_a_limit_and_between_two_numbers(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "EVENTS_PER_PAGE", 2)
    with Reader.open(path) as reader:
        head_seq = reader.head_seq()
        asked = {
            (): range(1, head_seq + 1),
            (("limit", 0),): (),
            (("limit", 3),): (1, 2, 3),
            (("limit", 4),): (1, 2, 3, 4),
            (("after_seq", 2), ("until_seq", 5)): (3, 4, 5),
            (("after_seq", 2), ("limit", 1)): (3,),
            (("after_seq", head_seq),): (),
        }
        for options, expected in asked.items():
            assert [event.seq for event in reader.events(**dict(options))] == list(expected), options


def test_events_of_several_kinds_and_of_a_source_are_chosen(path: Path) -> None:
    kinds = (Kind.SOURCE_ADDED, Kind.ATTEMPT_FAILED)
    with Reader.open(path) as reader:
        found = [(event.kind, event.source) for event in reader.events(kinds=kinds)]
        of_first = [event.kind for event in reader.events(kinds=kinds, source="source-1")]
        of_second = [event.kind for event in reader.events(kinds=kinds, source=2)]
    assert found == [(kinds[0], 1), (kinds[0], 2), (kinds[1], 1)]
    assert (of_first, of_second) == (list(kinds), [kinds[0]])


def test_an_event_is_given_as_it_was_recorded(path: Path) -> None:
    with reopen(path) as journal:
        seq = journal.note(Kind.PROBE_RECORDED, {"n": 1}, source=2, now_us=NOW_US + 5)
    with Reader.open(path) as reader:
        (event,) = reader.events(after_seq=seq - 1)
    assert event == (seq, NOW_US + 5, "probe_recorded", 1, 2, {"n": 1})


def test_the_plan_is_given_page_by_page_with_each_keys_source(path: Path) -> None:
    with Reader.open(path) as reader:
        assert reader.row_keys(after=9, limit=3) == [(10, "k00009", 1), (11, "k00050", 2), (12, "k00051", 2)]
        assert reader.row_keys(after=12) == [(13, "k00052", 2)]
        assert [ordinal for ordinal, *_ in reader.row_keys()] == list(range(1, 14))
        assert reader.row_keys(after=13) == []


def test_objects_are_given_page_by_page_up_to_an_event(path: Path) -> None:
    with Reader.open(path) as reader:
        whole = reader.objects().objects
        assert [(one.ordinal, one.source, one.size, one.md5) for one in whole] == [
            (1, 1, 100, MD5),
            (2, 1, 100, MD5),
            (3, 1, 7, MD5),
            (4, 1, 7, MD5),
            (12, 2, 100, MD5),
        ]
        first = reader.objects(limit=1)
        assert [one.ordinal for one in first.objects] == [1, 2]
        until = whole[2].outcome_seq
        rest = reader.objects(after_seq=whole[0].outcome_seq, until_seq=until)
        assert [one.ordinal for one in rest.objects] == [3, 4]
        assert reader.objects_of([12, 2, 5, 6]) == [whole[1], whole[4]]


def test_a_draw_is_of_the_objects_of_some_sources_up_to_an_event(path: Path) -> None:
    with Reader.open(path) as reader:
        head_seq, second = reader.head_seq(), reader.objects().objects[2].outcome_seq
        assert reader.draw(seed=1, keys=9, until_seq=head_seq, sources=(1, 2)) == [1, 2, 3, 4, 12]
        assert reader.draw(seed=1, keys=9, until_seq=head_seq, sources=(2,)) == [12]
        assert reader.draw(seed=1, keys=9, until_seq=second - 1, sources=(1, 2)) == [1, 2]
        draws = {
            tuple(reader.draw(seed=seed, keys=2, until_seq=head_seq, sources=(1,))) for seed in range(20)
        }
    assert len(draws) > 1
    assert {len(drawn) for drawn in draws} == {2}


def test_failed_attempts_and_the_next_session_are_told_from_the_same_journal(path: Path) -> None:
    with Reader.open(path) as reader:
        assert [(one.source, one.operation, one.failure) for one in reader.attempts()] == [
            ("source-1", "PUT", "server")
        ]
        assert reader.resumption().status == reader.status(now_us=NOW_US)
        with reopen(path) as journal:
            journal.start_session(now_us=NOW_US, facts={"pid": os.getpid()})
            owner = reader.owner()
            assert owner is not None
            assert owner.pid == os.getpid()
            assert reader.resumption().status.owner == reader.status(now_us=NOW_US).owner == owner


def test_a_key_is_explained_once_for_each_time_it_was_planned(path: Path) -> None:
    with reopen(path) as journal:
        journal.record([Settled(n, Outcome.STORED, 100, MD5) for n in range(6, 11)], now_us=NOW_US)
        plan(journal, [rows(1)[0]._replace(supersedes=1)], source=1)
    with Reader.open(path) as reader:
        assert [(one.ordinal, one.source) for one in reader.explain("k00000")] == [
            (1, "source-1"),
            (14, "source-1"),
        ]
        assert reader.explain("nothing") == []
