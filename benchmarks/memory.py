"""Peak memory of `run`, against the number of rows and against the size of values, with max_in_flight at its default."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.arms import Bench, backfillctl, configuration, copied
from benchmarks.planning_rate import fill_small
from benchmarks.servers import Sink, Table, null_sink
from daemon.settings_models import UploadConfig

if TYPE_CHECKING:
    from collections.abc import Callable

KIB = 1024
MIB = 1024 * KIB
MAX_IN_FLIGHT = UploadConfig().max_in_flight
PEAK_MB_MAX = 150.0
PEAK_MB_BESIDE_VALUES = 120.0
ROWS = (10_000, 100_000)
ROWS_QUICK = (2000,)
VALUES = ((KIB, 4000), (MIB, 600), (16 * MIB, 48), (64 * MIB, 12), (256 * MIB, 3))
"""Sizes with the number of rows: enough to fill max_in_flight where it can be filled."""
VALUES_QUICK = ((KIB, 500), (16 * MIB, 8))


@dataclass(frozen=True, slots=True)
class Peak:
    """What one `run` needed, and what it may need (10^6 bytes); `value_bytes` is the size of every value."""

    rows: int
    value_bytes: int
    peak_mb: float
    limit_mb: float


def peak_mb_max(value_bytes: int) -> float:
    """Return the limit for values of one size: twice the larger of max_in_flight and a value, and what all needs."""
    return 2 * max(MAX_IN_FLIGHT, value_bytes) / 1e6 + PEAK_MB_BESIDE_VALUES


@dataclass(frozen=True, slots=True)
class Memory:
    """Peaks by rows of nine bytes, and by size of values."""

    by_rows: list[Peak]
    by_value: list[Peak]


def fill_large(bench: Bench, size: int, rows: int) -> Table:
    """Make a table of `rows` equal values of `size` bytes; they compress, and are not compressed."""
    table = Table(f"values_{size}", rows, None)
    bench.postgres.sql(
        f"create unlogged table {table.name} (id text primary key, n int not null, "
        f"created_at timestamptz not null, value bytea);"
        f"alter table {table.name} alter column value set storage external;"
        f"insert into {table.name} select 'value ' || n, n, timestamptz '2026-01-01' - n * interval '1 second', v "
        f"from (select convert_to(repeat('0123456789abcdef', {size} / 16), 'UTF8') v) made, generate_series(1, {rows}) n;"
        f"vacuum analyze {table.name};"
    )
    return table


def measure(bench: Bench, *, is_quick: bool, tell: Callable[[str], None]) -> Memory:
    """Run each once: a peak varies far less than a rate."""
    memory = Memory([], [])
    with null_sink(bench.directory) as sink:
        for rows in ROWS_QUICK if is_quick else ROWS:
            memory.by_rows.append(Peak(rows, 9, _peak(bench, fill_small(bench, rows), sink), PEAK_MB_MAX))
            tell(f"memory of a run of {rows:,} rows: {memory.by_rows[-1].peak_mb:.0f} MB")
        for size, rows in VALUES_QUICK if is_quick else VALUES:
            memory.by_value.append(
                Peak(rows, size, _peak(bench, fill_large(bench, size, rows), sink), peak_mb_max(size))
            )
            tell(f"memory of a run, values of {size / KIB:,.0f} KiB: {memory.by_value[-1].peak_mb:.0f} MB")
    return memory


def _peak(bench: Bench, table: Table, sink: Sink) -> float:
    place = bench.directory / bench.fresh()
    place.mkdir()
    path = configuration(bench, place, table, sink, rows=table.rows, connections=64)
    backfillctl("plan", path, sink)
    cost = backfillctl("run", path, sink)
    _, stored = copied(place / "journal.db")
    if stored != table.rows:
        raise AssertionError(f"expected {table.rows} objects stored, found {stored}")
    shutil.rmtree(place)
    bench.postgres.sql(f"drop table {table.name}")
    return cost.peak_mb
