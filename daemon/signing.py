"""Sign requests to S3, and logins to RDS, with AWS Signature Version 4; pure: the clock is a parameter, nothing is sent.

The key derivation is that of aws-requests-auth; the canonical request is ours, because the package's own
leaves x-amz-* headers unsigned (strict servers refuse that), quotes paths twice and reads the clock itself.
Format: AWS, "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk".
"""

from __future__ import annotations

import functools
import hmac
import re
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import quote

from aws_requests_auth import aws_auth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Header = tuple[bytes, bytes]

EMPTY_SHA256 = sha256(b"").hexdigest()
"""Payload hash of a request without a body."""

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNRESERVED = "-_.~"
_VISIBLE_ASCII = re.compile(r"[!-~]*")
_LINE_BREAKING = re.compile(rb"[\r\n\0]")
_UNTRIMMED = re.compile(rb"\t|  |^ | $|\0 | \0")
"""What SigV4 wants away from values, in values joined by NUL: blanks at their ends, and more than one."""
_ADDED_HERE = frozenset(
    {b"host", b"authorization", b"x-amz-date", b"x-amz-content-sha256", b"x-amz-security-token"}
)
_UNSIGNED = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"user-agent",
        b"x-amzn-trace-id",
    }
)
"""Headers that a proxy on the way may rightly change (RFC 9110 section 7.6.1, and what botocore leaves out)."""


@dataclass(frozen=True, repr=False)
class Credentials:
    """An access key with its secret; repr shows neither, so that no log or traceback can.

    Attributes:
        access_key: the access key id (not the row key, not the object key).
        secret_key: the secret access key.
        token: the session token of temporary credentials.
    """

    access_key: str
    secret_key: str
    token: str | None = None


def encode_key(key: str) -> str:
    """Percent-encode an object key as AWS UriEncode does: UTF-8, unreserved characters and '/' kept.

    Raises:
        UnicodeEncodeError: `key` holds a lone surrogate, which UTF-8 can't carry.
    """
    return quote(key, safe="/" + _UNRESERVED)


def canonical_query(parameters: Mapping[str, str] | Iterable[tuple[str, str]]) -> str:
    """Return `parameters` percent-encoded and sorted as SigV4 wants them; the same string is sent and signed."""
    pairs = parameters.items() if hasattr(parameters, "items") else parameters
    encoded = sorted((quote(name, safe=_UNRESERVED), quote(value, safe=_UNRESERVED)) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


class Signer:
    """Signs requests for one region, remembering the signing key of the day and the scope of the second.

    Not thread-safe; the memory is one entry deep, since a migration has one set of credentials at a time.
    """

    def __init__(self, region: str, service: str = "s3") -> None:
        self._region = region
        self._service = service
        self._day_key = b""
        self._day_key_of: tuple[Credentials, str] | None = None
        self._second = -1
        self._day = ""
        self._scope = ""
        self._amz_date = b""
        self._to_sign_head = b""

    def sign(
        self,
        method: str,
        *,
        host: str,
        raw_path: str,
        query: str,
        headers: Sequence[Header],
        payload_sha256: str,
        credentials: Credentials,
        now_us: int,
    ) -> list[Header]:
        """Return the complete header list to send: Host, `headers` as given, then what the signature adds.

        Every header is signed but those a proxy may change on the way (Content-Length, User-Agent, ...), so
        a condition or a metadata header that was altered or dropped in transit is refused by the server.

        Args:
            method: in capitals.
            host: as the Host header carries it: with the port unless it is the scheme's default.
            raw_path: percent-encoded (`encode_key`), from the leading '/'.
            query: as `canonical_query` returns it; empty for none.
            headers: what else is sent, without Host and without what is added here.
            payload_sha256: hex digest of the body, or "UNSIGNED-PAYLOAD".
            credentials: whose signature it is.
            now_us: microseconds since 1970-01-01 UTC by the server's clock; S3 refuses 15 minutes of skew.

        Raises:
            ValueError: a line break, NUL or (outside header values) other character that could smuggle a
                second header or request, or a header that is added here; names the place, not the value.
        """
        _refuse_smuggling(host, raw_path, query, headers)
        self._turn_clock(now_us // 1_000_000)
        payload = payload_sha256.encode("ascii")
        complete = [
            (b"Host", host.encode("ascii")),
            *headers,
            (b"x-amz-content-sha256", payload),
            (b"x-amz-date", self._amz_date),
        ]
        if credentials.token is not None:
            complete.append((b"x-amz-security-token", credentials.token.encode("ascii")))
        shape = _shape(tuple([name for name, _ in complete]), len(headers))
        values = [complete[position][1] for position in shape.positions]
        if _UNTRIMMED.search(b"\0".join(values)):
            values = [b" ".join(value.split()) for value in values]
        signature = self._signature(
            b"%b\n%b\n%b\n%b\n%b"
            % (
                method.encode("ascii"),
                raw_path.encode("ascii"),
                query.encode("ascii"),
                shape.template
                % tuple([b" ".join(value.split()) if b" " in value else value for value in values]),
                payload,
            ),
            credentials,
        )
        authorization = (
            f"{_ALGORITHM} Credential={credentials.access_key}/{self._scope}, "
            f"SignedHeaders={shape.signed_names}, Signature={signature}"
        )
        complete.append((b"Authorization", authorization.encode("ascii")))
        return complete

    def presign(
        self,
        *,
        host: str,
        parameters: Mapping[str, str],
        expires_seconds: int,
        credentials: Credentials,
        now_us: int,
    ) -> str:
        """Return the query of a GET of "/" at `host` that bears its signature itself, for `expires_seconds`.

        Format: AWS, "Signature Calculations: Using Query Parameters".

        Args:
            host: as the Host header would carry it.
            parameters: what is asked, not encoded.
            expires_seconds: from `now_us` on.
            credentials: whose signature it is.
            now_us: microseconds since 1970-01-01 UTC.

        Raises:
            ValueError: as `sign`.
        """
        _refuse_smuggling(host, "/", "", ())
        self._turn_clock(now_us // 1_000_000)
        added = {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{credentials.access_key}/{self._scope}",
            "X-Amz-Date": self._amz_date.decode("ascii"),
            "X-Amz-Expires": str(expires_seconds),
            "X-Amz-SignedHeaders": "host",
        }
        if credentials.token is not None:
            added["X-Amz-Security-Token"] = credentials.token
        query = canonical_query({**parameters, **added})
        request = f"GET\n/\n{query}\nhost:{host}\n\nhost\n{EMPTY_SHA256}"
        return f"{query}&X-Amz-Signature={self._signature(request.encode('ascii'), credentials)}"

    def _signature(self, canonical_request: bytes, credentials: Credentials) -> str:
        digest = sha256(canonical_request).hexdigest()
        key = self._key_of_day(credentials)
        return hmac.digest(key, self._to_sign_head + digest.encode("ascii"), "sha256").hex()

    def _turn_clock(self, second: int) -> None:
        if second != self._second:
            amz_date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._day = amz_date[:8]
            self._scope = f"{self._day}/{self._region}/{self._service}/aws4_request"
            self._amz_date = amz_date.encode("ascii")
            self._to_sign_head = f"{_ALGORITHM}\n{amz_date}\n{self._scope}\n".encode("ascii")
            self._second = second

    def _key_of_day(self, credentials: Credentials) -> bytes:
        wanted = (credentials, self._day)
        if wanted != self._day_key_of:
            for name, text in (("access key", credentials.access_key), ("token", credentials.token or "")):
                if not _VISIBLE_ASCII.fullmatch(text):
                    raise ValueError(f"sign: the {name} holds a character outside visible ASCII")
            self._day_key = aws_auth.getSignatureKey(
                credentials.secret_key, self._day, self._region, self._service
            )
            self._day_key_of = wanted
        return self._day_key


def _refuse_smuggling(host: str, raw_path: str, query: str, headers: Sequence[Header]) -> None:
    if not _VISIBLE_ASCII.fullmatch(host + raw_path + query):
        places = {"host": host, "path": raw_path, "query": query}
        guilty = next(place for place, text in places.items() if not _VISIBLE_ASCII.fullmatch(text))
        raise ValueError(f"sign: {guilty} holds a character outside visible ASCII; percent-encode it")
    if _LINE_BREAKING.search(b" ".join([b"%b %b" % header for header in headers])):
        name = next(name for name, value in headers if _LINE_BREAKING.search(name + value))
        raise ValueError(f"sign: header {name[:64]!r} holds a line break or NUL")


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of a canonical request depends on the headers' names alone; the objects of a source share it.

    Attributes:
        positions: of the headers whose values the template takes, in its order.
        template: canonical header lines, an empty line, and the signed names, with a place for each value.
        signed_names: lower case, sorted, separated by ";".
    """

    positions: tuple[int, ...]
    template: bytes
    signed_names: str


@functools.lru_cache(maxsize=256)
def _shape(names: tuple[bytes, ...], given: int) -> _Shape:
    """Return the shape of a request with headers of these names, in order; repeated headers are joined.

    `given` headers, from the second on, are the caller's.

    Raises:
        ValueError: one of those is added here, or a name can't be part of a template.
    """
    positions: dict[bytes, list[int]] = {}
    for position, name in enumerate(names):
        lower = name.lower()
        if 1 <= position <= given and lower in _ADDED_HERE:
            raise ValueError(f"sign: header {lower.decode('ascii')} is added by the signer")
        if lower not in _UNSIGNED:
            positions.setdefault(lower, []).append(position)
    lines = []
    for name in sorted(positions):
        places = b",".join([b"%b"] * len(positions[name]))
        lines.append(name.replace(b"%", b"%%") + b":" + places)
    signed_names = b";".join(sorted(positions))
    template = b"\n".join(lines) + b"\n\n" + signed_names.replace(b"%", b"%%")
    order = tuple(position for name in sorted(positions) for position in positions[name])
    return _Shape(order, template, signed_names.decode("ascii"))
