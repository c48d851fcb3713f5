from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.seaweed import EmbeddedSeaweed, Identity
from tests.conftest import Database
from tests.faults.canary import leaks
from tests.faults.counting_proxy import CountingProxy
from tests.faults.worlds import MADE, Table, World
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, Capabilities, RunningServers, S3Server

MakeWorld = Callable[..., World]
PRINTED = pytest.StashKey[dict[str, str]]()


def password_of(world: World) -> str:
    """The password that the world's daemons log in with."""
    return unquote(urlsplit(world.dsn).password or "")


def assert_no_secret_left(directory: Path, worlds: Collection[World], texts: Mapping[str, str]) -> None:
    found = {
        secret
        for world in worlds
        for secret in (password_of(world), world.secret_key, world.server.secret_key, *world.secrets)
        if secret
    }
    left = leaks(directory, sorted(found), texts)
    assert not left, f"secrets left behind by the test: {left}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what a test printed for `no_secret_left_behind`."""
    report = yield
    item.stash.setdefault(PRINTED, {}).update(dict(report.sections))
    return report


@pytest.fixture(autouse=True)
def no_secret_left_behind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """After every fault test no secret stands in its directory (the configuration apart) or in what it printed."""
    MADE.clear()
    yield
    assert_no_secret_left(tmp_path, MADE, request.node.stash.get(PRINTED, {}))
    MADE.clear()


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
