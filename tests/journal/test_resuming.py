from __future__ import annotations

from typing import TYPE_CHECKING

from journal.lifecycle import RECOVERIES_MAX
from journal.reader import Reader
from journal.resuming import Evidence, Resumption, SourceResumption
from tests.journal.journals import NOW_US, abandon, create, park, plan, planned, reopen, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path


def found_in(path: Path) -> Resumption:
    with Reader.open(path) as reader:
        return reader.resumption()


def only(path: Path) -> SourceResumption:
    (source,) = found_in(path).sources
    return source


def kinds(path: Path, evidence: Evidence | None) -> list[str]:
    assert evidence is not None
    with Reader.open(path) as reader:
        found = {event.seq: event.kind for event in reader.events()}
    return [found[evidence.first_seq], found[evidence.last_seq]]


def test_keys_in_flight_are_those_of_open_claims_and_of_stragglers_claimed_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 20)
    take(journal, source, 5)
    settle(journal, [1, 2])
    journal.release([3], now_us=NOW_US)
    take(journal, source, 1)
    take(journal, source, 4)
    found = only(path)
    assert found.in_flight is not None
    assert (found.in_flight.keys, found.in_flight.events) == (7, 3)
    assert kinds(path, found.in_flight) == ["keys_claimed", "keys_claimed"]
    assert (found.dying, found.driven) == (None, 18)
    abandon(journal)
    journal = reopen(path)
    journal.start_session(now_us=NOW_US, facts={})
    assert journal.recover(now_us=NOW_US).recovered == found.in_flight.keys
    assert only(path).waiting["keys_recovered"].keys == 7


def test_a_key_that_outlived_too_many_sessions_is_told_to_be_parked_and_then_is(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 1)
    for _ in range(RECOVERIES_MAX + 1):
        take(journal, source)
        found = only(path)
        abandon(journal)
        journal = reopen(path)
        journal.start_session(now_us=NOW_US, facts={})
        recovery = journal.recover(now_us=NOW_US)
        dying = 0 if found.dying is None else found.dying.keys
        assert (found.driven, dying) == (recovery.recovered, recovery.parked)
    assert recovery.parked == 1
    assert only(path).parked["process_died"].keys == 1


def test_a_key_that_is_next_to_be_driven_alone_is_told_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 1)
    for _ in range(RECOVERIES_MAX):
        assert only(path).alone == 0
        take(journal, source)
        abandon(journal)
        journal = reopen(path)
        journal.recover(now_us=NOW_US)
    assert only(path).alone == 1


def test_keys_that_no_session_has_begun_are_those_behind_the_frontier_of_sealed_passes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    journal = create(path)
    journal.start_session(now_us=NOW_US, facts={})
    source = plan(journal, rows(30), chunk=10)
    chunks = only(path).unclaimed
    assert chunks is not None
    assert (chunks.keys, chunks.events, kinds(path, chunks)) == (30, 3, ["chunk_sealed"] * 2)
    assert only(path).claimed_seq is None
    take(journal, source, 12)
    settle(journal, range(1, 13))
    left = only(path).unclaimed
    assert left == Evidence(18, 2, chunks.first_seq + 1, chunks.last_seq)
    claimed = only(path).claimed_seq
    with Reader.open(path) as reader:
        assert [event.seq for event in reader.events(kinds=["keys_claimed"])] == [claimed]
    take(journal, source, 100)
    assert only(path).unclaimed is None


def test_a_pass_that_is_open_shows_what_it_has_sealed_and_what_began_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    journal.seal_chunk(source, rows(3, first=5), now_us=NOW_US)
    found = only(path)
    assert found.half_sealed is not None
    assert (found.half_sealed.keys, found.unclaimed and found.unclaimed.keys, found.driven) == (3, 2, 5)
    assert found.open_pass is not None
    assert found.open_pass[:2] == (2, "snapshot")
    with Reader.open(path) as reader:
        assert [event.seq for event in reader.events(kinds=["pass_begun"])][-1] == found.open_pass[2]


def test_parked_keys_stay_by_what_they_are_parked_for_and_requeued_ones_wait(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source)
    for ordinal in (1, 2):
        park(journal, ordinal)
    park(journal, 3, "foreign_object")
    settle(journal, range(4, 11))
    assert {failure: group.keys for failure, group in only(path).parked.items()} == {
        "rejected": 2,
        "foreign_object": 1,
    }
    assert only(path).driven == 0
    journal.requeue(failure="rejected", who="op", now_us=NOW_US)
    found = only(path)
    assert kinds(path, found.waiting["keys_requeued"]) == ["keys_requeued"] * 2
    assert (found.driven, set(found.parked), found.bytes_left) == (2, {"foreign_object"}, 300)


def test_what_holds_for_the_migration_names_its_event(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 1)
    assert (found_in(path).paused_seq, found_in(path).completed_seq) == (None, None)
    journal.pause(who="op", now_us=NOW_US)
    paused = found_in(path)
    assert paused.paused_seq == paused.status.head_seq
    journal.resume(who="op", now_us=NOW_US)
    take(journal, source)
    settle(journal, [1])
    journal.close_source(source, proof="x", proven=True, now_us=NOW_US)
    closed = found_in(path)
    assert closed.sources[0].closed_seq == closed.status.head_seq
    assert journal.complete(now_us=NOW_US)
    done = found_in(path)
    assert (done.paused_seq, done.completed_seq) == (None, done.status.head_seq)
