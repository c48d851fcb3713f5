"""Turn an httpx request into the bytes of an HTTP/1.1 request; pure."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

import httpx

_VISIBLE_ASCII = re.compile(rb"[!-~]+")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BODY_EXPECTED = frozenset({"PUT", "POST"})


class PreparedRequest(httpx.Request):
    """A request made of parts prepared before: httpx looks at its headers only if somebody asks for them.

    httpx's own constructor takes longer than a signature does.
    """

    def __init__(
        self, method: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes, *, target: bytes
    ) -> None:
        """Hold the parts.

        Args:
            method: in capitals.
            url: of the origin; may be shared.
            headers: all of them, as they are sent.
            body: whole.
            target: raw path and query, as it is sent.
        """
        self.method = method
        self.url = url
        self.stream = httpx.ByteStream(body)
        self.extensions = {"target": target}
        self.raw_headers = headers
        self.body = body

    @functools.cached_property
    def headers(self) -> httpx.Headers:  # type: ignore[override]  # an attribute there
        """The headers as httpx has them."""
        return httpx.Headers(self.raw_headers)


class WireRequest(NamedTuple):
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
    if isinstance(request, PreparedRequest):
        body, headers = request.body, request.raw_headers
    elif isinstance(request.stream, httpx.ByteStream):
        body, headers = b"".join(request.stream), request.headers.raw
    else:
        raise httpx.LocalProtocolError("the request's body is not in memory; pass content= or a ByteStream")
    method = request.method.encode("ascii", "replace")
    target = request.extensions.get("target") or request.url.raw_path
    if not _TOKEN.fullmatch(method) or not _VISIBLE_ASCII.fullmatch(target):
        raise httpx.LocalProtocolError(
            "the request's method or target holds a character outside visible ASCII"
        )
    shape = _shape(tuple([name for name, _ in headers]))
    _refuse_wrong_framing(shape, request.method, headers, len(body))
    head = shape.template % (method, target, *[value for _, value in headers])
    if head.count(b"\n") != shape.breaks or head.count(b"\r") != shape.breaks or b"\0" in head:
        raise httpx.LocalProtocolError("a header of the request holds a line break or NUL")
    return WireRequest(head, body, request.method == "HEAD")


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of a head depends on the headers' names alone; the requests for many objects share it.

    Attributes:
        template: the head, with places for method, target and each value.
        breaks: line breaks in it.
        lengths: positions of Content-Length.
    """

    template: bytes
    breaks: int
    lengths: tuple[int, ...]
    has_host: bool
    has_coding: bool


@functools.lru_cache(maxsize=256)
def _shape(names: tuple[bytes, ...]) -> _Shape:
    if not all(map(_TOKEN.fullmatch, names)):
        raise httpx.LocalProtocolError("a header name of the request is not a token")
    lower = [name.lower() for name in names]
    lines = [b"%b %b HTTP/1.1", *[name.replace(b"%", b"%%") + b": %b" for name in names], b"\r\n"]
    return _Shape(
        b"\r\n".join(lines),
        len(names) + 2,
        tuple(position for position, name in enumerate(lower) if name == b"content-length"),
        b"host" in lower,
        b"transfer-encoding" in lower,
    )


def _refuse_wrong_framing(shape: _Shape, method: str, headers: list[tuple[bytes, bytes]], size: int) -> None:
    """Refuse what would shift the boundary between this request and the next on the same connection."""
    if not shape.has_host:
        raise httpx.LocalProtocolError("the request has no Host header")
    if shape.has_coding:
        raise httpx.LocalProtocolError("the request announces a transfer coding; bodies go out with a length")
    if not shape.lengths and (size or method in _BODY_EXPECTED):
        raise httpx.LocalProtocolError("the request has no Content-Length header")
    for position in shape.lengths:
        if len(shape.lengths) > 1 or headers[position][1] != b"%d" % size:
            raise httpx.LocalProtocolError(f"the request's Content-Length: expected {size}, found another")
