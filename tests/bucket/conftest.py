from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from daemon.runtime import wall_clock_us
from daemon.transport import S3Transport
from tests.s3_fake import FakeS3
from tests.s3_servers import BUCKET, fake_server, fresh_prefix

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daemon.bucket import Bucket
    from tests.s3_servers import RunningServers, S3Server


@pytest.fixture(params=["fake", "weed", "rclone", "moto"])
def server(request: pytest.FixtureRequest, s3_servers: RunningServers) -> S3Server:
    """Each implementation in turn."""
    return s3_servers.get(request.param)


@pytest.fixture
def prefix() -> str:
    return fresh_prefix()


@pytest.fixture
async def transport(server: S3Server) -> AsyncIterator[S3Transport | FakeS3]:
    if server.fake is not None:
        yield server.fake
        return
    real = S3Transport(connections_max=32, connect_timeout=10, io_timeout=30)
    yield real
    await real.aclose()


@pytest.fixture
async def bucket(server: S3Server, transport: S3Transport | FakeS3) -> Bucket:
    return server.bucket_over(transport)


@pytest.fixture
def fake() -> FakeS3:
    return FakeS3(wall_clock_us, Random(11), buckets=[BUCKET])


@pytest.fixture
def scripted(fake: FakeS3) -> Bucket:
    """A client of `fake`."""
    return fake_server(fake).bucket_over(fake)
