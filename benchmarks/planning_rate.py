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

from benchmarks.arms import Bench, backfillctl, configuration
from benchmarks.measuring import python, run
from benchmarks.servers import Sink, Table, client_environment, null_sink

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = (100_000, 1_000_000, 10_000_000)
ROWS_QUICK = (20_000, 40_000)
PAGED_WHOLE = (100_000, 300_000)
PAGED_WHOLE_QUICK = (20_000,)
PAGED_BEGINNING = 1_000_000
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


@dataclass(frozen=True, slots=True)
class Paged:
    """The ancestor's pagination; `seconds` of a whole pass, extrapolated if `is_extrapolated`."""

    rows: int
    pages_read: int
    page_ms: float
    seconds: float
    is_extrapolated: bool


@dataclass(frozen=True, slots=True)
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
    planned: list[Planned] = []
    run_peak_mb, run_plan_rows = 0.0, 0
    sizes = ROWS_QUICK if is_quick else ROWS
    with null_sink(bench.directory) as sink:
        for rows in sizes:
            table = fill_small(bench, rows)
            place = bench.directory / bench.fresh()
            place.mkdir()
            path = configuration(bench, place, table, sink, rows=rows, connections=64)
            planned.append(_plan(path, rows))
            tell(
                f"planned {rows:,} rows: {rows / planned[-1].staged:,.0f} keys/s read and staged, "
                f"{rows / planned[-1].indexed:,.0f} sealed and indexed, {planned[-1].peak_mb:.0f} MB"
            )
            if rows == sizes[-1]:
                run_peak_mb, run_plan_rows = _run_some(path, sink), rows
                tell(f"run beside a plan of {rows:,} rows: {run_peak_mb:.0f} MB")
            shutil.rmtree(place)
            bench.postgres.sql(f"drop table {table.name}")
    return Planning(planned, _paginate(bench, is_quick=is_quick, tell=tell), run_peak_mb, run_plan_rows)


def _plan(path: Path, rows: int) -> Planned:
    cost = run([*python(), "benchmarks.planning_probe", path], env=client_environment())
    moments = json.loads(cost.output.splitlines()[-1])
    return Planned(
        rows,
        *(moments[name] for name in STEPS),
        cost.seconds,
        cost.cpu_seconds,
        cost.peak_mb,
        {name: moments[f"{name}_mb"] for name in STEPS},
    )


def _run_some(path: Path, sink: Sink) -> float:
    return backfillctl("run", path, sink, "--limit", str(SETTLED_ROWS), ended=8).peak_mb


def _paginate(bench: Bench, *, is_quick: bool, tell: Callable[[str], None]) -> list[Paged]:
    found = []
    whole = PAGED_WHOLE_QUICK if is_quick else PAGED_WHOLE
    for rows in (*whole, *(() if is_quick else (PAGED_BEGINNING,))):
        table = fill_small(bench, rows)
        pages = PAGES if rows == PAGED_BEGINNING else rows // PAGE_ROWS
        words = [
            *bench.peers.script("pagination"),
            *("--table", table.name, "--rows", str(pages * PAGE_ROWS)),
        ]
        seconds = json.loads(run(words, env=bench.reader_environment()).output)["seconds"]
        bench.postgres.sql(f"drop table {table.name}")
        whole_seconds = seconds / pages * (rows // PAGE_ROWS)
        found.append(Paged(rows, pages, seconds / pages * 1e3, whole_seconds, pages < rows // PAGE_ROWS))
        tell(
            f"ancestor's pagination, {rows:,} rows: {found[-1].page_ms:.0f} ms a page, whole pass "
            f"{whole_seconds:,.0f} s{' (extrapolated)' if found[-1].is_extrapolated else ''}"
        )
    return found
