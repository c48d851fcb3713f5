from __future__ import annotations

import pytest

from daemon.errors import ExitCode
from daemon.undoing import EXAMPLES_MAX, LeftObject, Reason, SourceTally, UndoTally, total_left


@pytest.fixture
def tally():
    return UndoTally({"one": SourceTally(), "two": SourceTally()})


def test_what_goes_is_counted_with_its_bytes_over_all_sources(tally):
    for source, size in (("one", 5), ("one", 7), ("two", 11)):
        tally.delete(source, size)
    tally.sources["two"].gone += 2
    assert (tally.deleted, tally.deleted_bytes, tally.gone) == (3, 23, 2)
    assert (tally.sources["one"].deleted, tally.sources["one"].deleted_bytes) == (2, 12)


def test_what_stays_is_counted_by_reason_and_shown_by_a_few_examples(tally):
    for number in range(EXAMPLES_MAX + 2):
        tally.leave(LeftObject("one" if number % 2 else "two", f"k{number}", Reason.LOCKED, "until later"))
    tally.leave(LeftObject("two", "p", Reason.PRESENT, ""))
    assert total_left(tally) == {Reason.PRESENT.value: 1, Reason.LOCKED.value: EXAMPLES_MAX + 2}
    assert tally.left(Reason.LOCKED, Reason.PRESENT) == EXAMPLES_MAX + 3
    assert [left.object_key for left in tally.examples] == [f"k{number}" for number in range(EXAMPLES_MAX)]


def test_an_undo_that_leaves_only_what_was_there_before_has_done_all(tally):
    tally.leave(LeftObject("one", "p", Reason.PRESENT, ""))
    assert tally.exit_code is ExitCode.DONE
    tally.leave(LeftObject("one", "f", Reason.FOREIGN, ""))
    assert tally.exit_code is ExitCode.MISMATCH
