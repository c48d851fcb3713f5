"""asyncpg in batches, boto3 in as many threads as there are connections."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import boto3
import rows
from botocore.config import Config


async def main() -> None:
    given = rows.options()
    config = Config(
        max_pool_connections=given.connections,
        request_checksum_calculation="when_required",
        s3={"addressing_style": "path"},
    )
    s3 = boto3.client("s3", endpoint_url=given.endpoint, region_name="us-east-1", config=config)
    loop = asyncio.get_running_loop()

    def put_now(key: str, value: bytes) -> None:
        s3.put_object(Bucket=given.bucket, Key=f"{given.prefix}{key}", Body=value)

    with ThreadPoolExecutor(given.connections) as threads:

        async def put(key: str, value: bytes) -> None:
            await loop.run_in_executor(threads, put_now, key, value)

        async with asyncpg.create_pool(given.dsn, min_size=rows.FETCHERS, max_size=rows.FETCHERS) as pool:
            keys = await rows.keys_and_sizes(pool, given.table, given.rows)
            began = time.perf_counter()
            await rows.fetch_all(pool, given.table, keys, put, given.connections)
            rows.told(began, len(keys))


asyncio.run(main())
