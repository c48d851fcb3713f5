"""How fast planning is against the number of rows, and how slow the ancestor's pagination becomes.

ours: `backfillctl plan` on a table of small rows, whose steps `planning_probe` tells
ancestor: pages of 1000 by `created_at < $1 ORDER BY created_at DESC LIMIT 1000`, no index on created_at, whole at
    100 k and 300 k rows; at 1 M its first ten pages, and the whole pass extrapolated from them
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.arms import Bench, backfillctl, beside, configuration
from benchmarks.measuring import python, run
from benchmarks.servers import Sink, Table, client_environment, null_sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = (100_000, 300_000, 1_000_000, 10_000_000)
ONLY_PAGED = frozenset({300_000})
"""Sizes at which only the ancestor's pagination is measured."""
ROWS_QUICK = (20_000, 40_000)
PAGED_WHOLE_MAX = 300_000
PAGES = 10
PAGE_ROWS = 1000
STEPS = ("staged", "sorted", "sealed", "indexed")
SETTLED_ROWS = 20_000
"""So many rows of the largest plan are copied, for the memory of a run beside a plan of that size."""
SMALL_VALUE = "\\x62656e63686d61726b"
"""Nine bytes; the size of values is no matter of planning."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One plan.

    Attributes:
        staged: seconds until all rows were read and staged; `sorted`, `sealed`, `indexed` further on, from the
            same moment.
        peak_mb: 10^6 bytes; `peaks_mb` says how large it had been by the end of each step.
        others_cores: that were busy with something else.
    """

    rows: int
    staged: float
    sorted: float
    sealed: float
    indexed: float
    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    peaks_mb: dict[str, float] = field(default_factory=dict)
    others_cores: float = 0.0


@dataclass(frozen=True, slots=True)
class Paged:
    """The ancestor's pagination; `seconds` of a whole pass, extrapolated if `is_extrapolated`."""

    rows: int
    pages_read: int
    page_ms: float
    seconds: float
    is_extrapolated: bool


@dataclass(slots=True)
class Planning:
    """What was found; `run_peak_mb` is of a `run` that copied some rows of the largest plan."""

    ours: list[Planned]
    ancestor: list[Paged]
    run_peak_mb: float
    run_plan_rows: int


def fill_small(bench: Bench, rows: int) -> Table:
    """Make a table of `rows` small rows, in the server."""
    table = Table(f"rows_{rows}", rows, None)
    bench.postgres.sql(
        f"create unlogged table {table.name} (id text not null, n int not null, created_at timestamptz not null, "
        f"value bytea);"
        f"insert into {table.name} select substr(md5('{rows}/' || n), 1, 16), n, "
        f"timestamptz '2026-01-01' - n * interval '1 millisecond', '{SMALL_VALUE}' "
        f"from generate_series(1, {rows}) n;"
        f"alter table {table.name} add primary key (id); vacuum analyze {table.name};"
    )
    return table


def measure(bench: Bench, *, is_quick: bool, tell: Callable[[str], None]) -> Planning:
    """Plan every size once: a plan of ten million rows has no need of rounds."""
    found = Planning([], [], 0.0, 0)
    sizes = ROWS_QUICK if is_quick else ROWS
    with null_sink(bench.directory) as sink:
        for rows in sizes:
            table = fill_small(bench, rows)
            if rows not in ONLY_PAGED:
                _plan_and_run(bench, found, table, sink, is_last=rows == sizes[-1], tell=tell)
            found.ancestor.append(_paged(bench, table))
            last = found.ancestor[-1]
            tell(
                f"ancestor's pagination, {rows:,} rows: {last.page_ms:.0f} ms a page, whole pass "
                f"{last.seconds:,.0f} s{' (extrapolated)' if last.is_extrapolated else ''}"
            )
            bench.postgres.sql(f"drop table {table.name}")
    return found


def _plan_and_run(
    bench: Bench, found: Planning, table: Table, sink: Sink, *, is_last: bool, tell: Callable[[str], None]
) -> None:
    place = bench.directory / bench.fresh()
    place.mkdir()
    path = configuration(bench, place, table, sink, rows=table.rows, connections=64)
    plan = _plan(bench, path, table.rows, sink)
    found.ours.append(plan)
    tell(
        f"planned {plan.rows:,} rows: {plan.rows / plan.staged:,.0f} keys/s read and staged, "
        f"{plan.rows / plan.indexed:,.0f} sealed and indexed, {plan.peak_mb:.0f} MB"
    )
    if is_last:
        cost = backfillctl("run", path, sink, "--limit", str(SETTLED_ROWS), ended=8)
        found.run_peak_mb, found.run_plan_rows = cost.peak_mb, table.rows
        tell(f"run beside a plan of {table.rows:,} rows: {cost.peak_mb:.0f} MB")
    shutil.rmtree(place)


def _plan(bench: Bench, path: Path, rows: int, sink: Sink) -> Planned:
    words = [*python(), "benchmarks.planning_probe", path]
    cost, further = beside(bench, sink, lambda: run(words, env=client_environment()))
    moments = json.loads(cost.output.splitlines()[-1])
    return Planned(
        rows,
        *(moments[name] for name in STEPS),
        cost.seconds,
        cost.cpu_seconds,
        cost.peak_mb,
        {name: moments[f"{name}_mb"] for name in STEPS},
        further["others_cores"],
    )


def _paged(bench: Bench, table: Table) -> Paged:
    """Read the ancestor's pages: all of a small table, the first ones of a large one."""
    in_all = table.rows // PAGE_ROWS
    pages = in_all if table.rows <= PAGED_WHOLE_MAX else PAGES
    words = [
        *bench.peers.script("pagination"),
        *("--table", table.name, "--rows", str(pages * PAGE_ROWS)),
    ]
    seconds = json.loads(run(words, env=bench.reader_environment()).output)["seconds"]
    return Paged(table.rows, pages, seconds / pages * 1e3, seconds / pages * in_all, pages < in_all)
