"""One small world, killed at each commit and each step in turn; and again while it recovers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.config import MaxFailures
from tests.simulation.simulation import Deaths, Simulation, simulated
from tests.simulation.worlds import Row, Scale, Weather, World, make_world

PARTS = 6
STEP_PARTS = 4
RECOVERING = (1, 2, 3)
"""Commits of the second process at which it dies too: recovery, the session's first note, the first claim."""
SEED = 7


def small_world(directory) -> World:
    """Two sources, a dozen rows with ties, an undated and an empty one, an object that is there and one truncated."""
    drawn = make_world(SEED, directory / "journal.db")
    sources = tuple(
        drawn.config.sources[0].model_copy(
            update={
                "name": f"s{number}",
                "table_name": f"t{number}",
                "prefix": f"p{number}/",
                "bucket": "bucket",
                "key": ("id",),
                "created_at": "created_at",
                "where": None,
                "layout": "flat",
                "null_created_at": "include",
                "null_value": "empty",
            }
        )
        for number in range(2)
    )
    rows = {
        spec.name: [
            Row(
                f"k{number}",
                None if number == 5 else 1_699_999_000_000_000 + number // 2,
                b"" if number == 3 else b"%d" % number * 9,
            )
            for number in range(6)
        ]
        for spec in sources
    }
    upload = drawn.config.upload.model_copy(
        update={
            "concurrency": 2,
            "max_attempts": 3,
            "key_batch_size": 3,
            "max_failures": MaxFailures(count=100),
        }
    )
    s3 = drawn.config.s3.model_copy(update={"existing": "compare", "sse": None})
    tables = {}
    for spec in sources:
        table = type(next(iter(drawn.tables.values())))()
        for row in rows[spec.name]:
            table.insert(row.key, row.created_at, row.value)
        tables[spec.table_name] = table
    return replace(
        drawn,
        config=drawn.config.model_copy(update={"sources": sources, "upload": upload, "s3": s3}),
        scale=Scale(fetch_batch=2, chunk=4, range_blocks=1, batch_rows=4, group=2),
        weather=Weather(),
        rows=rows,
        tables=tables,
        foreign={("bucket", "p0/k1"): (b"1" * 9, None), ("bucket", "p1/k4"): (b"44", None)},
        conditions="atomic",
        versioned=False,
        visible=True,
    )


def survived(directory, *deaths: tuple[str, int]) -> Simulation:
    directory.mkdir()
    simulation = Simulation(small_world(directory), Deaths(frozenset(deaths)))
    simulated(simulation)
    return simulation


def every_death(commits: int) -> list[tuple[tuple[str, int], ...]]:
    """Return each death before and after each commit, alone and followed by one of the process that recovers."""
    alone = [(when, commit) for commit in range(1, commits + 1) for when in ("before", "after")]
    again = [(("after" if behind % 2 else "before"), behind) for behind in RECOVERING]
    return [(one,) for one in alone] + [
        (one, (when, one[1] + behind)) for one in alone for when, behind in again
    ]


def check_each(deaths: list[tuple[tuple[str, int], ...]], whole: Simulation, directory) -> None:
    for some in deaths:
        name = "-".join(f"{when}-{number}" for when, number in some)
        simulation = survived(directory / name, *some)
        assert simulation.objects == whole.objects, name
        died = sum(count for what, count in simulation.reached.items() if what.startswith("death"))
        assert died == len(some), name


@pytest.mark.parametrize("part", range(PARTS))
def test_crash_at_every_commit(part, tmp_path):
    whole = survived(tmp_path / "whole")
    assert whole.stormy_commits > 30
    check_each(every_death(whole.stormy_commits)[part::PARTS], whole, tmp_path)


@pytest.mark.parametrize("part", range(STEP_PARTS))
def test_crash_at_every_step(part, tmp_path):
    """Before and after each statement and each request; at every third also while the next process recovers."""
    whole = survived(tmp_path / "whole")
    steps = range(1, whole.stormy_steps + 1)
    assert len(steps) > 60
    alone = [(("step", step),) for step in steps]
    again = [(("step", step), ("step", step + 2 + step % 7)) for step in steps[::3]]
    check_each([*alone, *again][part::STEP_PARTS], whole, tmp_path)
