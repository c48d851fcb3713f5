"""Turn an httpx request into the bytes of an HTTP/1.1 request; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import httpx

_VISIBLE_ASCII = re.compile(rb"[!-~]+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BODY_EXPECTED = frozenset({"PUT", "POST"})


@dataclass(frozen=True)
class WireRequest:
    """A request as bytes; `to_head`: its answer has no body."""

    head: bytes
    body: bytes
    to_head: bool


def wire_request(request: httpx.Request) -> WireRequest:
    """Return `request` as bytes.

    Raises:
        httpx.LocalProtocolError: its framing is missing or contradicts the body, its body is not in memory, or
            a target or header could smuggle a second one (CR, LF, NUL); header values are never shown.
    """
    stream = request.stream
    if not isinstance(stream, httpx.ByteStream):
        raise httpx.LocalProtocolError("the request's body is not in memory; pass content= or a ByteStream")
    body = b"".join(stream)
    method = request.method.encode("ascii", "replace")
    target = request.extensions.get("target") or request.url.raw_path
    if not _TOKEN.fullmatch(method) or not _VISIBLE_ASCII.fullmatch(target):
        raise httpx.LocalProtocolError(
            "the request's method or target holds a character outside visible ASCII"
        )
    head = _head(b"%b %b HTTP/1.1" % (method, target), request.headers.raw)
    _refuse_wrong_framing(request, len(body))
    return WireRequest(head, body, to_head=request.method == "HEAD")


def _head(request_line: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    if not all(map(_TOKEN.fullmatch, [name for name, _ in headers])):
        raise httpx.LocalProtocolError("a header name of the request is not a token")
    head = b"\r\n".join([request_line, *[b"%b: %b" % header for header in headers], b"\r\n"])
    breaks = len(headers) + 2
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise httpx.LocalProtocolError("a header of the request holds a line break or NUL")
    return head


def _refuse_wrong_framing(request: httpx.Request, size: int) -> None:
    """Refuse what would shift the boundary between this request and the next on the same connection."""
    headers = request.headers
    if "host" not in headers:
        raise httpx.LocalProtocolError("the request has no Host header")
    if "transfer-encoding" in headers:
        raise httpx.LocalProtocolError("the request announces a transfer coding; bodies go out with a length")
    length = headers.get("content-length")
    if length is None and (size or request.method in _BODY_EXPECTED):
        raise httpx.LocalProtocolError("the request has no Content-Length header")
    if length is not None and length != str(size):
        raise httpx.LocalProtocolError(f"the request's Content-Length: expected {size}, found another")
