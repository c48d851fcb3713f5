"""The bucket as a second opinion reads it: signed by botocore, over http.client, parsed by ElementTree."""

from __future__ import annotations

import http.client
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from daemon.demo.seaweed import REGION

_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Listed(NamedTuple):
    size: int
    etag: str


@dataclass(frozen=True)
class BucketView:
    """Reads one bucket of a server on 127.0.0.1."""

    port: int
    bucket: str
    access_key: str
    secret_key: str

    def listing(self, prefix: str) -> dict[str, Listed]:
        """Every object under `prefix`."""
        found: dict[str, Listed] = {}
        token = ""
        with closing(self._connection()) as connection:
            while True:
                query = f"list-type=2&encoding-type=url&prefix={quote(prefix, safe='')}"
                if token:
                    query = f"continuation-token={quote(token, safe='')}&{query}"
                page = ET.fromstring(self._get(connection, f"/{self.bucket}?{query}"))
                for one in page.iter(f"{_XML}Contents"):
                    key, size, etag = (
                        one.findtext(f"{_XML}{name}") or "" for name in ("Key", "Size", "ETag")
                    )
                    found[unquote_plus(key)] = Listed(int(size), etag.strip('"'))
                token = page.findtext(f"{_XML}NextContinuationToken") or ""
                if page.findtext(f"{_XML}IsTruncated") != "true":
                    return found

    def bodies(self, keys: list[str]) -> dict[str, bytes]:
        """The bytes of each object, read one by one."""
        with closing(self._connection()) as connection:
            return {key: self._get(connection, f"/{self.bucket}/{quote(key, safe='/~')}") for key in keys}

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def _get(self, connection: http.client.HTTPConnection, target: str) -> bytes:
        unsigned = AWSRequest("GET", f"http://127.0.0.1:{self.port}{target}")
        S3SigV4Auth(Credentials(self.access_key, self.secret_key), "s3", REGION).add_auth(unsigned)
        connection.request("GET", target, headers=dict(unsigned.headers.items()))
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, f"GET {target}: {answer.status} {body[:300]!r}"
        return body
