"""What the peers share: their options, the rows, and the one line of JSON that they print."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

FETCHERS = 2
FETCHED_ROWS_MAX = 64
FETCHED_BYTES_MAX = 4 * 1024 * 1024


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--endpoint", default="")
    parser.add_argument("--bucket", default="")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--directory", default="")
    parser.add_argument("--head", action="store_true")
    given = parser.parse_args()
    given.dsn = os.environ["BENCHMARK_DSN"]
    return given


def told(began: float, rows: int) -> None:
    print(json.dumps({"seconds": time.perf_counter() - began, "objects": rows}))


async def keys_and_sizes(pool: asyncpg.Pool, table: str, rows: int) -> list[tuple[str, int]]:
    """Read what a plan holds; outside every measurement, as ours plans before."""
    found = await pool.fetch(
        f"select id, octet_length(value) from {table} order by created_at desc, id limit $1", rows
    )
    assert len(found) == rows
    return [tuple(row) for row in found]


def batches(keys: list[tuple[str, int]]) -> list[list[str]]:
    """Cut into fetches of at most so many rows and, but for a single row, so many bytes."""
    cut: list[list[str]] = []
    size = FETCHED_BYTES_MAX
    for key, octets in keys:
        size += octets
        if size > FETCHED_BYTES_MAX or len(cut[-1]) == FETCHED_ROWS_MAX:
            cut.append([])
            size = octets
        cut[-1].append(key)
    return cut


async def fetch_all(
    pool: asyncpg.Pool,
    table: str,
    keys: list[tuple[str, int]],
    put: Callable[[str, bytes], Awaitable[None]],
    connections: int,
) -> None:
    """Fetch in batches by a few fetchers, put by `connections` workers; the queue between them is bounded."""
    waiting = iter(batches(keys))
    queue: asyncio.Queue[tuple[str, bytes] | None] = asyncio.Queue(connections)

    async def fetch() -> None:
        for batch in waiting:
            for row in await pool.fetch(f"select id, value from {table} where id = any($1)", batch):
                await queue.put((row[0], row[1]))

    async def work() -> None:
        while (found := await queue.get()) is not None:
            await put(*found)

    workers = [asyncio.create_task(work()) for _ in range(connections)]
    await asyncio.gather(*(fetch() for _ in range(FETCHERS)))
    for _ in workers:
        await queue.put(None)
    await asyncio.gather(*workers)
