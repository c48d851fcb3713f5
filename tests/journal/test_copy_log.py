from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal.entries import AttemptFailed, Parked, Recovery, Settled
from journal.errors import IllegalTransition, JournalCorrupt
from journal.lifecycle import RECOVERIES_MAX, Outcome
from journal.reader import Reader
from tests.journal.journals import (
    MD5,
    NOW_US,
    abandon,
    create,
    park,
    plan,
    planned,
    reopen,
    rows,
    settle,
    take,
)
from tests.journal.tampering import tamper

if TYPE_CHECKING:
    from pathlib import Path

    from journal.entries import Claim
    from journal.log import Journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def ordinals(claim: Claim) -> list[int]:
    return [key.ordinal for key in claim.keys]


def killed(path: Path, journal: Journal) -> Journal:
    """The same journal, opened by a next session after a SIGKILL."""
    abandon(journal)
    journal = reopen(path)
    journal.start_session(now_us=NOW_US, facts={})
    return journal


def test_claims_follow_the_plan(path: Path) -> None:
    journal, source = planned(path)
    assert [ordinals(take(journal, source, 4)) for _ in range(3)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert not journal.has_unclaimed(source)


def test_a_claim_spans_chunks_but_not_segments(path: Path) -> None:
    journal = create(path)
    source = plan(journal, rows(7), chunk=3)
    plan(journal, rows(2, first=100), source=source)
    assert [key.row_key for key in take(journal, source).keys] == [row.row_key for row in rows(7)]
    assert ordinals(take(journal, source)) == [8, 9]


def test_in_flight_never_exceeds_the_window(path: Path) -> None:
    journal, source = planned(path)
    assert len(take(journal, source, 4, window=6).keys) == 4
    assert len(take(journal, source, 4, window=6).keys) == 2
    assert journal.claim(source, limit=4, window=6, now_us=NOW_US) is None
    settle(journal, [1])
    assert ordinals(take(journal, source, 4, window=6)) == [7]


def test_outcomes_arrive_in_any_order_and_close_their_claim(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 3)
    take(journal, source, 3)
    settle(journal, [6, 1, 5])
    assert journal.statistics().open_claims == 2
    settle(journal, [4, 3, 2])
    assert journal.statistics().open_claims == 0
    assert journal.in_flight == 0


def test_counts_follow_every_outcome(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 9)
    journal.record(
        [
            Settled(1, Outcome.STORED, 150, MD5),
            Settled(2, Outcome.RECOVERED, 100, MD5, "etag", "v1"),
            Settled(3, Outcome.PRESENT, 100, MD5),
            Settled(4, Outcome.SKIPPED, 90),
            Settled(5, Outcome.VANISHED, 0),
            AttemptFailed(6, "PUT", "server", "answered 503", 503),
            Parked(7, "rejected", "refused"),
        ],
        now_us=NOW_US,
    )
    counts = journal.counts()["source-1"]
    assert (counts.stored, counts.recovered, counts.present, counts.skipped, counts.vanished) == (
        1,
        1,
        1,
        1,
        1,
    )
    assert (counts.parked, counts.in_flight, counts.pending, counts.unclaimed) == (1, 3, 0, 1)
    assert (counts.stored_bytes, counts.present_bytes, counts.settled_bytes) == (250, 100, 500)
    assert (counts.planned_rows, counts.planned_bytes, counts.settled) == (10, 1000, 5)


@pytest.mark.parametrize(
    "entries",
    [
        [Settled(1, Outcome.STORED, 1, MD5), Settled(1, Outcome.STORED, 1, MD5)],
        [Settled(1, Outcome.STORED, 1, MD5), Parked(1, "rejected", "")],
        [Settled(1, Outcome.STORED, 1, MD5), Settled(4, Outcome.STORED, 1, MD5)],
        [AttemptFailed(99, "PUT", "server", "")],
    ],
)
def test_a_group_that_contradicts_what_is_in_flight_changes_nothing(
    path: Path, entries: list[Settled | Parked | AttemptFailed]
) -> None:
    journal, source = planned(path)
    take(journal, source, 3)
    before = journal.statistics(), journal.counts()
    with pytest.raises(IllegalTransition):
        journal.record(entries, now_us=NOW_US)
    assert (journal.statistics(), journal.counts()) == before
    settle(journal, [1, 2, 3])


def test_a_settled_key_is_not_settled_again(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 3)
    settle(journal, [1])
    with pytest.raises(IllegalTransition, match="not in flight"):
        settle(journal, [1])


def test_one_group_may_hold_keys_of_several_sources(path: Path) -> None:
    journal, source = planned(path, 2)
    other = plan(journal, rows(2))
    take(journal, source)
    take(journal, other)
    settle(journal, [4, 1, 3])
    assert {name: counts.stored for name, counts in journal.counts().items()} == {
        "source-1": 1,
        "source-2": 2,
    }


def test_a_group_is_one_commit(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source)
    before = journal.statistics().commits
    journal.record(
        [AttemptFailed(1, "PUT", "x", ""), Settled(1, Outcome.STORED, 1, MD5), Parked(2, "x", "")], now_us=1
    )
    assert journal.statistics().commits == before + 1


def test_an_empty_group_commits_nothing(path: Path) -> None:
    journal, _ = planned(path)
    before = journal.statistics()
    journal.record([], now_us=NOW_US)
    journal.release([], now_us=NOW_US)
    assert journal.statistics() == before


def test_in_flight_is_not_believed_after_a_restart(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 4)
    settle(journal, [2])
    journal = killed(path, journal)
    with pytest.raises(IllegalTransition, match="call recover first"):
        journal.claim(source, limit=1, window=9, now_us=NOW_US)
    assert journal.recover(now_us=NOW_US) == Recovery(recovered=3, parked=0, from_session=1)
    assert journal.in_flight == 0
    claim = take(journal, source)
    assert [(key.ordinal, key.recoveries) for key in claim.keys] == [(1, 1), (3, 1), (4, 1)]
    assert ordinals(take(journal, source, 2)) == [5, 6]


def test_recovering_nothing_commits_no_event(path: Path) -> None:
    journal, source = planned(path)
    settle(journal, ordinals(take(journal, source)))
    journal = killed(path, journal)
    before = journal.statistics().head_seq
    assert journal.recover(now_us=NOW_US) == Recovery(0, 0, None)
    assert journal.statistics().head_seq == before


def test_a_key_recovered_three_times_is_driven_alone_and_then_parked(path: Path) -> None:
    journal, source = planned(path)
    for recoveries in range(1, RECOVERIES_MAX + 1):
        take(journal, source, 1)
        journal = killed(path, journal)
        assert journal.recover(now_us=NOW_US).recovered == 1
        claim = take(journal, source, 1)
        assert (claim.keys[0].recoveries, claim.alone) == (recoveries, recoveries == RECOVERIES_MAX)
        if claim.alone:
            break
        journal.release(ordinals(claim), now_us=NOW_US)
    assert journal.claim(source, limit=1, window=9, now_us=NOW_US) is None
    journal = killed(path, journal)
    assert journal.recover(now_us=NOW_US) == Recovery(recovered=0, parked=1, from_session=RECOVERIES_MAX + 1)
    assert journal.counts()["source-1"].parked == 1
    with Reader.open(path) as reader:
        assert [reason.failure for reason in reader.status(now_us=NOW_US).sources[0].parked] == [
            "process_died"
        ]


def test_what_one_process_held_is_taken_back_in_mid_session_and_the_rest_stays_in_flight(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 4)
    settle(journal, [2])
    before = journal.statistics().head_seq
    with pytest.raises(IllegalTransition, match="not in flight"):
        journal.recover_from("process 1, killed", [1, 2], now_us=NOW_US)
    assert journal.statistics().head_seq == before
    taken = journal.recover_from("process 1, killed", [1, 4], now_us=NOW_US)
    assert taken == Recovery(recovered=2, parked=0, from_session=1)
    assert journal.in_flight_ordinals() == [3]
    assert [(key.ordinal, key.recoveries) for key in take(journal, source, 2).keys] == [(1, 1), (4, 1)]
    with Reader.open(path) as reader:
        (event,) = reader.events(kinds=["keys_recovered"])
    assert event.data == {"ordinals": [1, 4], "session": 1, "process": "process 1, killed"}


def test_a_key_that_four_processes_of_one_session_died_with_is_parked(path: Path) -> None:
    journal, source = planned(path)
    for recoveries in range(RECOVERIES_MAX):
        (key,) = take(journal, source, 1).keys
        assert (key.ordinal, key.recoveries) == (1, recoveries)
        assert journal.recover_from("a process", [1], now_us=NOW_US).recovered == 1
    assert take(journal, source, 1).alone
    assert journal.recover_from("a process", [1], now_us=NOW_US) == Recovery(0, 1, 1)
    assert journal.counts()["source-1"].parked == 1
    assert ordinals(take(journal, source, 1)) == [2]


def poisoned(path: Path) -> tuple[Journal, int, int]:
    """A journal whose key 1 was recovered three times, and a second source."""
    journal, source = planned(path)
    other = plan(journal, rows(5))
    for _ in range(RECOVERIES_MAX):
        take(journal, source, 1)
        journal = killed(path, journal)
        journal.recover(now_us=NOW_US)
    return journal, source, other


def test_a_poison_key_waits_until_nothing_is_in_flight_and_then_nothing_is_claimed_beside_it(
    path: Path,
) -> None:
    journal, source, other = poisoned(path)
    beside = take(journal, other, 2)
    assert journal.claim(source, limit=5, window=9, now_us=NOW_US) is None
    assert journal.claim(other, limit=1, window=9, now_us=NOW_US) is None, "others must let the window drain"
    settle(journal, ordinals(beside))
    alone = take(journal, source, 5)
    assert (ordinals(alone), alone.alone) == ([1], True)
    assert journal.claim(other, limit=1, window=9, now_us=NOW_US) is None
    settle(journal, [1])
    assert ordinals(take(journal, source, 2)) == [2, 3]
    assert ordinals(take(journal, other, 1)) == [13]


def test_a_poison_key_that_nobody_asks_for_does_not_hold_other_sources(path: Path) -> None:
    journal, _, other = poisoned(path)
    assert [len(take(journal, other, 2).keys) for _ in range(2)] == [2, 2]


def test_released_keys_come_back_first_without_a_recovery(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 4)
    journal.release([3, 1], now_us=NOW_US)
    claim = take(journal, source, 9)
    assert [(key.ordinal, key.recoveries) for key in claim.keys] == [(1, 0), (3, 0)]
    settle(journal, [2, 4, 1, 3])
    assert journal.counts()["source-1"].stored == 4


def test_releasing_a_key_that_is_not_in_flight_changes_nothing(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source, 2)
    with pytest.raises(IllegalTransition, match="key 3"):
        journal.release([1, 3], now_us=NOW_US)
    assert journal.in_flight == 2


def test_requeue_chooses_by_source_key_and_failure(path: Path) -> None:
    journal, source = planned(path)
    other = plan(journal, rows(3))
    take(journal, source, 4)
    take(journal, other)
    for ordinal, failure in ((1, "rejected"), (2, "rejected"), (3, "forbidden"), (11, "rejected")):
        park(journal, ordinal, failure)
    assert journal.requeue(source=source, row_keys=["k00001", "k00009"], who="op", now_us=NOW_US) == 1
    assert journal.requeue(failure="forbidden", who="op", now_us=NOW_US) == 1
    assert journal.requeue(source=other, failure="forbidden", who="op", now_us=NOW_US) == 0
    assert journal.requeue(who="op", now_us=NOW_US) == 2
    assert ordinals(take(journal, source)) == [1, 2, 3]
    assert journal.counts()["source-2"].pending == 1


def test_requeueing_forgets_recoveries(path: Path) -> None:
    journal, source, _ = poisoned(path)
    take(journal, source, 1)
    journal = killed(path, journal)
    journal.recover(now_us=NOW_US)
    assert journal.requeue(who="op", now_us=NOW_US) == 1
    claim = take(journal, source, 1)
    assert (claim.keys[0].recoveries, claim.alone) == (0, False)


def test_complete_counts_the_plan_and_is_recorded_once(path: Path) -> None:
    journal, source = planned(path, 3)
    settle(journal, [key.ordinal for key in take(journal, source, 2).keys])
    assert not journal.complete(now_us=NOW_US)
    settle(journal, ordinals(take(journal, source)))
    assert journal.complete(now_us=NOW_US)
    assert journal.complete(now_us=NOW_US)
    with Reader.open(path) as reader:
        assert len(list(reader.events(kinds=["migration_completed"]))) == 1


def test_a_parked_key_an_open_pass_or_an_unplanned_source_is_not_complete(path: Path) -> None:
    journal = create(path)
    assert not journal.complete(now_us=NOW_US), "nothing is known of what there is to do"
    source = plan(journal, rows(1))
    take(journal, source)
    park(journal, 1)
    assert not journal.complete(now_us=NOW_US)
    journal.requeue(who="op", now_us=NOW_US)
    settle(journal, ordinals(take(journal, source)))
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    assert not journal.complete(now_us=NOW_US)
    journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    assert journal.complete(now_us=NOW_US)
    journal.add_source("late", {}, now_us=NOW_US)
    assert not journal.complete(now_us=NOW_US)


def test_complete_does_not_believe_counters(path: Path) -> None:
    journal, source = planned(path, 3)
    settle(journal, ordinals(take(journal, source)))
    journal._connection.execute("DELETE FROM outcome WHERE ordinal = 2")
    assert journal.counts()["source-1"].settled == 3
    with pytest.raises(JournalCorrupt, match="1 keys have no outcome, and 0 are on record as left to do"):
        journal.complete(now_us=NOW_US)


def test_an_empty_table_is_complete_once_its_pass_is_sealed(path: Path) -> None:
    journal = create(path)
    plan(journal, [])
    assert journal.complete(now_us=NOW_US)


def test_keys_added_later_are_completed_anew(path: Path) -> None:
    journal, source = planned(path, 1)
    settle(journal, ordinals(take(journal, source)))
    assert journal.complete(now_us=NOW_US)
    plan(journal, rows(1, first=50), source=source)
    settle(journal, ordinals(take(journal, source)))
    assert journal.complete(now_us=NOW_US)
    with Reader.open(path) as reader:
        assert len(list(reader.events(kinds=["migration_completed"]))) == 2


def test_a_closed_journal_refuses_calls_and_may_be_closed_again(path: Path) -> None:
    journal, source = planned(path)
    journal.close()
    journal.close()
    with pytest.raises(IllegalTransition, match="closed"):
        journal.claim(source, limit=1, window=1, now_us=NOW_US)


def test_a_key_claimed_again_is_checked_against_its_own_chunk(path: Path) -> None:
    journal = create(path)
    journal.start_session(now_us=NOW_US, facts={})
    source = plan(journal, rows(4), chunk=2)
    take(journal, source)
    settle(journal, [1, 4])
    abandon(journal)
    tamper(path, "UPDATE plan SET row_key = 'other' WHERE ordinal = 3")
    again = reopen(path)
    again.recover(now_us=NOW_US)
    with pytest.raises(JournalCorrupt, match="chunk 3 to 4"):
        again.claim(source, limit=10, window=10, now_us=NOW_US)


def test_a_checkpoint_says_how_many_parked_keys_hold_it_only_if_one_of_them_is_first(path: Path) -> None:
    journal, source = planned(path)
    take(journal, source)
    settle(journal, [1, 2])
    park(journal, 5)
    assert journal.checkpoints()["source-1"].held_by_parked == 0
    park(journal, 3)
    assert journal.checkpoints()["source-1"].held_by_parked == 2


def test_a_claim_that_nothing_fits_names_its_source_and_takes_nothing(path: Path) -> None:
    journal, source = planned(path)
    found = journal.claim(source, limit=5, window=5, now_us=NOW_US, bytes_max=99)
    assert found is not None
    assert (found.source, found.keys, found.alone, journal.in_flight) == (source, (), False, 0)
