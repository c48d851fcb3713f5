from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal import standing_findings as module
from journal.entries import Revocation
from journal.events import Kind
from journal.reader import Reader
from journal.standing_findings import StandingFinding, standing_findings
from journal.verification_runs import verification_runs
from tests.journal.journals import NOW_US, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from journal.log import Journal

SAMPLE = {"keys": 2, "of": 5}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Ten keys, the first five stored."""
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 6))
    yield journal
    journal.close()


def begin(journal: Journal, tier: str = "content") -> int:
    return journal.note(Kind.VERIFICATION_STARTED, {"tier": tier}, now_us=NOW_US)


def name(
    journal: Journal,
    run: int,
    *ordinals: int,
    kind: str = "differing",
    tier: str = "content",
    source: int = 1,
) -> None:
    findings = [[kind, ordinal, f"k{ordinal}", ""] for ordinal in ordinals]
    data = {"run": run, "tier": tier, "findings": findings, "ordinals": list(ordinals)}
    journal.note(Kind.FINDING_RECORDED, data, source=source, now_us=NOW_US)


def right(journal: Journal, run: int, *ordinals: int) -> None:
    data = {"run": run, "tier": "content", "ordinals": list(ordinals)}
    journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US)


def finish(
    journal: Journal,
    run: int,
    tier: str = "content",
    *,
    sources: Sequence[int] = (1,),
    sample: dict[str, int] | None = None,
    **counts: int,
) -> None:
    data = {
        "run": run,
        "tier": tier,
        "until_seq": run - 1,
        "sources": sources,
        "sample": sample,
        "counts": counts,
    }
    journal.note(Kind.VERIFICATION_FINISHED, data, now_us=NOW_US)


def found(journal: Journal) -> tuple[StandingFinding, ...]:
    with Reader.open(journal.path) as reader:
        return reader.read_projected(
            lambda connection: standing_findings(connection, verification_runs(connection))
        )


def standing(journal: Journal) -> list[tuple[str, str, int, str]]:
    return [(each.tier, each.kind, each.keys, each.row_key) for each in found(journal)]


@pytest.fixture
def rotten(journal: Journal) -> Journal:
    """The first two of them, found to differ."""
    run = begin(journal)
    name(journal, run, 1, 2)
    finish(journal, run, differing=2)
    return journal


ROTTEN = [("content", "differing", 2, "k00000")]


def test_what_was_found_stands_finished_or_not(journal: Journal) -> None:
    assert standing(journal) == []
    run = begin(journal)
    name(journal, run, 1, 2)
    assert standing(journal) == ROTTEN
    finish(journal, run, differing=2)
    assert standing(journal) == ROTTEN


def test_nothing_that_did_not_look_at_the_keys_takes_a_finding_back(rotten: Journal) -> None:
    settle(rotten, [6])
    finish(rotten, begin(rotten), sample=SAMPLE)
    right(rotten, begin(rotten), 3, 4)
    finish(rotten, begin(rotten, "list"), "list")
    finish(rotten, begin(rotten), sources=(2,))
    begin(rotten)
    assert standing(rotten) == ROTTEN


def test_a_later_look_of_its_tier_takes_it_back(rotten: Journal) -> None:
    finish(rotten, begin(rotten))
    assert standing(rotten) == []


def test_a_sample_takes_back_what_it_drew_and_found_right(rotten: Journal) -> None:
    right(rotten, begin(rotten), 1, 4)
    assert standing(rotten) == [("content", "differing", 1, "k00001")]


def test_a_later_look_that_found_it_again_counts_once_and_names_what_it_found(rotten: Journal) -> None:
    run = begin(rotten)
    name(rotten, run, 2, kind="missing")
    finish(rotten, run, missing=1)
    assert standing(rotten) == [("content", "missing", 1, "k00001")]


def test_a_look_that_could_not_read_takes_nothing_back(rotten: Journal) -> None:
    run = begin(rotten)
    name(rotten, run, 1, kind="unreadable")
    finish(rotten, run, unreadable=1)
    assert standing(rotten) == [
        ("content", "differing", 1, "k00000"),
        ("content", "unreadable", 1, "k00000"),
    ]
    finish(rotten, begin(rotten))
    assert standing(rotten) == []


def test_what_a_run_found_right_when_it_looked_again_after_an_interruption_does_not_stand(
    journal: Journal,
) -> None:
    run = begin(journal)
    name(journal, run, 1)
    finish(journal, run)
    assert standing(journal) == []


def test_a_key_whose_outcome_was_taken_back_and_recorded_anew_has_no_finding(rotten: Journal) -> None:
    rotten.revoke([1], Revocation.REPAIR, message="m", who="op", now_us=NOW_US)
    assert standing(rotten) == [("content", "differing", 1, "k00001")]
    take(rotten, 1)
    settle(rotten, [1])
    assert standing(rotten) == [("content", "differing", 1, "k00001")]


def test_bytes_that_a_later_plan_of_the_key_has_replaced_have_no_finding(rotten: Journal) -> None:
    settle(rotten, range(6, 11))
    plan(rotten, [row._replace(supersedes=1) for row in rows(1)], source=1)
    assert standing(rotten) == ROTTEN
    take(rotten, 1)
    settle(rotten, [11])
    assert standing(rotten) == [("content", "differing", 1, "k00001")]


def test_a_finding_of_an_earlier_program_stands_until_its_tier_looks_again(journal: Journal) -> None:
    data = {"tier": "list", "findings": [["missing", 1, "k1", ""], ["extra", None, "x", ""]], "ordinals": [1]}
    journal.note(Kind.FINDING_RECORDED, data, source=1, now_us=NOW_US)
    journal.note(Kind.VERIFICATION_FINISHED, {"tier": "list", "missing": 1}, now_us=NOW_US)
    assert standing(journal) == [("list", "missing", 1, "k00000")]
    finish(journal, begin(journal, "list"), "list")
    assert standing(journal) == []


def test_findings_are_counted_by_run_tier_source_and_kind_in_the_order_in_which_they_were_recorded(
    journal: Journal,
) -> None:
    other = plan(journal, rows(2, first=50))
    take(journal, other)
    settle(journal, [11, 12])
    lists = begin(journal, "list")
    name(journal, lists, 2, kind="missing", tier="list")
    contents = begin(journal)
    name(journal, contents, 12, 11, source=other)
    name(journal, contents, 5, 4)
    name(journal, contents, 3)
    name(journal, contents, 1, kind="unreadable")
    assert found(journal) == (
        StandingFinding(lists, "list", 1, "missing", 1, "k00001"),
        StandingFinding(contents, "content", other, "differing", 2, "k00051"),
        StandingFinding(contents, "content", 1, "differing", 3, "k00004"),
        StandingFinding(contents, "content", 1, "unreadable", 1, "k00000"),
    )


def test_a_finding_that_tells_neither_run_nor_source_nor_tier_stands_as_such(journal: Journal) -> None:
    journal.note(
        Kind.FINDING_RECORDED, {"findings": [["missing", 1, "k1", ""]], "ordinals": [1]}, now_us=NOW_US
    )
    assert found(journal) == (StandingFinding(0, "", 0, "missing", 1, "k00000"),)


def test_a_finding_without_a_tier_is_told_anew_by_its_like_and_taken_back_by_no_other_event(
    journal: Journal,
) -> None:
    data = {"findings": [["missing", 1, "k1", ""]], "ordinals": [1]}
    expected = (StandingFinding(0, "", 0, "missing", 1, "k00000"),)
    journal.note(Kind.FINDING_RECORDED, data, now_us=NOW_US)
    journal.note(Kind.HOOK_RAN, {}, ordinal=1, now_us=NOW_US)
    assert found(journal) == expected
    journal.note(Kind.FINDING_RECORDED, data, now_us=NOW_US)
    assert found(journal) == expected


def test_what_is_kept_of_events_changes_no_answer(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = begin(journal), begin(journal)
    for run in (first, second):
        for ordinal in range(1, 6):
            name(journal, run, ordinal)
    right(journal, begin(journal), 2, 4)
    expected = (StandingFinding(second, "content", 1, "differing", 3, "k00000"),)
    for kept in (0, 1, 2, 64):
        monkeypatch.setattr(module, "EVENTS_KEPT", kept)
        assert found(journal) == expected


def test_a_look_that_found_another_thing_takes_one_back_although_it_could_not_read_all(
    rotten: Journal,
) -> None:
    run = begin(rotten)
    findings = [["missing", 1, "k1", ""], ["unreadable", 1, "k1", ""]]
    data = {"run": run, "tier": "content", "findings": findings, "ordinals": [1]}
    rotten.note(Kind.FINDING_RECORDED, data, source=1, now_us=NOW_US)
    assert standing(rotten) == [
        ("content", "differing", 1, "k00001"),
        ("content", "missing", 1, "k00000"),
        ("content", "unreadable", 1, "k00000"),
    ]


def test_only_looks_of_its_tier_at_its_key_and_behind_it_tell_of_a_finding(journal: Journal) -> None:
    run = begin(journal)
    right(journal, run, 1)
    name(journal, run, 3, kind="missing", tier="list")
    name(journal, run, 1)
    name(journal, run, 3)
    name(journal, run, 1, kind="missing", tier="list")
    assert standing(journal) == [
        ("list", "missing", 2, "k00002"),
        ("content", "differing", 2, "k00000"),
    ]
