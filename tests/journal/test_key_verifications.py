from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal.entries import Revocation
from journal.events import Kind
from journal.key_verifications import KeyVerification
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.journal.journals import NOW_US, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from journal.histories import KeyHistory
    from journal.log import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Ten keys, the first five stored, the sixth skipped."""
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 6))
    settle(journal, [6], Outcome.SKIPPED)
    yield journal
    journal.close()


def head(journal: Journal) -> int:
    with Reader.open(journal.path) as reader:
        return reader.head_seq()


def begin(journal: Journal, tier: str = "list", sample: dict[str, int] | None = None) -> int:
    until = head(journal)
    data = {"tier": tier, "until_seq": until, "sources": [1], "sample": sample, "who": "op"}
    journal.note(Kind.VERIFICATION_STARTED, data, now_us=NOW_US)
    return until + 1


def finish(journal: Journal, run: int, tier: str = "list", sample: dict[str, int] | None = None) -> int:
    data = {"run": run, "tier": tier, "until_seq": run - 1, "sources": [1], "sample": sample, "exit_code": 0}
    journal.note(Kind.VERIFICATION_FINISHED, data, now_us=NOW_US)
    return head(journal)


def name(journal: Journal, run: int, *ordinals: int) -> None:
    findings = [["missing", ordinal, f"k{ordinal}", ""] for ordinal in ordinals]
    data = {"run": run, "tier": "list", "findings": findings, "ordinals": list(ordinals)}
    journal.note(Kind.FINDING_RECORDED, data, source=1, now_us=NOW_US)


def history(journal: Journal, ordinal: int) -> KeyHistory:
    with Reader.open(journal.path) as reader:
        return next(found for found in reader.explain(f"k{ordinal - 1:05}") if found.ordinal == ordinal)


def verified(journal: Journal, ordinal: int) -> list[tuple[int, str, bool]]:
    return [(found.seq, found.tier, found.sampled) for found in history(journal, ordinal).verifications]


def test_a_finished_run_over_all_keys_verifies_those_that_it_names_in_no_finding(journal: Journal) -> None:
    run = begin(journal)
    name(journal, run, 2)
    assert verified(journal, 1) == []
    end = finish(journal, run)
    assert [verified(journal, ordinal) for ordinal in (1, 2)] == [[(end, "list", False)], []]
    assert [history(journal, ordinal).unverified for ordinal in (1, 2)] == [False, True]


def test_a_key_without_an_object_of_ours_is_neither_verified_nor_missing_a_verification(
    journal: Journal,
) -> None:
    finish(journal, begin(journal))
    for ordinal in (6, 7):
        assert verified(journal, ordinal) == []
        assert not history(journal, ordinal).unverified


def test_a_finding_of_another_run_does_not_take_a_verification_back(journal: Journal) -> None:
    first = begin(journal)
    name(journal, first, 2)
    finish(journal, first)
    end = finish(journal, begin(journal))
    assert verified(journal, 2) == [(end, "list", False)]


def test_a_key_that_was_stored_after_the_run_began_is_not_verified_by_it(journal: Journal) -> None:
    run = begin(journal)
    settle(journal, [7])
    finish(journal, run)
    assert verified(journal, 7) == []
    assert history(journal, 7).unverified


def test_a_sample_verifies_the_keys_that_it_names_and_no_other(journal: Journal) -> None:
    sample = {"keys": 2, "of": 5, "seed": 1}
    run = begin(journal, "content", sample)
    data = {"run": run, "tier": "content", "after_seq": 0, "counts": {}, "ordinals": [1, 3]}
    journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US)
    named = head(journal)
    finish(journal, run, "content", sample)
    assert [verified(journal, ordinal) for ordinal in (1, 2, 3)] == [
        [(named, "content", True)],
        [],
        [(named, "content", True)],
    ]


def test_an_outcome_that_was_revoked_keeps_what_verified_it_and_the_next_one_begins_unverified(
    journal: Journal,
) -> None:
    end = finish(journal, begin(journal))
    journal.revoke([3], Revocation.REPAIR, message="gone", who="op", now_us=NOW_US)
    take(journal, 1, 1)
    settle(journal, [3])
    assert verified(journal, 3) == [(end, "list", False)]
    assert history(journal, 3).unverified
    again = finish(journal, begin(journal))
    assert [seq for seq, *_ in verified(journal, 3)] == [end, again]
    assert not history(journal, 3).unverified


def test_a_sample_of_an_earlier_outcome_says_nothing_of_the_next_one(journal: Journal) -> None:
    sample = {"keys": 1, "of": 5, "seed": 1}
    run = begin(journal, "content", sample)
    data = {"run": run, "tier": "content", "after_seq": 0, "counts": {}, "ordinals": [3]}
    journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US)
    finish(journal, run, "content", sample)
    journal.revoke([3], Revocation.REPAIR, message="gone", who="op", now_us=NOW_US)
    take(journal, 1, 1)
    settle(journal, [3])
    assert verified(journal, 3) == [(run + 1, "content", True)]
    assert history(journal, 3).unverified


def test_a_run_says_nothing_of_a_key_whose_later_plan_was_stored_before_it(journal: Journal) -> None:
    settle(journal, range(7, 11))
    journal.begin_pass(1, kind="snapshot", now_us=NOW_US)
    journal.seal_chunk(1, [("k00000", None, 7, 1)], now_us=NOW_US)
    journal.seal_segment(1, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    take(journal, 1, 1)
    settle(journal, [11])
    end = finish(journal, begin(journal))
    with Reader.open(journal.path) as reader:
        earlier, later = reader.explain("k00000")
    assert (earlier.verifications, earlier.unverified) == ((), False)
    assert [found.seq for found in later.verifications] == [end]


def test_a_run_over_other_sources_says_nothing_of_a_key(journal: Journal) -> None:
    other = plan(journal, rows(1, first=50))
    take(journal, other)
    settle(journal, [11])
    finish(journal, begin(journal))
    with Reader.open(journal.path) as reader:
        (found,) = reader.explain("k00050")
    assert found.verifications == ()


def test_findings_of_an_earlier_program_belong_to_the_run_that_ended_next(journal: Journal) -> None:
    findings = {"tier": "list", "findings": [["missing", 2, "k", ""]], "ordinals": [2]}
    journal.note(Kind.FINDING_RECORDED, findings, source=1, now_us=NOW_US)
    journal.note(Kind.VERIFICATION_FINISHED, {"tier": "list", "exit_code": 4}, now_us=NOW_US)
    assert verified(journal, 2) == []
    journal.note(Kind.VERIFICATION_FINISHED, {"tier": "list", "exit_code": 0}, now_us=NOW_US)
    assert verified(journal, 2) == [(head(journal), "list", False)]


def test_what_a_verification_was_is_told_oldest_first_in_full(journal: Journal) -> None:
    stored = history(journal, 1).outcome_seq
    assert stored is not None
    sample = {"keys": 2, "of": 5, "seed": 1}
    drawn = begin(journal, "content", sample)
    full = begin(journal)
    data = {"run": drawn, "tier": "content", "after_seq": 0, "counts": {}, "ordinals": [1]}
    named = journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US + 1)
    ended = {"run": full, "tier": "list", "until_seq": full - 1, "sources": None, "sample": None}
    end = journal.note(Kind.VERIFICATION_FINISHED, ended, now_us=NOW_US + 2)
    again = journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US + 3)
    assert history(journal, 1).verifications == (
        KeyVerification(named, NOW_US + 1, "content", drawn, sampled=True, outcome_seq=stored),
        KeyVerification(end, NOW_US + 2, "list", full, sampled=False, outcome_seq=stored),
        KeyVerification(again, NOW_US + 3, "content", drawn, sampled=True, outcome_seq=stored),
    )


def test_a_run_looks_at_an_outcome_recorded_just_before_it_and_at_none_revoked_by_then(
    journal: Journal,
) -> None:
    settle(journal, [7])
    end = finish(journal, begin(journal))
    assert verified(journal, 7) == [(end, "list", False)]
    journal.revoke([7], Revocation.REPAIR, message="gone", who="op", now_us=NOW_US)
    finish(journal, begin(journal))
    assert verified(journal, 7) == [(end, "list", False)]


def test_a_finding_of_an_earlier_program_belongs_to_no_later_run(journal: Journal) -> None:
    findings = {"tier": "list", "findings": [["missing", 2, "k", ""]], "ordinals": [2]}
    ends = []
    for found in (False, True, False):
        if found:
            journal.note(Kind.FINDING_RECORDED, findings, source=1, now_us=NOW_US)
        ends.append(journal.note(Kind.VERIFICATION_FINISHED, {"tier": "list"}, now_us=NOW_US))
    assert verified(journal, 2) == [(ends[0], "list", False), (ends[2], "list", False)]


def test_a_finding_belongs_to_the_run_that_it_names_although_another_ended_before(journal: Journal) -> None:
    first, second = begin(journal), begin(journal)
    name(journal, second, 2)
    end = finish(journal, first)
    finish(journal, second)
    assert verified(journal, 2) == [(end, "list", False)]


@pytest.mark.parametrize("outcome", [Outcome.STORED, Outcome.RECOVERED, Outcome.PRESENT])
def test_every_outcome_that_leaves_an_object_is_verified(journal: Journal, outcome: Outcome) -> None:
    settle(journal, [7], outcome)
    assert history(journal, 7).unverified
    end = finish(journal, begin(journal))
    assert verified(journal, 7) == [(end, "list", False)]


def test_a_sample_drawn_after_a_later_plan_was_stored_says_nothing_of_the_earlier(journal: Journal) -> None:
    settle(journal, range(7, 11))
    plan(journal, [row._replace(supersedes=1) for row in rows(1)], source=1)
    data = {"run": 0, "tier": "content", "ordinals": [1]}
    before = journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US)
    take(journal, 1, 1)
    settle(journal, [11])
    journal.note(Kind.VERIFICATION_PROGRESSED, data, now_us=NOW_US)
    assert verified(journal, 1) == [(before, "content", True)]
