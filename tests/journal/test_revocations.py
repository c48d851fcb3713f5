from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal import maintenance
from journal.entries import Revocation, Settled
from journal.errors import IllegalTransition
from journal.events import Kind
from journal.lifecycle import UNDONE, KeyState, Outcome
from journal.reader import Reader
from tests.journal.journals import MD5, NOW_US, abandon, planned, reopen, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.log import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Journal:
    """Ten keys: 1 to 6 stored, 7 recovered, 8 present, 9 skipped, 10 vanished."""
    journal, source = planned(path)
    take(journal, source)
    settle(journal, [1, 2, 3, 4, 5, 6])
    journal.record(
        [
            Settled(7, Outcome.RECOVERED, 70, MD5),
            Settled(8, Outcome.PRESENT, 80, MD5),
            Settled(9, Outcome.SKIPPED, 90),
            Settled(10, Outcome.VANISHED, 0),
        ],
        now_us=NOW_US,
    )
    assert journal.complete(now_us=NOW_US)
    return journal


def revoke(journal: Journal, ordinals: list[int], cause: Revocation) -> None:
    journal.revoke(ordinals, cause, message="seen to be wrong", who="op", now_us=NOW_US)


def test_a_repair_makes_keys_wait_takes_them_off_the_counts_and_holds_the_checkpoint(
    journal: Journal, path: Path
) -> None:
    (before,) = journal.counts().values()
    revoke(journal, [3, 7, 8], Revocation.REPAIR)
    (after,) = journal.counts().values()
    assert (after.stored, after.recovered, after.present, after.pending) == (5, 0, 0, 3)
    assert before.stored_bytes - after.stored_bytes == 100 + 70
    assert after.present_bytes == 0
    assert after.settled == before.settled - 3
    assert not journal.complete(now_us=NOW_US)
    (checkpoint,) = journal.checkpoints().values()
    assert checkpoint.position is not None
    assert checkpoint.position.row_key == "k00001"
    assert maintenance.check(path) == []


def test_keys_of_a_repair_are_claimed_again_and_say_that_their_object_is_not_to_be_trusted(
    journal: Journal, path: Path
) -> None:
    revoke(journal, [3], Revocation.REPAIR)
    claim = take(journal, 1)
    assert claim.replacing == {3}
    abandon(journal)
    journal = reopen(path)
    journal.start_session(now_us=NOW_US, facts={})
    journal.recover(now_us=NOW_US)
    assert take(journal, 1).replacing == {3}
    settle(journal, [3])
    assert journal.complete(now_us=NOW_US)


def test_an_undone_key_is_parked_until_it_is_requeued(journal: Journal) -> None:
    revoke(journal, [1, 7], Revocation.UNDO)
    assert not journal.has_unclaimed(1)
    (counts,) = journal.counts().values()
    assert counts.parked == 2
    assert journal.requeue(failure=UNDONE, who="op", now_us=NOW_US) == 2
    assert take(journal, 1).replacing == {1, 7}


@pytest.mark.parametrize(
    ("ordinals", "cause"),
    [
        ([8], Revocation.UNDO),
        ([9], Revocation.REPAIR),
        ([10], Revocation.REPAIR),
        ([11], Revocation.REPAIR),
        ([3, 3], Revocation.REPAIR),
    ],
    ids=["undo-present", "skipped", "vanished", "unplanned", "twice"],
)
def test_what_has_no_such_outcome_is_refused_and_nothing_changes(
    journal: Journal, ordinals: list[int], cause: Revocation
) -> None:
    head = journal.statistics().head_seq
    with pytest.raises(IllegalTransition):
        revoke(journal, [1, *ordinals], cause)
    assert journal.statistics().head_seq == head
    assert journal.complete(now_us=NOW_US)


def test_a_key_driven_again_is_expected_once_with_its_newer_outcome(journal: Journal, path: Path) -> None:
    revoke(journal, [3, 4], Revocation.REPAIR)
    take(journal, 1)
    journal.record([Settled(3, Outcome.STORED, 33, "f" * 32, None, "v2")], now_us=NOW_US)
    with Reader.open(path) as reader:
        objects = {row.ordinal: row for row in reader.objects().objects}
        (history,) = reader.explain("k00002")
    assert sorted(objects) == [1, 2, 3, 5, 6, 7, 8]
    assert (objects[3].size, objects[3].version_id) == (33, "v2")
    assert history.state is KeyState.STORED
    assert [event.kind for event in history.events] == [
        Kind.CHUNK_SEALED,
        Kind.KEYS_CLAIMED,
        Kind.OUTCOMES_RECORDED,
        Kind.OUTCOMES_REVOKED,
        Kind.KEYS_RECLAIMED,
        Kind.OUTCOMES_RECORDED,
    ]


def test_a_rebuild_gives_the_same_projections(journal: Journal, path: Path) -> None:
    revoke(journal, [3, 8], Revocation.REPAIR)
    revoke(journal, [5], Revocation.UNDO)
    counts = journal.counts()
    journal.close()
    maintenance.rebuild(path)
    assert maintenance.check(path) == []
    with reopen(path) as again:
        assert again.counts() == counts


@pytest.mark.parametrize("cause", Revocation)
def test_an_earlier_plan_of_a_key_is_not_expected_again_once_the_later_one_is_revoked(
    journal: Journal, path: Path, cause: Revocation
) -> None:
    with Reader.open(path) as reader:
        (history,) = reader.explain("k00002")
    journal.begin_pass(1, kind="sweep", now_us=NOW_US)
    journal.seal_chunk(1, [("k00002", history.created_at, 7, history.ordinal)], now_us=NOW_US)
    journal.seal_segment(1, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    claim = journal.claim(1, limit=10, window=10, now_us=NOW_US)
    assert claim is not None
    (again,) = claim.keys
    journal.record([Settled(again.ordinal, Outcome.STORED, 7, "e" * 32)], now_us=NOW_US)
    revoke(journal, [again.ordinal], cause)
    with Reader.open(path) as reader:
        assert "k00002" not in {one.row_key for one in reader.objects().objects}
