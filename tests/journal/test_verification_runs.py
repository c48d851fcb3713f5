from __future__ import annotations

from typing import TYPE_CHECKING

from journal.events import Kind
from journal.reader import Reader
from journal.verification_runs import OpenRun, SampledKeys, open_run, verification_runs
from tests.journal.journals import NOW_US, planned, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.entries import JsonValue


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
