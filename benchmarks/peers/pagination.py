"""The ancestor's pagination over --rows rows: pages of 1000, newest first, cut by created_at alone."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

import asyncpg
import rows

PAGE_ROWS = 1000


async def main() -> None:
    given = rows.options()
    connection = await asyncpg.connect(given.dsn)
    statement = f"select id, created_at from {given.table} where created_at < $1 order by created_at desc limit {PAGE_ROWS}"
    before = datetime(2026, 6, 1, tzinfo=UTC)
    read = 0
    began = time.perf_counter()
    while read < given.rows:
        page = await connection.fetch(statement, before)
        read += len(page)
        before = page[-1]["created_at"]
    rows.told(began, read)
    await connection.close()


asyncio.run(main())
