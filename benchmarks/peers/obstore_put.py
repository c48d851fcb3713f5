"""asyncpg in batches, obstore (Rust) for the PUTs: the fastest that a few lines of Python give."""

from __future__ import annotations

import asyncio
import os
import time

import asyncpg
import rows
from obstore.store import S3Store


async def main() -> None:
    given = rows.options()
    store = S3Store(
        given.bucket,
        prefix=given.prefix,
        endpoint=given.endpoint,
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )

    async def put(key: str, value: bytes) -> None:
        # One PUT a value, as all others: it would cut large ones into parts.
        await store.put_async(key, value, use_multipart=False)

    async with asyncpg.create_pool(given.dsn, min_size=rows.FETCHERS, max_size=rows.FETCHERS) as pool:
        keys = await rows.keys_and_sizes(pool, given.table, given.rows)
        began = time.perf_counter()
        await rows.fetch_all(pool, given.table, keys, put, given.connections)
        rows.told(began, len(keys))


asyncio.run(main())
