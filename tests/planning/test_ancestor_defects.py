"""What the program this one descends from got wrong in planning, each by its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.layouts import Layout, object_key
from tests.planning.fake_source import FakeSource, FakeTable
from tests.planning.migration import CUTOFF_US, Migration, drive, planner, server_clock, spec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from tests.planning.fake_source import Version

PAGE_ROWS = 10


def ancestors_pages(table: FakeTable) -> Iterator[list[Version]]:
    """The ancestor's rule: newest first, the next page strictly below the last timestamp of this one."""
    cutoff = CUTOFF_US
    while True:
        below = [row for row in table.versions() if row.created_at is not None and row.created_at < cutoff]
        page = sorted(below, key=lambda row: row.created_at or 0, reverse=True)[:PAGE_ROWS]
        if not page:
            return
        yield page
        cutoff = page[-1].created_at or 0


def tied_table() -> FakeTable:
    table = FakeTable(rows_per_block=7)
    for number in range(60):
        table.insert(f"k{number:02}", CUTOFF_US - 1 - number // 8)
    return table


def test_d2_the_ancestors_pages_lose_rows_that_tie_with_the_last_of_a_page() -> None:
    found = {row.key for page in ancestors_pages(tied_table()) for row in page}
    assert len(found) < 60


async def test_d2_rows_that_tie_are_all_planned(autojump_clock: MockClock, tmp_path: Path) -> None:
    migration = Migration(tmp_path / "journal.db")
    with migration.journal() as journal:
        await planner(journal, FakeSource({"t": tied_table()}, server_clock)).plan([spec()])
        assert len({key.row_key for key in drive(journal, "t")}) == 60


async def statements_for(rows: int, tmp_path: Path, *, rows_per_block: int) -> list[str]:
    table = FakeTable(rows_per_block=rows_per_block)
    for number in range(rows):
        table.insert(f"{number:06}", number)
    source = FakeSource({"t": table}, server_clock)
    migration = Migration(tmp_path / f"{rows}.db")
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert journal.counts()["t"].planned_rows == rows
    return source.statements


async def test_d7_statements_grow_with_blocks_and_not_with_rows(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    few = await statements_for(2_000, tmp_path, rows_per_block=10)
    many = await statements_for(20_000, tmp_path, rows_per_block=100)
    assert many == few


async def test_d7_a_pass_reads_each_block_once(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.planning.RANGE_BLOCKS_MAX", 64)
    statements = await statements_for(6_400, tmp_path, rows_per_block=1)
    assert statements.count("sweep_range") == 100
    assert set(statements) == {"server", "describe", "check_fetch_plan", "sweep_range"}


def test_d13_tiers_of_a_non_ascii_key_are_cut_between_characters() -> None:
    key = "naïve-日本"
    with pytest.raises(UnicodeDecodeError):
        key.encode()[2:3].decode()
    assert object_key(Layout(kind="tiered"), key) == "na/ïv/e-/naïve-日本"
