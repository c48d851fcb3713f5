from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.created_objects import (
    CreatedObject,
    expected_page,
    of_row_keys,
    undone_page,
    unplanned_row_keys,
)
from journal.entries import Revocation, Settled
from journal.events import Kind
from journal.histories import ExpectedObject
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.journal.journals import MD5, NOW_US, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from journal.log import Journal


def ask(journal: Journal, question: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    with Reader.open(journal.path) as reader:
        return reader.read(lambda connection: question(connection, *arguments, **named))


def created(
    ordinal: int, source: int, outcome_seq: int, ts_us: int = NOW_US, **changes: Any
) -> CreatedObject:
    recorded: dict[str, Any] = {
        "ordinal": ordinal,
        "source": source,
        "row_key": f"k{ordinal - 1:05}",
        "created_at": NOW_US - 999 - ordinal,
        "size": 100,
        "md5": MD5,
        "etag": None,
        "outcome": Outcome.STORED,
        "outcome_seq": outcome_seq,
    }
    undone = changes.pop("undone", False)
    return CreatedObject(ExpectedObject(**{**recorded, **changes}), ts_us, undone)


def copied(path: Path) -> tuple[Journal, int, int, int]:
    """Ten keys, copied in two events at two moments; the second half with what an ETag and a version say."""
    journal, source = planned(path)
    take(journal, source)
    settle(journal, range(1, 6))
    first = journal.statistics().head_seq
    entries = [Settled(ordinal, Outcome.STORED, 100, MD5, "e-2", "v1") for ordinal in range(6, 11)]
    journal.record(entries, now_us=NOW_US + 7)
    return journal, source, first, journal.statistics().head_seq


def test_created_objects_come_page_by_page_with_the_moment_of_their_outcome(tmp_path: Path) -> None:
    journal, source, first, second = copied(tmp_path / "journal.db")
    page = ask(journal, expected_page, after_seq=0, limit=3)
    assert page.objects == tuple(created(ordinal, source, first) for ordinal in range(1, 6))
    assert page.next_after == first
    behind = ask(journal, expected_page, after_seq=first, limit=3)
    assert behind.objects == tuple(
        created(ordinal, source, second, NOW_US + 7, etag="e-2", version_id="v1") for ordinal in range(6, 11)
    )


def test_an_undone_object_is_told_until_it_is_noted_as_gone(tmp_path: Path) -> None:
    journal, source, first, second = copied(tmp_path / "journal.db")
    journal.revoke([2, 3, 7], Revocation.UNDO, message="m", who="op", now_us=NOW_US + 9)
    head_seq = journal.statistics().head_seq
    seventh = created(7, source, second, NOW_US + 7, etag="e-2", version_id="v1", undone=True)
    half_undone = [created(ordinal, source, first, undone=True) for ordinal in (2, 3)]
    page = ask(journal, undone_page, source, until_seq=head_seq, after_ordinal=0, limit=2)
    assert (page.objects, page.next_after) == (tuple(half_undone), 3)
    page = ask(journal, undone_page, source, until_seq=head_seq, after_ordinal=3, limit=2)
    assert (page.objects, page.next_after) == ((seventh,), None)
    assert ask(journal, undone_page, source, until_seq=head_seq - 1, after_ordinal=0, limit=9).objects == ()
    assert ask(journal, undone_page, source + 1, until_seq=head_seq, after_ordinal=0, limit=9).objects == ()
    journal.note(Kind.OBJECTS_DELETED, {"ordinals": [2, 7]}, now_us=NOW_US, source=source)
    page = ask(journal, undone_page, source, until_seq=head_seq, after_ordinal=0, limit=9)
    assert page.objects == (half_undone[1],)


def test_row_keys_are_found_in_every_source_settled_or_undone(tmp_path: Path) -> None:
    journal, source, first, _ = copied(tmp_path / "journal.db")
    other = plan(journal, rows(1, first=1))
    take(journal, other)
    settle(journal, [11], Outcome.PRESENT)
    newest = journal.statistics().head_seq
    journal.revoke([1], Revocation.UNDO, message="m", who="op", now_us=NOW_US)
    found = ask(journal, of_row_keys, ["k00001", "k00000", "unknown", "k00001"])
    assert found == (
        created(1, source, first, undone=True),
        created(2, source, first),
        created(11, other, newest, row_key="k00001", created_at=NOW_US - 1001, outcome=Outcome.PRESENT),
    )
    assert ask(journal, unplanned_row_keys, ["k00001", "unknown", "k00009"]) == ["unknown"]


def test_an_undone_key_that_was_planned_again_is_the_newer_plans(tmp_path: Path) -> None:
    journal, source, _, _ = copied(tmp_path / "journal.db")
    journal.revoke([1], Revocation.UNDO, message="m", who="op", now_us=NOW_US)
    plan(journal, [row._replace(supersedes=1) for row in rows(1)], source=source)
    take(journal, source)
    settle(journal, [11])
    head_seq = journal.statistics().head_seq
    assert ask(journal, undone_page, source, until_seq=head_seq, after_ordinal=0, limit=9).objects == ()
    [found] = ask(journal, of_row_keys, ["k00000"])
    assert (found.recorded.ordinal, found.undone) == (11, False)
