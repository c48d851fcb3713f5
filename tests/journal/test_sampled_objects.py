"""Samples of what must be in the bucket, drawn from a list of all or, where there are too many, by look-ups."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from journal import sampled_objects
from journal.lifecycle import Outcome
from journal.reader import Reader
from tests.journal.journals import NOW_US, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SMALL = (31, 37)
"""Ordinals of the small source's keys, the first and the last."""


@pytest.fixture(params=["listed", "looked up"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of 30 keys, of which each third has no object, one of 7 that all have one, and 30 of the first again."""
    monkeypatch.setattr(sampled_objects, "DRAWS_PER_QUERY", 5)
    if request.param == "looked up":
        monkeypatch.setattr(sampled_objects, "OBJECTS_LISTED_MAX", 0)
    path = tmp_path / "journal.db"
    journal, large = planned(path, 30)
    small = plan(journal, rows(7))
    plan(journal, [row._replace(row_key=f"more {row.row_key}") for row in rows(30)], source=large)
    for source in (large, small, large):
        while claim := journal.claim(source, limit=1000, window=1000, now_us=NOW_US):
            for outcome in (Outcome.SKIPPED, Outcome.STORED):
                of_it = [
                    key.ordinal
                    for key in claim.keys
                    if (source == large and key.ordinal % 3 == 0) is (outcome is Outcome.SKIPPED)
                ]
                if of_it:
                    settle(journal, of_it, outcome)
    journal.close()
    return path


def drawn(path: Path, keys: int, *, seed: int = 1, sources: tuple[int, ...] = (1, 2)) -> list[int]:
    with Reader.open(path) as reader:
        return reader.draw(seed=seed, keys=keys, until_seq=reader.head_seq(), sources=sources)


def with_objects() -> Iterator[int]:
    return (n for n in range(1, 68) if SMALL[0] <= n <= SMALL[1] or n % 3)


def test_all_that_have_an_object_can_be_drawn_and_nothing_else(path: Path) -> None:
    assert drawn(path, 1000) == list(with_objects())


def test_only_of_the_sources_that_are_asked_for(path: Path) -> None:
    assert drawn(path, 1000, sources=(2,)) == list(range(SMALL[0], SMALL[1] + 1))
    assert drawn(path, 1000, sources=()) == []


def test_only_outcomes_up_to_the_event(path: Path) -> None:
    with Reader.open(path) as reader:
        assert reader.draw(seed=1, keys=9, until_seq=3, sources=(1, 2)) == []


def test_the_same_seed_draws_the_same_keys_and_another_one_others(path: Path) -> None:
    assert drawn(path, 9) == drawn(path, 9)
    assert drawn(path, 9) != drawn(path, 9, seed=2)


def test_each_key_is_equally_likely(path: Path) -> None:
    """400 draws of 9 of 47: each key 76.6 times on average, with a standard deviation of 7.9."""
    times = Counter(ordinal for seed in range(400) for ordinal in drawn(path, 9, seed=seed))
    assert set(times) == set(with_objects())
    assert all(45 < number < 110 for number in times.values())


def test_a_small_source_is_not_sought_among_the_keys_of_a_large_one(path: Path) -> None:
    statements: list[str] = []
    with Reader.open(path) as reader:
        head_seq = reader.head_seq()

        def traced(connection):
            connection.set_trace_callback(statements.append)
            found = sampled_objects.draw(connection, seed=1, keys=4, until_seq=head_seq, sources=[2])
            connection.set_trace_callback(None)
            return found

        assert len(reader.read(traced)) == 4
    assert 1 <= sum("CROSS JOIN outcome" in statement for statement in statements) <= 2


def test_a_key_that_was_copied_again_is_drawn_under_its_later_plan(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    plan(journal, [rows(1)[0]._replace(size=5, supersedes=1)], source=source)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    journal.close()
    assert drawn(path, 9, sources=(1,)) == [2, 3]
