"""What the tests of the source share: a configuration of one table, and sources on a database."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from daemon.config import PostgresConfig, SourceConfig, ThrottleConfig
from daemon.rows import Exclusions, SweptRange, SweptRow, TableFacts, Wanted
from daemon.source import UNTHROTTLED, PostgresSource, open_source

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

CUTOFF_US = 4_102_444_800_000_000
"""2100-01-01."""
TABLE = "create table t (id text primary key, created_at timestamptz, data bytea);"


def spec(table: str = "t", **changes: Any) -> SourceConfig:
    fields = {
        "name": "things",
        "schema_name": "public",
        "table_name": table,
        "key": ("id",),
        "created_at": "created_at",
        "value": "data",
        "bucket": "blobs",
        **changes,
    }
    return SourceConfig(**fields)


@dataclass(frozen=True)
class Opening:
    """Opens sources on one database; without patience unless asked for, jitter from a fixed seed."""

    dsn: str

    def __call__(
        self,
        dsn: str | None = None,
        *,
        give_up_after: float = 0.0,
        throttle: ThrottleConfig = UNTHROTTLED,
        **settings: Any,
    ) -> AbstractAsyncContextManager[PostgresSource]:
        config = PostgresConfig(dsn=dsn or self.dsn, **settings)
        return open_source(
            config, migration="test", give_up_after=give_up_after, random=Random(1), throttle=throttle
        )


async def sweep_all(
    source: PostgresSource, wanted: SourceConfig, facts: TableFacts, cutoff_us: int = CUTOFF_US
) -> list[SweptRange]:
    """Sweep every heap in ranges of four blocks, the last one unbounded."""
    ranges = []
    for relation in facts.relations:
        last = max(0, facts.blocks[relation] - 4)
        bounds = [*range(0, last, 4), last]
        for first, following in zip(bounds, [*bounds[1:], None], strict=True):
            ranges.append(
                await source.sweep_range(
                    wanted,
                    facts,
                    relation=relation,
                    first_block=first,
                    next_block=following,
                    cutoff_us=cutoff_us,
                )
            )
    return ranges


async def scan_all(
    source: PostgresSource,
    wanted: SourceConfig,
    facts: TableFacts,
    cutoff_us: int = CUTOFF_US,
    meanwhile: Callable[[], object] = lambda: None,
) -> tuple[list[SweptRow], Exclusions, int]:
    """Scan the whole source, calling `meanwhile` after each batch."""
    rows, excluded, seen = [], Exclusions(), 0
    async with source.scan(wanted, facts, cutoff_us=cutoff_us) as batches:
        async for kept, left_out, read in batches:
            rows += kept
            excluded.add(left_out)
            seen += read
            meanwhile()
    return rows, excluded, seen


async def values(source: PostgresSource, wanted: SourceConfig) -> dict[str, bytes | None]:
    """Describe, sweep and fetch a whole table: row key to value."""
    facts = await source.describe(wanted)
    await source.check_fetch_plan(wanted, facts)
    rows = [row for swept in await sweep_all(source, wanted, facts) for row in swept.rows]
    fetched = await source.fetch(wanted, facts, [Wanted(row.row_key, row.size) for row in rows])
    assert len(fetched) == len(rows)
    return {row.row_key: row.value for row in fetched}
