"""Rows of a stage that are gone or not what was written: each is found by whoever reads it first."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from journal.stage_file import StageLost, stage_path
from journal.staging import Stage
from tests.planning.stages import IDENTITY, add

if TYPE_CHECKING:
    from pathlib import Path


def change(journal: Path, *statements: str) -> None:
    """What a disk that forgets does to a stage that nobody holds."""
    with closing(sqlite3.connect(stage_path(journal))) as other, other:
        for statement in statements:
            assert other.execute(statement).rowcount > 0, statement


@pytest.mark.parametrize("position", [1, 3, 5])
def test_a_page_from_which_a_row_is_missing_is_not_handed_out(
    stage: Stage, journal: Path, position: int
) -> None:
    add(stage, [(str(n), 9 - n, n) for n in range(5)])
    stage.sort()
    stage.close()
    change(journal, f"delete from sorted where position = {position}")
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        with pytest.raises(StageLost, match="rows missing between 1 and 5"):
            resumed.page(0)
        if position == 1:
            with pytest.raises(StageLost, match="1 rows stand before the 3th"):
                resumed.position_of("2")


@pytest.mark.parametrize("altered", ["row_key = 'x'", "created_at = 7", "created_at = null", "size = 9"])
def test_a_row_that_is_not_what_was_staged_is_not_handed_out(
    stage: Stage, journal: Path, altered: str
) -> None:
    add(stage, [("a", 1, 1), ("b", 2, 2)])
    stage.sort()
    stage.close()
    change(journal, f"update sorted set {altered} where position = 2")
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        assert resumed.page(0, 1) == [("b", 2, 2)]
        with pytest.raises(StageLost, match="not what was written"):
            resumed.page(0)
        with pytest.raises(StageLost, match="not what was written"):
            resumed.position_of("x" if "x" in altered else "a")


def test_a_read_that_is_dropped_for_a_later_one_is_what_was_staged(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1), ("b", 1, 1)])
    stage.close()
    change(journal, "update staged set row_key = 'b' where row_key = 'a'")
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        with pytest.raises(StageLost, match="not what was written"):
            resumed.sort()
        assert not resumed.is_sorted


@pytest.mark.parametrize(
    "altered",
    [
        "update pass set memo = 'because'",
        "update pass set number = 2",
        "insert into pass select * from pass",
        "update sorting set repeated = 1",
        "insert into sorting select * from sorting",
        "delete from pass",
    ],
)
def test_a_stage_whose_pass_or_order_is_not_what_was_written_is_lost(
    stage: Stage, journal: Path, altered: str
) -> None:
    add(stage, [("a", 1, 1)])
    stage.sort()
    stage.close()
    change(journal, altered)
    with pytest.raises(StageLost):
        Stage.resume(journal, IDENTITY)


@pytest.mark.parametrize("altered", ["next_block = 65", "seen = 0", "kept = 0", "excluded = '{}'"])
def test_progress_that_is_not_what_was_written_is_lost(stage: Stage, journal: Path, altered: str) -> None:
    add(stage, [("a", 1, 1)], 0, 64)
    stage.close()
    change(journal, f"update swept set {altered}")
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        for ask in (resumed.progress, resumed.totals, resumed.sort):
            with pytest.raises(StageLost, match="not what was written"):
                ask()


def test_a_range_that_is_gone_is_found_before_the_scan_goes_on(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1)], 0, 64)
    add(stage, [("b", 1, 1)], 64, 128)
    stage.close()
    change(journal, "delete from swept where first_block = 0")
    with (
        closing(Stage.resume(journal, IDENTITY)) as resumed,
        pytest.raises(StageLost, match="range at block 64 of 7/70 lacks the one before"),
    ):
        resumed.progress()


def test_a_range_that_brought_no_row_is_missed_before_sorting_too(stage: Stage, journal: Path) -> None:
    add(stage, [], 0, 64)
    add(stage, [("a", 1, 1)], 64)
    stage.close()
    change(journal, "delete from swept where first_block = 0")
    with (
        closing(Stage.resume(journal, IDENTITY)) as resumed,
        pytest.raises(StageLost, match="lacks the one before"),
    ):
        resumed.sort()


def test_rows_that_were_sorted_already_are_not_sorted_in_twice(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1), ("b", 2, 2)])
    stage.sort()
    stage.close()
    change(journal, "delete from sorting")
    with (
        closing(Stage.resume(journal, IDENTITY)) as resumed,
        pytest.raises(StageLost, match="4 rows sorted of 2"),
    ):
        resumed.sort()


def test_a_suspect_that_is_not_what_was_staged_is_not_told(stage: Stage, journal: Path) -> None:
    add(stage, [("../up", 1, 1)])
    stage.sort()
    stage.close()
    change(journal, "update sorted set size = 0")
    with (
        closing(Stage.resume(journal, IDENTITY)) as resumed,
        pytest.raises(StageLost, match="not what was written"),
    ):
        resumed.suspects(longer_than=100, reserved="probe", after=0)
