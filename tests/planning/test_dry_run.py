from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from daemon.dry_run import dry_run
from daemon.errors import ConfigError, SourceUnfitError
from daemon.scanning import ScanLimits
from tests.planning.fake_source import FakeSource, FakeTable
from tests.planning.migration import CUTOFF_US, SECOND_US, server_clock, spec

if TYPE_CHECKING:
    from trio.testing import MockClock

    from daemon.config import SourceConfig
    from daemon.estimating import Estimate


def table() -> FakeTable:
    filled = FakeTable()
    for number in range(10):
        filled.insert(f"k{number}", CUTOFF_US - number - 1, b"v" * number)
    filled.insert("new", CUTOFF_US + 10 * SECOND_US)
    filled.insert("a//b", 1, b"four")
    return filled


async def estimate(
    source: FakeSource, given: SourceConfig | None = None, cutoff_us: int | None = CUTOFF_US
) -> Estimate:
    limits = ScanLimits(max_attempts=3, give_up_after=10.0)
    return await dry_run(source, given or spec(), cutoff_us=cutoff_us, limits=limits, random=random.Random(1))


@pytest.mark.parametrize("sweepable", [True, False])
async def test_a_dry_run_counts_rows_bytes_sizes_and_requests(
    sweepable: bool, autojump_clock: MockClock
) -> None:
    filled = table()
    filled.sweepable = sweepable
    found = await estimate(FakeSource({"t": filled}, server_clock))
    assert (found.seen, found.rows, found.size, found.largest) == (12, 11, 49, 9)
    assert found.excluded["newer_than_cutoff"] == 1
    assert (found.unusable, found.unusable_example, found.put_requests) == (1, "a//b", 10)
    assert sum(size_class.rows for size_class in found.histogram) == 11


async def test_a_relation_rewritten_meanwhile_is_counted_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.scanning.RANGE_BLOCKS_FIRST", 1)
    filled = table()
    source = FakeSource({"t": filled}, server_clock)
    source.on_statement = lambda _name: filled.rewrite() if len(source.statements) == 5 else None
    assert (await estimate(source)).rows == 11


async def test_without_a_cutoff_the_servers_clock_decides(autojump_clock: MockClock) -> None:
    source = FakeSource({"t": table()}, lambda: CUTOFF_US + 11 * SECOND_US)
    assert (await estimate(source, cutoff_us=None)).rows == 12


async def test_what_planning_would_refuse_a_dry_run_refuses(autojump_clock: MockClock) -> None:
    source = FakeSource({"t": table()}, server_clock)
    with pytest.raises(ConfigError):
        await estimate(source, cutoff_us=CUTOFF_US + 3600 * SECOND_US)
    source.tables["t"].insert("undated", None)
    with pytest.raises(SourceUnfitError, match="null_created_at"):
        await estimate(source)
