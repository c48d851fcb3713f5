from __future__ import annotations

from typing import TYPE_CHECKING

from journal.entries import AttemptFailed, Revocation
from journal.reader import Reader
from journal.report_rows import current_keys
from tests.journal.journals import MD5, NOW_US, park, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.log import Journal


def told(journal: Journal, *, planned_hi: int = 100, head_seq: int | None = None, per_page: int = 3):
    head_seq = journal.statistics().head_seq if head_seq is None else head_seq
    with Reader.open(journal.path) as reader:
        pages = list(current_keys(reader, head_seq=head_seq, planned_hi=planned_hi, keys_per_page=per_page))
    journal.close()
    assert all(len(page) <= per_page for page in pages)
    return {key.ordinal: key for page in pages for key in page}


def failed(journal: Journal, ordinal: int, failure: str, status: int) -> None:
    entry = AttemptFailed(ordinal, "PUT", failure, f"answered {status}", status, f"Code{status}")
    journal.record([entry], now_us=NOW_US)


def test_a_parked_key_is_told_with_the_attempt_that_it_was_parked_for(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    failed(journal, 1, "server", 500)
    failed(journal, 1, "rejected", 400)
    park(journal, 1, "rejected")
    key = told(journal)[1]
    assert (key.became, key.failure, key.http_status, key.code, key.attempts) == (
        "parked",
        "rejected",
        400,
        "Code400",
        2,
    )
    assert key.message == "the server refuses this key"


def test_a_parked_key_is_not_told_with_an_attempt_that_failed_otherwise(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    failed(journal, 1, "server", 500)
    park(journal, 1, "foreign_object")
    key = told(journal)[1]
    assert (key.failure, key.http_status, key.code, key.attempts) == ("foreign_object", None, None, 1)


def test_keys_without_an_outcome_are_told_by_where_they_are(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source, limit=5)
    settle(journal, [1, 2], size=70)
    failed(journal, 3, "server", 500)
    journal.release([4], now_us=NOW_US)
    found = told(journal)
    became = [found[ordinal].became for ordinal in range(1, 11)]
    assert became == ["stored", "stored", "in_flight", "waiting", "in_flight", *["unclaimed"] * 5]
    assert [(key.size, key.md5, key.attempts) for key in (found[1], found[3], found[10])] == [
        (70, MD5, 1),
        (100, "", 1),
        (100, "", 0),
    ]
    assert (found[3].failure, found[3].message) == ("server", "answered 500")
    assert [key.row_key for key in found.values()] == [f"k{number:05}" for number in range(10)]


def test_of_a_key_planned_again_only_the_newer_plan_is_told(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 11))
    head_seq = journal.statistics().head_seq
    plan(journal, [row._replace(supersedes=1, size=7) for row in rows(1)], source=source)
    before = {"planned_hi": 10, "head_seq": head_seq}
    with Reader.open(journal.path) as reader:
        then = [key.ordinal for page in current_keys(reader, **before) for key in page]
    assert then == list(range(1, 11))
    found = told(journal)
    assert sorted(found) == list(range(2, 12))
    assert (found[11].became, found[11].size) == ("unclaimed", 7)


def test_an_undone_key_is_told_with_why_it_was_undone(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 11))
    journal.revoke([2], Revocation.UNDO, message="wrong bucket", who="op", now_us=NOW_US)
    key = told(journal)[2]
    assert (key.became, key.failure, key.message) == ("parked", "undone", "wrong bucket")
