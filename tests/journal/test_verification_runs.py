from __future__ import annotations

from typing import TYPE_CHECKING

from journal.entries import Revocation
from journal.events import Kind
from journal.reader import Reader
from journal.verification_runs import (
    OpenRun,
    SampledKeys,
    VerificationRun,
    newest_of_each_tier,
    open_run,
    verification_runs,
)
from tests.journal.journals import NOW_US, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.entries import JsonValue
    from journal.log import Journal


def test_finished_verifications_are_told_newest_first_with_what_they_covered(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    journal.note(Kind.VERIFICATION_FINISHED, {"tier": "list", "checked": 0, "exit_code": 4}, now_us=NOW_US)
    started = journal.note(Kind.VERIFICATION_STARTED, {"tier": "content"}, now_us=NOW_US)
    data = {"run": started, "tier": "content", "until_seq": 3, "exit_code": 0}
    journal.note(Kind.VERIFICATION_FINISHED, {**data, "sample": {"keys": 5, "of": 10}}, now_us=NOW_US + 7)
    journal.note(Kind.VERIFICATION_FINISHED, {**data, "sources": [source]}, now_us=NOW_US)
    with Reader.open(journal.path) as reader:
        whole, sampled, old = reader.read(verification_runs)
    assert (old.tier, old.exit_code, old.sample) == ("list", 4, None)
    assert sampled.sample == SampledKeys(5, 10)
    assert (sampled.started_us, sampled.finished_us) == (NOW_US, NOW_US + 7)
    assert not sampled.covers(source, 2)
    assert whole.covers(source, 3)
    assert not whole.covers(source, 4)
    assert not whole.covers(source + 1, 2)


def test_a_verification_that_was_not_finished_is_open_with_its_own_progress(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")

    def found() -> OpenRun | None:
        with Reader.open(journal.path) as reader:
            return reader.read(open_run)

    def note(kind: Kind, **data: JsonValue) -> int:
        return journal.note(kind, data, now_us=NOW_US)

    assert found() is None
    first = note(Kind.VERIFICATION_STARTED, tier="list")
    assert found() == OpenRun(first, {"tier": "list"}, None, outdated=False)
    note(Kind.VERIFICATION_PROGRESSED, run=first, checked=3)
    note(Kind.VERIFICATION_PROGRESSED, run=first, checked=7)
    assert found() == OpenRun(first, {"tier": "list"}, {"run": first, "checked": 7}, outdated=False)
    note(Kind.VERIFICATION_FINISHED, run=first, tier="list")
    assert found() is None
    second = note(Kind.VERIFICATION_STARTED, tier="head")
    assert found() == OpenRun(second, {"tier": "head"}, None, outdated=False)
    journal.start_session(now_us=NOW_US, facts={})
    assert found() == OpenRun(second, {"tier": "head"}, None, outdated=True)


def test_a_session_on_a_complete_migration_leaves_an_open_verification_as_it_is(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 11))
    assert journal.complete(now_us=NOW_US)
    journal.note(Kind.VERIFICATION_STARTED, {"tier": "list"}, now_us=NOW_US)
    journal.start_session(now_us=NOW_US, facts={})
    with Reader.open(journal.path) as reader:
        found = reader.read(open_run)
    assert found is not None
    assert not found.outdated


def test_a_finished_verification_tells_what_it_goes_on_from_and_how_it_ended(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    started = journal.note(Kind.VERIFICATION_STARTED, {"tier": "list", "follows": 2}, now_us=NOW_US)
    finished = journal.note(Kind.VERIFICATION_FINISHED, {"run": started}, now_us=NOW_US + 1)
    with Reader.open(journal.path) as reader:
        [run] = reader.read(verification_runs)
    assert (run.seq, run.finished_seq, run.follows, run.tier) == (started, finished, 2, "")
    assert (run.exit_code, run.until_seq, run.sources) == (0, finished, None)


def test_a_finished_verification_is_told_with_all_that_its_events_say(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    started = journal.note(Kind.VERIFICATION_STARTED, {"tier": "head", "follows": 3}, now_us=NOW_US + 1)
    data = {
        "run": started,
        "tier": "head",
        "until_seq": 4,
        "sources": [2, 1],
        "sample": {"keys": 3, "of": 9},
        "exit_code": 4,
        "counts": {"missing": 1},
    }
    finished = journal.note(Kind.VERIFICATION_FINISHED, data, now_us=NOW_US + 2)
    bare = journal.note(Kind.VERIFICATION_FINISHED, {}, now_us=NOW_US + 3)
    with Reader.open(journal.path) as reader:
        found = reader.read(verification_runs)
    assert found == [
        VerificationRun(0, bare, "", NOW_US + 3, NOW_US + 3, bare, None, None, 0, None, {}),
        VerificationRun(
            started, finished, "head", NOW_US + 1, NOW_US + 2, 4, (2, 1), SampledKeys(3, 9), 4, 3, data
        ),
    ]


def test_the_newest_of_each_tier_are_told_the_newest_first(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    seqs = [
        journal.note(Kind.VERIFICATION_FINISHED, {"tier": tier}, now_us=NOW_US)
        for tier in ("list", "content", "head", "content", "list")
    ]
    with Reader.open(journal.path) as reader:
        assert reader.read(newest_of_each_tier) == [seqs[4], seqs[3], seqs[2]]


def outdated(journal: Journal) -> bool:
    with Reader.open(journal.path) as reader:
        found = reader.read(open_run)
    assert found is not None
    return found.outdated


def test_an_open_verification_is_outdated_once_an_outcome_is_taken_back(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    assert journal.complete(now_us=NOW_US)
    journal.note(Kind.VERIFICATION_STARTED, {"tier": "list"}, now_us=NOW_US)
    assert not outdated(journal)
    journal.revoke([1], Revocation.REPAIR, message="m", who="op", now_us=NOW_US)
    assert outdated(journal)


def test_what_was_taken_back_of_any_source_outdates_an_open_verification(tmp_path: Path) -> None:
    journal, first = planned(tmp_path / "journal.db")
    second = plan(journal, rows(2))
    for source in (first, second):
        settle(journal, [key.ordinal for key in take(journal, source).keys])
    journal.revoke([11], Revocation.REPAIR, message="m", who="op", now_us=NOW_US)
    journal.note(Kind.VERIFICATION_STARTED, {"tier": "list"}, now_us=NOW_US)
    assert not outdated(journal)
    journal.revoke([1], Revocation.REPAIR, message="m", who="op", now_us=NOW_US)
    assert outdated(journal)


def test_a_migration_that_was_completed_behind_its_beginning_outdates_an_open_verification(
    tmp_path: Path,
) -> None:
    journal, source = planned(tmp_path / "journal.db")
    journal.note(Kind.VERIFICATION_STARTED, {"tier": "list"}, now_us=NOW_US)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    journal.end_session(now_us=NOW_US, reason="drained", exit_code=143)
    journal.start_session(now_us=NOW_US, facts={})
    assert journal.complete(now_us=NOW_US)
    assert outdated(journal)
