"""Planning dies at every commit, and at every step of a scan; what another process then finishes is the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from daemon.errors import SourceUnfitError
from journal.checkpoint import Order, sort_key
from journal.errors import JournalError
from journal.log import Journal
from journal.stage_file import stage_path
from tests.planning.fake_source import FakeSource, FakeTable
from tests.planning.migration import (
    CUTOFF_US,
    CrashedError,
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


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.scanning.RANGE_BLOCKS_FIRST", 1)
    monkeypatch.setattr("daemon.planning.RANGE_BLOCKS_MAX", 1)
    monkeypatch.setattr("daemon.scanning.RANGE_ROWS_TARGET", 4)
    monkeypatch.setattr("daemon.passes.CHUNK_KEYS_MAX", 3)


class CrashingJournal(Journal):
    """Dies at a commit: an odd fuse burns down just before it, an even one just after."""

    fuse = 0

    def _commit(self) -> None:
        self._burn()
        super()._commit()
        self._burn()

    def _burn(self) -> None:
        type(self).fuse -= 1
        if type(self).fuse == 0:
            raise CrashedError


def tables(rows: int = 14) -> dict[str, FakeTable]:
    shuffled = random.Random(7)
    table, other = FakeTable(relations=(1, 2)), FakeTable()
    for number in range(rows):
        table.insert(f"k{number:02}", CUTOFF_US - 1 - shuffled.randrange(4), relation=1 + number % 2)
        other.insert(f"o{number:02}", CUTOFF_US - number)
    return {"t": table, "o": other}


SPECS = (spec("t"), spec("o"))


async def go(migration: Migration, source: FakeSource, kind: type[Journal] = Journal) -> None:
    """What a session does: plan, copy, close, copy what that added."""
    with migration.journal(kind=kind) as journal:
        journal.recover(now_us=3)
        await planner(journal, source).plan(SPECS)
        for given in SPECS:
            drive(journal, given.name)
        for given in SPECS:
            await planner(journal, source).close_source(given)
            drive(journal, given.name)


def finished_rightly(migration: Migration, source: FakeSource) -> None:
    with migration.journal() as journal:
        assert journal.complete(now_us=9)
        for given in SPECS:
            assert journal.sources[given.name].closed
            counts = journal.counts()[given.name]
            assert counts.stored == len(source.in_scope(given, CUTOFF_US))
    assert not stage_path(migration.path).exists()


@pytest.mark.parametrize("order", list(Order))
async def test_dying_at_any_commit_changes_nothing_of_the_result(
    order: Order, autojump_clock: MockClock, tmp_path: Path
) -> None:
    # One order dies before each commit, the other after it.
    fuse = 1 if order is Order.NEWEST_FIRST else 2
    CrashingJournal.fuse = 0
    while CrashingJournal.fuse <= 0:
        migration = Migration(tmp_path / f"{fuse}.db", order=order, sources=SPECS)
        source = FakeSource(tables(rows=8), server_clock)
        with migration.journal():
            pass
        CrashingJournal.fuse = fuse
        try:
            await go(migration, source, CrashingJournal)
        except CrashedError:
            await go(migration, source)
        finished_rightly(migration, source)
        fuse += 2
    assert fuse > 40


@pytest.mark.parametrize("statement", range(1, 37, 2))
async def test_dying_in_any_statement_changes_nothing_of_the_result(
    statement: int, autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=SPECS)
    source = FakeSource(tables(), server_clock)

    def on_statement(_name: str) -> None:
        if len(source.statements) == statement:
            raise CrashedError

    source.on_statement = on_statement
    try:
        await go(migration, source)
    except CrashedError:
        await go(migration, source)
    finished_rightly(migration, source)


def dying(source: FakeSource, name: str, nth: int) -> Callable[[str], None]:
    def on_statement(_name: str) -> None:
        if source.statements.count(name) == nth and source.statements[-1] == name:
            raise CrashedError

    return on_statement


async def test_a_sweep_goes_on_behind_the_last_range_it_kept(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=SPECS)
    source = FakeSource(tables(), server_clock)
    source.on_statement = dying(source, "sweep_range", 6)
    with migration.journal() as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan(SPECS)
    source.on_statement = lambda _name: None
    with migration.journal() as journal:
        await planner(journal, source).plan(SPECS)
    # Two relations of 4 blocks and one of 7: only the range in which the process died is read twice.
    assert source.statements.count("sweep_range") == 4 + 4 + 7 + 1


async def test_sealing_goes_on_behind_the_last_chunk_without_another_scan(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock)
    with migration.journal():
        pass
    CrashingJournal.fuse = 8
    with migration.journal(kind=CrashingJournal) as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec()])
    scanned = source.statements.count("sweep_range")
    with migration.journal() as journal:
        sealed, _ = journal.sealed_rows_of_open_segment(1)
        assert 0 < sealed < 14
        await planner(journal, source).plan([spec()])
        assert journal.counts()["t"].planned_rows == 14
        keys = drive(journal, "t")
    assert source.statements.count("sweep_range") == scanned
    assert keys == sorted(keys, key=lambda key: sort_key(Order.NEWEST_FIRST, key.created_at, key.row_key))


async def test_a_half_sealed_source_comes_first_even_behind_one_that_was_added(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec("o"),))
    source = FakeSource(tables(), server_clock)
    with migration.journal():
        pass
    CrashingJournal.fuse = 6
    with migration.journal(kind=CrashingJournal) as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec("o")])
    migration.sources = (spec("t"), spec("o"))
    with migration.journal() as journal:
        assert journal.sealed_rows_of_open_segment(journal.sources["o"].id)[0] > 0
        await planner(journal, source).plan([spec("t"), spec("o")])
        assert {name: counts.planned_rows for name, counts in journal.counts().items()} == {"t": 14, "o": 13}


async def half_sealed(migration: Migration, source: FakeSource) -> None:
    with migration.journal():
        pass
    CrashingJournal.fuse = 8
    with migration.journal(kind=CrashingJournal) as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec()])


@pytest.mark.parametrize("damage", ["gone", "garbage", "empty"])
async def test_a_lost_stage_costs_another_scan_and_no_key_is_planned_twice(
    damage: str, autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock)
    await half_sealed(migration, source)
    stage = stage_path(migration.path)
    if damage == "gone":
        stage.unlink()
    else:
        stage.write_bytes(b"garbage" * 2000 if damage == "garbage" else b"")
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert sorted(key.row_key for key in drive(journal, "t")) == sorted(
            source.in_scope(spec(), CUTOFF_US)
        )


async def test_a_changed_rule_makes_the_stage_stale(autojump_clock: MockClock, tmp_path: Path) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock)
    source.tables["t"].insert("null", 1, None)
    source.on_statement = dying(source, "sweep_range", 6)
    with migration.journal() as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec(null_value="exclude")])
    source.on_statement = lambda _name: None
    with migration.journal() as journal:
        await planner(journal, source).plan([spec(null_value="empty")])
        assert "null" in {key.row_key for key in drive(journal, "t")}
        assert journal.counts()["t"].excluded["null_value"] == 0


async def test_a_new_journal_never_takes_the_stage_of_a_deleted_one(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock)
    source.on_statement = dying(source, "sweep_range", 6)
    with migration.journal() as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec()])
    source.on_statement = lambda _name: None
    for path in migration.path.parent.glob("journal.db*"):
        if path != stage_path(migration.path):
            path.unlink()
    source.tables["t"] = FakeTable()
    source.tables["t"].insert("only", 1)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert [key.row_key for key in drive(journal, "t")] == ["only"]


async def test_a_closing_pass_resumed_keeps_the_proof_it_began_with(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock, visible=False)
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        source.on_statement = dying(source, "scan_batch", 2)
        with pytest.raises(CrashedError):
            await planner(journal, source).close_source(spec())
    source.on_statement = lambda _name: None
    source.visible = True
    with migration.journal() as journal:
        await planner(journal, source).plan([spec()])
        assert journal.sources["t"].closed
        assert not journal.sources["t"].proven


async def test_a_stage_that_is_lost_again_and_again_ends_the_attempt(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    table = FakeTable(rows_per_block=100)
    for number in range(1000):
        table.insert(f"{number:0200}", number)
    source = FakeSource({"t": table}, server_clock)

    def truncate(name: str) -> None:
        if source.statements.count("sweep_range") % 10 == 0 and name == "sweep_range":
            stage_path(migration.path).write_bytes(b"")

    source.on_statement = truncate
    monkeypatch.setattr("journal.stage_file.CACHE_KIB", 1)
    with migration.journal() as journal:
        with pytest.raises(JournalError, match="stage"):
            await planner(journal, source).plan([spec()])
        assert journal.open_pass(1) is None
        assert journal.counts()["t"].planned_rows == 0


async def test_a_refused_resumed_pass_is_given_up(autojump_clock: MockClock, tmp_path: Path) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock)
    source.tables["t"].insert("null", 1, None)
    source.on_statement = dying(source, "sweep_range", 3)
    with migration.journal() as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec()])
    source.on_statement = lambda _name: None
    with migration.journal() as journal:
        with pytest.raises(SourceUnfitError):
            await planner(journal, source).plan([spec()])
        assert journal.open_pass(1) is None


async def test_a_stage_of_a_deleted_journal_is_gone_before_the_new_ones_pass_begins(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    migration = Migration(tmp_path / "journal.db", sources=(spec(),))
    source = FakeSource(tables(), server_clock)
    source.on_statement = dying(source, "sweep_range", 6)
    with migration.journal() as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec()])
    source.on_statement = lambda _name: None
    for path in migration.path.parent.glob("journal.db*"):
        if path != stage_path(migration.path):
            path.unlink()
    with migration.journal():
        pass
    CrashingJournal.fuse = 2
    with migration.journal(kind=CrashingJournal) as journal, pytest.raises(CrashedError):
        await planner(journal, source).plan([spec()])
    assert not stage_path(migration.path).exists()
