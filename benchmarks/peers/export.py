"""Write every value to a file of its own: the first half of what file copiers need."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import asyncpg
import rows


async def main() -> None:
    given = rows.options()
    directory = Path(given.directory)

    async def write(key: str, value: bytes) -> None:
        (directory / key).write_bytes(value)

    async with asyncpg.create_pool(given.dsn, min_size=rows.FETCHERS, max_size=rows.FETCHERS) as pool:
        keys = await rows.keys_and_sizes(pool, given.table, given.rows)
        began = time.perf_counter()
        await rows.fetch_all(pool, given.table, keys, write, 1)
        rows.told(began, len(keys))


asyncio.run(main())
