from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from daemon.errors import BackfillError, ConfigError, SourceUnfitError, UnreachableError
from daemon.retrying import Failure, FailureClass
from daemon.scanning import RESTARTS_MAX
from journal.checkpoint import Order, sort_key
from journal.lifecycle import Outcome
from journal.stage_file import stage_path
from tests.planning.fake_source import FakeSource, FakeTable, fails
from tests.planning.migration import (
    CUTOFF_US,
    SECOND_US,
    Migration,
    drive,
    planner,
    server_clock,
    spec,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from daemon.config import SourceConfig
    from journal.log import Journal

LOST = Failure(FailureClass.CONNECTION, "SCAN", "connection lost", answered=False)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """One block a range: every table of these tests takes many."""
    monkeypatch.setattr("daemon.scanning.RANGE_BLOCKS_FIRST", 1)
    monkeypatch.setattr("daemon.planning.RANGE_BLOCKS_MAX", 1)


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    return Migration(tmp_path / "journal.db")


def filled(rows: int = 20, **settings: object) -> FakeTable:
    table = FakeTable(**settings)
    for number in range(rows):
        table.insert(f"k{number:03}", CUTOFF_US - 1000 + number, b"v" * number)
    return table


def source_of(
    table: FakeTable,
    *,
    at: int | None = None,
    hook: Callable[[], None] | None = None,
    on: str = "sweep_range",
    **settings: object,
) -> FakeSource:
    """A source over one table; `hook` runs before the `at`-th statement named `on`."""
    source = FakeSource({"t": table}, server_clock, **settings)
    count = 0

    def on_statement(name: str) -> None:
        nonlocal count
        count += name == on
        if hook is not None and name == on and count == at:
            hook()

    source.on_statement = on_statement
    return source


def planned(journal: Journal, name: str = "t") -> list[str]:
    return [key.row_key for key in drive(journal, name)]


# -- first sweep ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(Order))
async def test_a_sweep_plans_every_row_once_in_processing_order(
    autojump_clock: MockClock, migration: Migration, order: Order
) -> None:
    migration.order = order
    table = filled()
    table.insert("tie-a", CUTOFF_US - 1000)
    table.insert("tie-b", CUTOFF_US - 1000)
    source = source_of(table)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        keys = drive(journal, "t")
    expected = sorted(table.versions(), key=lambda row: sort_key(order, row.created_at, row.key or ""))
    assert [key.row_key for key in keys] == [row.key for row in expected]
    assert sum(key.size for key in keys) == sum(len(row.value or b"") for row in table.versions())


async def test_all_heaps_of_a_partitioned_table_are_swept(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4, relations=(1, 2, 3))
    table.insert("in-2", 5, relation=2)
    source = source_of(table)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert set(planned(journal)) == source.in_scope(spec(), CUTOFF_US)


async def test_the_last_range_is_unbounded_so_that_a_table_that_grew_is_read_to_its_end(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4)
    source = source_of(table, at=2, hook=lambda: [table.insert(f"late{n}", 1) for n in range(9)])
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert len(planned(journal)) == 13


async def test_a_table_that_grows_for_long_is_described_again_before_the_unbounded_range(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(8)
    source = source_of(
        table, at=3, hook=lambda: [table.insert(f"late{n}", 1) for n in range(8)], latency=20.0
    )
    with migration.journal() as journal:
        await planner(journal, source).plan_source(spec())
        assert len(planned(journal)) == 16
    assert source.statements.count("sweep_range") == 8
    assert source.statements.count("describe") > 1


async def test_a_key_that_moved_and_is_read_twice_is_planned_once_as_last_read(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(6)
    source = source_of(table, at=2, hook=lambda: table.update("k000", value=b"longer value"))
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        keys = drive(journal, "t")
    assert sorted(key.row_key for key in keys) == [f"k{n:03}" for n in range(6)]
    assert next(key.size for key in keys if key.row_key == "k000") == len(b"longer value")


async def test_a_rewritten_relation_is_swept_anew_from_its_first_block(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(12)
    source = source_of(table, at=4, hook=table.rewrite)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert set(planned(journal)) == source.in_scope(spec(), CUTOFF_US)


async def test_the_exclusions_of_a_rewritten_relation_are_counted_once(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(6)
    table.insert("new", CUTOFF_US)
    source = source_of(table, at=4, hook=table.rewrite)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert journal.counts()["t"].excluded["newer_than_cutoff"] == 1


async def test_a_relation_that_is_rewritten_without_end_is_given_up(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(6)
    source = source_of(table)
    source.on_statement = lambda name: table.rewrite() if name == "sweep_range" else None
    refused = pytest.raises(BackfillError, match=f"rewritten {RESTARTS_MAX + 1} times")
    with migration.journal() as journal, refused:
        await planner(journal, source).plan([spec()])


async def test_a_partition_dropped_in_mid_sweep_plans_nothing_of_it(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4, relations=(1, 2))
    for n in range(6):
        table.insert(f"gone{n}", 1, relation=2)
    source = source_of(table, at=4, hook=lambda: table.heaps.pop(2))
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert len(planned(journal)) == 4


async def test_exclusions_are_recorded_by_reason(autojump_clock: MockClock, migration: Migration) -> None:
    table = filled(3)
    table.insert("newer", CUTOFF_US)
    table.insert("draft", 1, in_where=False)
    table.insert("undated", None)
    table.insert("null", 1, None)
    given = spec(where="kind <> 'draft'", null_created_at="exclude", null_value="exclude")
    with migration.journal() as journal:
        await planner(journal, source_of(table)).plan([given])
        counts = journal.counts()["t"]
    assert counts.planned_rows == 3
    assert counts.excluded == {"newer_than_cutoff": 1, "where": 1, "null_created_at": 1, "null_value": 1}


async def test_included_nulls_come_last_and_empty(autojump_clock: MockClock, migration: Migration) -> None:
    table = filled(2)
    table.insert("undated", None)
    table.insert("null", 1, None)
    with migration.journal() as journal:
        await planner(journal, source_of(table)).plan([spec(null_created_at="include", null_value="empty")])
        assert planned(journal) == ["k001", "k000", "null", "undated"]


async def test_an_empty_table_is_planned(autojump_clock: MockClock, migration: Migration) -> None:
    with migration.journal() as journal:
        await planner(journal, source_of(FakeTable())).plan([spec()])
        await planner(journal, source_of(FakeTable())).close_source(spec())
        assert journal.sources["t"].proven
        assert journal.complete(now_us=9)


async def test_keys_that_can_not_be_objects_are_planned_counted_and_named(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(3)
    table.insert("a//b", 1)
    table.insert("x\\y", 2)
    with migration.journal() as journal:
        await planner(journal, source_of(table)).plan([spec()])
        assert journal.counts()["t"].unusable == 2
        assert {"a//b", "x\\y"} < set(planned(journal))


async def test_planning_again_does_nothing_and_asks_the_server_nothing(
    autojump_clock: MockClock, migration: Migration
) -> None:
    source = source_of(filled())
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        head, asked = journal.statistics().head_seq, len(source.statements)
        await planner(journal, source).plan([spec()])
        assert (journal.statistics().head_seq, len(source.statements)) == (head, asked)


async def test_the_stage_is_gone_once_a_pass_is_sealed(
    autojump_clock: MockClock, migration: Migration
) -> None:
    with migration.journal() as journal:
        await planner(journal, source_of(filled())).plan([spec()])
        assert not stage_path(migration.path).exists()


async def test_progress_counts_rows_and_blocks_up_to_all_of_them(
    autojump_clock: MockClock, migration: Migration
) -> None:
    seen: list[tuple[str, int, int, int]] = []
    with migration.journal() as journal:
        await planner(journal, source_of(filled(6))).plan([spec()], lambda *progress: seen.append(progress))
    assert seen == [("t", 2, 1, 3), ("t", 4, 2, 3), ("t", 6, 3, 3)]


async def test_sources_are_planned_each_with_its_own_keys_and_counts(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    one, other = spec("a"), spec("b")
    migration = Migration(tmp_path / "journal.db", sources=(one, other))
    source = FakeSource({"a": filled(3), "b": filled(5)}, server_clock)
    with migration.journal() as journal:
        await planner(journal, source).plan([one, other])
        assert {name: counts.planned_rows for name, counts in journal.counts().items()} == {"a": 3, "b": 5}
        assert len(planned(journal, "b")) == 5


# -- cutoff ------------------------------------------------------------------------------------------------


async def test_without_a_configured_cutoff_the_servers_clock_is_taken_once(
    autojump_clock: MockClock, migration: Migration
) -> None:
    migration.cutoff_us = None
    source = source_of(filled(), latency=1.0)
    with migration.journal() as journal:
        first = await planner(journal, source).settle_cutoff()
        await planner(journal, source).plan([spec()])
        assert journal.cutoff_us == first == CUTOFF_US + 2 * SECOND_US


async def test_a_cutoff_in_the_future_is_refused_before_anything_is_planned(
    autojump_clock: MockClock, migration: Migration
) -> None:
    migration.cutoff_us = CUTOFF_US + 3600 * SECOND_US
    with migration.journal() as journal:
        with pytest.raises(ConfigError):
            await planner(journal, source_of(filled())).plan([spec()])
        assert journal.open_pass(1) is None


# -- snapshots ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["view", "no unique index", "no created_at"])
async def test_one_snapshot_serves_where_a_sweep_can_not(
    autojump_clock: MockClock, migration: Migration, kind: str
) -> None:
    table = filled(17, unique=kind != "no unique index")
    table.sweepable = kind != "view"
    given = spec(created_at=None if kind == "no created_at" else "created_at")
    source = source_of(table)
    with migration.journal() as journal:
        await planner(journal, source).plan([given])
        assert "sweep_range" not in source.statements
        assert set(planned(journal)) == source.in_scope(given, CUTOFF_US)


async def test_a_source_without_created_at_is_in_key_order_and_closed_after_its_one_pass(
    autojump_clock: MockClock, migration: Migration
) -> None:
    given = spec(created_at=None)
    source = source_of(filled(7))
    with migration.journal() as journal:
        await planner(journal, source).plan([given])
        assert journal.sources["t"].closed
        await planner(journal, source).close_source(given)
        assert planned(journal) == [f"k{n:03}" for n in range(7)]
    assert source.statements.count("snapshot") == 1


async def test_keys_that_repeat_in_a_snapshot_are_refused_and_nothing_is_planned(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4, unique=False)
    table.insert("k001", 1)
    with migration.journal() as journal:
        with pytest.raises(SourceUnfitError, match=r"1 rows repeat the key of another, such as 'k001'"):
            await planner(journal, source_of(table)).plan([spec()])
        assert journal.counts()["t"].planned_rows == 0
        assert journal.open_pass(1) is None
    assert not stage_path(migration.path).exists()


async def test_keys_that_are_null_are_refused_and_nothing_is_planned(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(8)
    table.insert(None, 1)
    with migration.journal() as journal:
        with pytest.raises(SourceUnfitError, match="NULL in its key"):
            await planner(journal, source_of(table)).plan([spec()])
        assert journal.counts()["t"].planned_rows == 0
        assert journal.open_pass(1) is None


@pytest.mark.parametrize(("key", "row"), [("null_created_at", (None, b"v")), ("null_value", (1, None))])
async def test_undecided_nulls_are_refused_until_the_config_decides(
    autojump_clock: MockClock, migration: Migration, key: str, row: tuple[int | None, bytes | None]
) -> None:
    table = filled(6)
    table.insert("n1", *row)
    table.insert("n2", *row)
    source = source_of(table)
    with migration.journal() as journal:
        with pytest.raises(SourceUnfitError, match=f"2 rows have .* NULL: set {key}"):
            await planner(journal, source).plan([spec()])
        assert journal.counts()["t"].planned_rows == 0
        await planner(journal, source).plan([spec(**{key: "exclude"})])
        assert len(planned(journal)) == 6


async def test_a_lost_snapshot_is_taken_anew(autojump_clock: MockClock, migration: Migration) -> None:
    table = filled(17)
    table.sweepable = False
    source = source_of(table)
    source.on_statement = fails(LOST, on="scan_batch", times=2)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert len(planned(journal)) == 17
    assert source.statements.count("snapshot") == 3


async def test_snapshots_that_are_always_lost_end_with_unreachable(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(3)
    table.sweepable = False
    source = source_of(table)
    source.on_statement = fails(LOST, on="scan_batch", times=10_000)
    with migration.journal() as journal, pytest.raises(UnreachableError, match="connection lost"):
        await planner(journal, source).plan([spec()])


# -- closing -----------------------------------------------------------------------------------------------


def moved_ahead(table: FakeTable) -> None:
    """A row from an unread block moves into a free slot of one that has been read."""
    table.delete("k000")
    table.update("k005", to_front=True)


async def test_the_closing_pass_finds_what_the_sweep_missed_and_only_that(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(6)
    source = source_of(table, at=2, hook=lambda: moved_ahead(table))
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert "k005" not in planned(journal)
        await planner(journal, source).close_source(spec())
        assert planned(journal) == ["k005"]
        assert journal.sources["t"].closed
        assert journal.sources["t"].proven


async def test_a_closing_pass_that_adds_nothing_seals_an_empty_segment(
    autojump_clock: MockClock, migration: Migration
) -> None:
    source = source_of(filled(6))
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        drive(journal, "t")
        await planner(journal, source).close_source(spec())
        assert planned(journal) == []
        assert journal.complete(now_us=9)


async def test_the_closing_snapshot_waits_for_a_transaction_from_before_the_cutoff(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4)
    source = source_of(table)
    late = source.begin("t", started_us=CUTOFF_US - 1)
    late.insert("late", CUTOFF_US - 1)
    waits: list[str] = []

    def on_wait(_source: str, reason: str) -> None:
        waits.append(reason)
        if len(waits) == 3:
            late.commit()

    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        await planner(journal, source, on_wait=on_wait).close_source(spec())
        assert "late" in planned(journal)
    assert len(waits) == 3
    assert "pid 1" in waits[0]


async def test_a_transaction_begun_after_the_cutoff_holds_nothing_up(
    autojump_clock: MockClock, migration: Migration
) -> None:
    source = source_of(filled(4))
    source.begin("t", started_us=CUTOFF_US)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        await planner(journal, source).close_source(spec())
        assert journal.sources["t"].proven


async def test_prepared_transactions_are_waited_for_but_not_those_that_come_later(
    autojump_clock: MockClock, migration: Migration
) -> None:
    source = source_of(filled(4))
    old = source.begin("t", started_us=CUTOFF_US - 1)
    old.insert("prepared", 7)
    old.prepare("old")
    waits: list[str] = []

    def on_wait(_source: str, reason: str) -> None:
        waits.append(reason)
        source.begin("t", started_us=CUTOFF_US + 1).prepare(f"new{len(waits)}")
        if len(waits) == 2:
            old.commit()

    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        await planner(journal, source, on_wait=on_wait).close_source(spec())
        assert "prepared" in planned(journal)
    assert len(waits) == 2


async def test_without_sight_of_other_sessions_it_waits_for_late_grace_and_closes_unproven(
    autojump_clock: MockClock, migration: Migration
) -> None:
    source = source_of(filled(4), visible=False)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        await planner(journal, source).close_source(spec())
        record = journal.sources["t"]
    assert server_clock() > CUTOFF_US + 300 * SECOND_US
    assert (record.closed, record.proven) == (True, False)
    assert "late_grace" in (record.closing_proof or "")


async def test_a_vanished_key_that_is_there_again_is_planned_again(
    autojump_clock: MockClock, migration: Migration
) -> None:
    source = source_of(filled(4))
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        drive(journal, "t", lambda key: Outcome.VANISHED if key.row_key == "k002" else Outcome.STORED)
        await planner(journal, source).close_source(spec())
        assert planned(journal) == ["k002"]
        assert journal.complete(now_us=9)


async def test_a_key_whose_size_differs_from_what_was_copied_is_planned_again(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4)
    source = source_of(table)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        drive(journal, "t")
        table.update("k001", value=b"of another length")
        await planner(journal, source).close_source(spec())
        again = drive(journal, "t")
    assert [(key.row_key, key.size) for key in again] == [("k001", len(b"of another length"))]


async def test_closing_a_closed_source_asks_nothing(autojump_clock: MockClock, migration: Migration) -> None:
    source = source_of(filled(4))
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        await planner(journal, source).close_source(spec())
        asked = len(source.statements)
        await planner(journal, source).close_source(spec())
        assert len(source.statements) == asked


async def test_reconcile_looks_again_at_a_closed_source_and_closes_it_anew(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4)
    source = source_of(table)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        await planner(journal, source).close_source(spec())
        drive(journal, "t")
        table.insert("backdated", 3)
        await planner(journal, source).reconcile(spec(), who="op", reason="plan --reconcile")
        assert planned(journal) == ["backdated"]
        assert journal.sources["t"].closed


async def test_reconcile_of_a_source_without_created_at_takes_another_snapshot(
    autojump_clock: MockClock, migration: Migration
) -> None:
    table = filled(4)
    given: SourceConfig = spec(created_at=None)
    with migration.journal() as journal:
        await planner(journal, source_of(table)).plan([given])
        drive(journal, "t")
        table.insert("more", None)
        await planner(journal, source_of(table)).reconcile(given, who="op", reason="plan --reconcile")
        assert planned(journal) == ["more"]
        assert journal.sources["t"].closed
