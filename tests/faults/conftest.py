from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.seaweed import EmbeddedSeaweed, Identity
from tests.conftest import Database
from tests.faults.counting_proxy import CountingProxy
from tests.faults.worlds import Table, World
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, Capabilities, RunningServers, S3Server

MakeWorld = Callable[..., World]


@pytest.fixture
def weed(s3_servers: RunningServers) -> S3Server:
    return s3_servers.get("weed")


@pytest.fixture
def proxy(weed: S3Server) -> Iterator[CountingProxy]:
    with CountingProxy(weed.port) as proxy:
        yield proxy


@pytest.fixture
def world(database: Database, weed: S3Server, proxy: CountingProxy, tmp_path: Path) -> World:
    """One empty table "rows" on the shared servers, behind the proxy."""
    return World(tmp_path, database.dsn, database.sql, weed, [Table("rows")], proxy=proxy)


@pytest.fixture
def fragile(
    disposable_postgres: EmbeddedPostgres, weed: S3Server, proxy: CountingProxy, tmp_path: Path
) -> World:
    """The same on a PostgreSQL of its own."""
    return World(
        tmp_path, disposable_postgres.dsn(), disposable_postgres.sql, weed, [Table("rows")], proxy=proxy
    )


@pytest.fixture
def disposable_weed() -> Iterator[EmbeddedSeaweed]:
    """An S3 server of the test's own, to kill and restart."""
    with EmbeddedSeaweed([Identity(ACCESS_KEY, SECRET_KEY)], buckets=[BUCKET]) as server:
        yield server


@pytest.fixture
def exposed(database: Database, disposable_weed: EmbeddedSeaweed, tmp_path: Path) -> World:
    """One empty table "rows", straight to an S3 server of its own."""
    server = S3Server("weed", disposable_weed.endpoint, Capabilities(), port=disposable_weed.port)
    return World(tmp_path, database.dsn, database.sql, server, [Table("rows")])
