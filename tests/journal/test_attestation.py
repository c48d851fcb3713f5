from __future__ import annotations

from typing import TYPE_CHECKING

from journal.attestation import ParkedKey, journal_facts
from journal.entries import Revocation
from journal.reader import Reader
from tests.journal.journals import NOW_US, park, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path


def test_a_parked_plan_that_was_superseded_is_no_parked_key(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 10))
    park(journal, 10)
    plan(journal, [row._replace(supersedes=1) for row in rows(1)], source=source)
    journal.revoke([1], Revocation.UNDO, message="m", who="op", now_us=NOW_US)
    take(journal, source)
    settle(journal, [11])
    with Reader.open(journal.path) as reader:
        [counted] = journal_facts(reader).sources
    assert (counted.parked, counted.parked_keys) == (1, (ParkedKey("k00009", "rejected"),))
    assert (counted.planned, counted.stored, counted.unsettled) == (10, 9, 0)
