"""A claim bounded by bytes takes what fits, and says so where the next key alone does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal.entries import Claim, PlannedRow
from journal.log import Journal
from tests.journal.journals import NOW_US, create, plan

SIZES = [10, 20, 30, 0, 40]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = create(tmp_path / "journal.db")
    made.start_session(now_us=NOW_US, facts={})
    rows = [PlannedRow(f"k{number}", NOW_US - number, size) for number, size in enumerate(SIZES)]
    plan(made, rows, chunk=2)
    return made


def taken(journal: Journal, bytes_max: int | None) -> Claim | None:
    return journal.claim(1, limit=100, window=100, bytes_max=bytes_max, now_us=NOW_US)


def ordinals(claim: Claim | None) -> list[int]:
    assert claim is not None
    return [key.ordinal for key in claim.keys]


@pytest.mark.parametrize(
    ("bytes_max", "expected"),
    [
        (None, [1, 2, 3, 4, 5]),
        (100, [1, 2, 3, 4, 5]),
        (99, [1, 2, 3, 4]),
        (60, [1, 2, 3, 4]),
        (59, [1, 2]),
        (10, [1]),
        (9, []),
    ],
)
def test_the_frontier_is_claimed_as_far_as_it_fits(
    journal: Journal, bytes_max: int | None, expected: list[int]
) -> None:
    assert ordinals(taken(journal, bytes_max)) == expected
    assert journal.in_flight == len(expected)


@pytest.mark.parametrize(("bytes_max", "expected"), [(100, [1, 2, 3, 4, 5]), (59, [1, 2]), (9, [])])
def test_keys_that_were_given_back_are_claimed_as_far_as_they_fit(
    journal: Journal, bytes_max: int, expected: list[int]
) -> None:
    journal.release(ordinals(taken(journal, None)), now_us=NOW_US)
    assert ordinals(taken(journal, bytes_max)) == expected
    assert journal.in_flight == len(expected)


def test_a_claim_that_nothing_fits_into_is_not_on_the_record(journal: Journal) -> None:
    before = repr(journal)
    assert ordinals(taken(journal, 9)) == []
    assert repr(journal) == before


def test_what_did_not_fit_is_claimed_next(journal: Journal) -> None:
    assert ordinals(taken(journal, 30)) == [1, 2]
    assert ordinals(taken(journal, 30)) == [3, 4]
    assert ordinals(taken(journal, 40)) == [5]
    assert taken(journal, 40) is None
