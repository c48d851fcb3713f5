"""Compare buckets with rows, byte for byte and with nothing of the code under demonstration.

Signed by botocore, sent by http.client, over a few connections that are kept open.
"""

from __future__ import annotations

import html
import http.client
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_plus

from daemon.demo.seaweed import REGION, REQUEST_SECONDS_MAX
from daemon.errors import BackfillError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from daemon.demo.seaweed import Identity
    from daemon.demo.tables import Expected

READERS = 4
"""Connections that read at once; signing takes most of the time, and two cores are all there may be."""
DIFFERENCES_MAX = 20
"""So many differences are named; the rest is counted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was compared, and every difference found, in words."""

    objects: int
    bytes: int
    differences: tuple[str, ...]


class S3Reader:
    """One connection to an S3 server on 127.0.0.1, for requests without a body."""

    def __init__(self, port: int, identity: Identity) -> None:
        from botocore.auth import S3SigV4Auth
        from botocore.credentials import Credentials

        self._signer = S3SigV4Auth(Credentials(identity.access_key, identity.secret_key), "s3", REGION)
        self._origin = f"http://127.0.0.1:{port}"
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, target: str) -> tuple[int, bytes]:
        """GET `target`, path percent-encoded and perhaps a query; return status and body.

        Raises:
            OSError, http.client.HTTPException: nobody answered, or not in HTTP.
        """
        from botocore.awsrequest import AWSRequest

        unsigned = AWSRequest("GET", self._origin + target)
        self._signer.add_auth(unsigned)
        self._connection.request("GET", target, headers=dict(unsigned.headers.items()))
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def keys(self, bucket: str) -> set[str]:
        """Return every object key of `bucket`.

        Raises:
            BackfillError: the listing was refused.
            OSError, http.client.HTTPException: as `get`.
        """
        found: set[str] = set()
        token = ""
        while True:
            further = f"continuation-token={quote(token, safe='')}&" if token else ""
            status, body = self.get(f"/{bucket}?{further}encoding-type=url&list-type=2")
            if status != 200:
                raise BackfillError(f"list bucket {bucket!r}: expected 200, found {status}: {body[:500]!r}")
            text = body.decode()
            found.update(
                unquote_plus(html.unescape(key)) for key in re.findall("<Key>(.*?)</Key>", text, re.DOTALL)
            )
            following = re.search("<NextContinuationToken>(.+?)</NextContinuationToken>", text)
            if following is None:
                return found
            token = html.unescape(following[1])


def compare(port: int, identity: Identity, tables: Iterable[Sequence[Expected]]) -> Comparison:
    """Read every object that a row accounts for, and name each that is missing, different or too many.

    Args:
        port: of the S3 server.
        identity: who reads.
        tables: the objects of one table each; no two tables share a bucket.

    Raises:
        BackfillError: a listing was refused.
        OSError, http.client.HTTPException: the server does not answer, or not in HTTP.
    """
    objects = size = 0
    differences: list[str] = []
    with ThreadPoolExecutor(READERS) as pool:
        for expected in tables:
            objects += len(expected)
            size += sum(len(one.value) for one in expected)
            shares = [expected[first::READERS] for first in range(READERS)]
            for found in pool.map(lambda share: _differences(port, identity, share), shares):
                differences += found
            with S3Reader(port, identity) as reader:
                for bucket in {one.bucket for one in expected}:
                    extra = reader.keys(bucket) - {one.key for one in expected}
                    differences += [
                        f"{bucket}/{key}: no row accounts for this object" for key in sorted(extra)
                    ]
    return Comparison(objects, size, tuple(differences))


def _differences(port: int, identity: Identity, expected: Sequence[Expected]) -> list[str]:
    differences = []
    with S3Reader(port, identity) as reader:
        for one in expected:
            status, body = reader.get(f"/{one.bucket}/{quote(one.key, safe='/~')}")
            if status != 200:
                differences.append(f"{one.bucket}/{one.key}: expected an object, found HTTP status {status}")
            elif body != one.value:
                differences.append(f"{one.bucket}/{one.key}: {_difference(one.value, body)}")
    return differences


def _difference(row: bytes, found: bytes) -> str:
    pairs = zip(row, found, strict=False)
    first = next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(row), len(found)))
    return f"the row has {len(row)} bytes, the object {len(found)}, and they differ from byte {first} on"
