"""asyncpg and aioboto3, one key at a time per worker; with --head the ancestor's pattern: HEAD, SELECT, PUT."""

from __future__ import annotations

import asyncio
import time

import aioboto3
import asyncpg
import rows
from botocore.config import Config
from botocore.exceptions import ClientError

POOL = 16
"""Connections to PostgreSQL; a SELECT is short beside the rest, so more would not help."""


async def main() -> None:
    given = rows.options()
    config = Config(
        max_pool_connections=given.connections,
        # Without the checksum that it would add to each PUT: it is cheaper so.
        request_checksum_calculation="when_required",
        s3={"addressing_style": "path"},
    )
    async with (
        asyncpg.create_pool(given.dsn, min_size=POOL, max_size=POOL) as pool,
        aioboto3.Session().client(
            "s3", endpoint_url=given.endpoint, region_name="us-east-1", config=config
        ) as s3,
    ):
        keys = await rows.keys_and_sizes(pool, given.table, given.rows)
        waiting = iter(keys)

        async def work() -> None:
            for key, _ in waiting:
                name = f"{given.prefix}{key}"
                if given.head:
                    try:
                        await s3.head_object(Bucket=given.bucket, Key=name)
                    except ClientError as error:
                        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                            raise
                    else:
                        raise AssertionError("the object was there before")
                value = await pool.fetchval(f"select value from {given.table} where id = $1", key)
                await s3.put_object(Bucket=given.bucket, Key=name, Body=value)

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(given.connections)))
        rows.told(began, len(keys))


asyncio.run(main())
