"""What the null sink answers: as much of S3 over HTTP/1.1 as clients that only upload need, and nothing is kept.

Every body is read whole, and its ETag is right: the MD5 of the body, computed, or a constant where all values are
known to be equal. So no client has to skip its checks, and none pays for a storage engine.

Only names of probes (`daemon/probing.py`) are remembered, so that `If-None-Match: *` is found to be heeded.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Callable

PROBE_MARK = ".backfill-probe"
"""Objects with this in their names are remembered."""
HEAD_BYTES_MAX = 64 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LISTING = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><IsTruncated>false</IsTruncated>'
    b"<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys></ListBucketResult>"
)
_LOCATION = b'<?xml version="1.0" encoding="UTF-8"?><LocationConstraint>us-east-1</LocationConstraint>'


class NotUnderstood(Exception):  # noqa: N818 -- the name is the message
    """A request that this sink can't read to its end; the connection is lost with it."""


def answer(status: bytes, etag: bytes = b"", body: bytes = b"", kind: bytes = b"application/xml") -> bytes:
    """Return the bytes of one response."""
    lines = [b"HTTP/1.1 " + status]
    if etag:
        lines.append(b'ETag: "' + etag + b'"')
    if body:
        lines.append(b"Content-Type: " + kind)
    lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


NOT_FOUND = answer(b"404 Not Found")
PRECONDITION_FAILED = answer(
    b"412 Precondition Failed", body=b"<Error><Code>PreconditionFailed</Code></Error>"
)
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
NOT_IMPLEMENTED = answer(b"501 Not Implemented", body=b"<Error><Code>NotImplemented</Code></Error>")


class ChunkedBody:
    """Takes aws-chunked framing off a body: `size;chunk-signature=...`, the data, ..., trailers.

    The end of the body is known by Content-Length, so trailers are only passed over.
    """

    def __init__(self, into: Callable[[bytes | memoryview], object]) -> None:
        self._into = into
        self._line = b""
        self._left = 0
        self._ended = False

    def update(self, data: memoryview) -> None:
        """Take the next bytes of the encoded body.

        Raises:
            NotUnderstood: a chunk's size is no hexadecimal number.
        """
        while data and not self._ended:
            if self._left > 2:
                taken = data[: self._left - 2]
                self._into(taken)
            else:
                taken = data[: self._left]  # of the CRLF behind a chunk
            self._left -= len(taken)
            data = data[len(taken) :]
            if not self._left and data:
                data = self._begin(data)

    def _begin(self, data: memoryview) -> memoryview:
        """Read the line that begins a chunk, or a part of it; return what is left."""
        line, end, _ = bytes(data[:HEAD_BYTES_MAX]).partition(b"\n")
        self._line += line + end
        if end:
            try:
                size = int(self._line.partition(b";")[0], 16)
            except ValueError as error:
                raise NotUnderstood(f"chunk size {self._line[:80]!r}") from error
            self._line = b""
            self._ended = size == 0
            self._left = size + 2
        return data[len(line) + len(end) :]


class Shelf:
    """What the sink as a whole knows.

    Attributes:
        etag: of every object, if all bodies are equal; None: computed.
        puts: objects taken so far; probes are not counted.
    """

    def __init__(self, etag: bytes | None = None) -> None:
        self.etag = etag
        self.stored = None if etag is None else answer(b"200 OK", etag)
        self.puts = 0
        self._probes: dict[str, bytes] = {}

    def put(self, target: str, etag: bytes, *, if_absent: bool) -> bytes:
        """Return the answer to a PUT whose body has arrived."""
        if PROBE_MARK not in target:
            self.puts += 1
            return answer(b"200 OK", etag)
        if if_absent and target in self._probes:
            return PRECONDITION_FAILED
        self._probes[target] = etag
        return answer(b"200 OK", etag)

    def without_body(self, method: str, target: str, query: str) -> bytes:
        """Return the answer to a request other than a PUT of an object."""
        is_bucket = "/" not in target.strip("/")
        if method == "HEAD":
            if target in self._probes:
                return answer(b"200 OK", self._probes[target])
            return answer(b"200 OK") if is_bucket else NOT_FOUND
        if method == "DELETE":
            self._probes.pop(target, None)
            return NO_CONTENT
        if method == "PUT" and is_bucket:
            return answer(b"200 OK")
        if method == "GET" and is_bucket:
            return answer(b"200 OK", body=_LOCATION if "location" in query.split("&") else _LISTING)
        return NOT_FOUND if method == "GET" else NOT_IMPLEMENTED


class Exchange:
    """One connection's requests, one after the other.

    `take` is given what arrives and returns an answer once a request is complete; `wants_continue` is then false,
    and true where the client waits for `100 Continue` before it sends the body.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._head = b""
        self._left = 0
        self._digest: hashlib._Hash | None = None
        self._chunks: ChunkedBody | None = None
        self._plain = False
        self._target = ""
        self._if_absent = False
        self.wants_continue = False

    def take(self, data: memoryview) -> bytes | None:
        """Take the next bytes; return the answer if they end a request.

        Raises:
            NotUnderstood: no request of HTTP/1.1, one whose end can't be known, or two at once.
        """
        if self._left:
            return self._body(data)
        received = bytes(data) if not self._head else self._head + bytes(data)
        end = received.find(b"\r\n\r\n")
        if end < 0:
            if len(received) > HEAD_BYTES_MAX:
                raise NotUnderstood(f"a head of more than {HEAD_BYTES_MAX} bytes")
            self._head = received
            return None
        self._head = b""
        complete = self._begin(received[:end])
        rest = memoryview(received)[end + 4 :]
        if complete is not None:
            if rest:
                raise NotUnderstood("bytes behind a request that has no body")
            return complete
        if self._left == 0:
            return self._answered()
        if rest:
            self.wants_continue = False
            return self._body(rest)
        return None

    def _begin(self, head: bytes) -> bytes | None:
        """Read a head; return the answer if no body follows and it is no PUT of an object."""
        first, _, rest = head.partition(b"\r\n")
        words = first.split(b" ")
        if len(words) != 3 or words[2] != b"HTTP/1.1":
            raise NotUnderstood(f"request line {first[:200]!r}")
        lowered = b"\r\n" + rest.lower() + b"\r\n"
        if b"\r\ntransfer-encoding:" in lowered:
            raise NotUnderstood("a body in HTTP's own chunks")
        method = words[0]
        length = header(lowered, b"content-length")
        self._left = int(length) if length else 0
        target, _, query = words[1].decode().partition("?")
        if method != b"PUT" or target.count("/") < 2 or target.endswith("/"):
            if self._left:
                # Such bodies (of a multipart upload, say) would need an answer of their own.
                raise NotUnderstood(f"a body with {first[:200]!r}")
            return self._shelf.without_body(method.decode(), unquote(target), query)
        is_probe = PROBE_MARK in target
        self._plain = not is_probe and self._shelf.stored is not None
        self._chunks = None
        if not self._plain:
            self._target = target
            self._if_absent = b"\r\nif-none-match: *\r\n" in lowered
            self._digest = hashlib.md5(usedforsecurity=False)
            if b"\r\nx-amz-content-sha256: streaming-" in lowered:
                self._chunks = ChunkedBody(self._digest.update)
        self.wants_continue = b"\r\nexpect: 100-continue\r\n" in lowered and self._left > 0
        return None

    def _body(self, data: memoryview) -> bytes | None:
        if len(data) > self._left:
            raise NotUnderstood("bytes behind a body: requests are answered one by one")
        self._left -= len(data)
        if not self._plain:
            if self._chunks is not None:
                self._chunks.update(data)
            else:
                assert self._digest is not None
                self._digest.update(data)
        return None if self._left else self._answered()

    def _answered(self) -> bytes:
        if self._plain:
            assert self._shelf.stored is not None
            self._shelf.puts += 1
            return self._shelf.stored
        assert self._digest is not None
        return self._shelf.put(
            unquote(self._target), self._digest.hexdigest().encode(), if_absent=self._if_absent
        )


def header(lowered: bytes, name: bytes) -> bytes | None:
    """Return a header's value from a head in lower case that begins and ends with CRLF."""
    _, found, after = lowered.partition(b"\r\n" + name + b":")
    return after.partition(b"\r\n")[0].strip() if found else None
