"""Read the values of a config file: sizes, durations, shares, times, names; pure.

Every function takes what TOML, an environment variable or a flag gave and returns the value in the unit
the program counts in, or raises ValueError whose text says what is allowed, never what was found: the
caller names the place and quotes the value, and knows which values are secret.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
}
"""A letter alone counts in powers of 1024, as in rclone's --bwlimit."""
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DIGITS = r"[0-9]{1,18}"
"""More are beyond every bound here, and at last beyond what a double holds and int() reads."""
_WHOLE = re.compile(_DIGITS)
_DECIMAL = re.compile(rf"{_DIGITS}(?:\.{_DIGITS})?")
_NUMBER_WITH_UNIT = re.compile(rf"({_DIGITS}(?:\.{_DIGITS})?)\s*([A-Za-z]+)")
_TIMESTAMP = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?\s?(?P<zone>[Zz]|UTC|[+-]\d\d(?::?\d\d)?)?"
)
_PLAIN_IDENTIFIER = re.compile(r"[a-z_\u0080-\U0010ffff][a-z0-9_$\u0080-\U0010ffff]*")
_IDENTIFIER_BYTES_MAX = 63
"""PostgreSQL's NAMEDATALEN - 1; a longer name would be cut silently by the server."""
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BYTES_PER_SECOND_MIN, BYTES_PER_SECOND_MAX = 2**10, 2**40
ROWS_PER_SECOND_MAX = 10_000_000
"""Bounds of rates; a slower one than the smallest would be a pause, which is another thing."""

TIMESTAMP_ALLOWED = 'a time with its zone, such as 2026-01-14T15:30:45.123456Z or "2026-01-14 15:30:45+01:00"'


def whole_number(text: str) -> int | None:
    """Return the number that digits, perhaps between spaces, stand for; None for anything else."""
    return int(text) if _WHOLE.fullmatch(text.strip()) else None


def finite_number(value: object) -> float | None:
    """Return a number as a double; None for what is none, or fits into none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def size_bytes(value: object) -> int:
    """Return bytes from `"256MiB"`, `"1.5GB"` or a whole number of bytes."""
    allowed = 'a size such as "256MiB" or "1GB" (a bare number is bytes)'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str):
        whole = whole_number(value)
        if whole is not None:
            return whole
        match = _NUMBER_WITH_UNIT.fullmatch(value.strip())
        if match and match[2].upper() in _SIZE_UNITS:
            return round(float(match[1]) * _SIZE_UNITS[match[2].upper()])
    raise ValueError(allowed)


def bytes_per_second(value: object) -> int | None:
    """Return a rate from a size as `size_bytes` reads it, such as `"20M"`; None for `"off"`, no limit."""
    if value == "off":
        return None
    try:
        found = size_bytes(value)
    except ValueError:
        found = 0
    if not BYTES_PER_SECOND_MIN <= found <= BYTES_PER_SECOND_MAX:
        raise ValueError('bytes per second from "1K" to "1024G", such as "20M", or "off"')
    return found


def rows_per_second(value: object) -> int | None:
    """Return a rate from a whole number or its digits; None for `"off"`, no limit."""
    if value == "off":
        return None
    text = value.strip() if isinstance(value, str) else ""
    found = int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else value
    if not isinstance(found, int) or isinstance(found, bool) or not 1 <= found <= ROWS_PER_SECOND_MAX:
        raise ValueError(f'rows per second from 1 to {ROWS_PER_SECOND_MAX}, or "off"')
    return found


def duration_seconds(value: object) -> float:
    """Return seconds from `"30s"`, `"5m"`, `"1.5h"` or a number of seconds."""
    allowed = 'a duration such as "30s", "5m" or "2h" (a bare number is seconds)'
    number = finite_number(value)
    if number is not None and number >= 0:
        return number
    if isinstance(value, str):
        match = _NUMBER_WITH_UNIT.fullmatch(value.strip())
        if match and match[2] in _DURATION_UNITS:
            return float(match[1]) * _DURATION_UNITS[match[2]]
        if _DECIMAL.fullmatch(value.strip()):
            return float(value)
    raise ValueError(allowed)


def count_or_fraction(value: object) -> tuple[int | None, float | None]:
    """Return (count, None) from a whole number, or (None, fraction) from a percentage such as `"0.1%"`."""
    allowed = 'a count such as 100, or a share of the planned rows such as "0.1%"'
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, None
    if isinstance(value, str):
        text = value.strip()
        whole = whole_number(text)
        if whole is not None:
            return whole, None
        if text.endswith("%") and _DECIMAL.fullmatch(text[:-1].rstrip()):
            fraction = float(text[:-1]) / 100
            if fraction <= 1:
                return None, fraction
    raise ValueError(allowed)


def timestamp_us(value: object) -> int:
    """Return microseconds since 1970-01-01 UTC from a TOML datetime or its text; a zone is required.

    PostgreSQL's own output (`2026-01-14 15:30:45.123456+00`) and `… UTC` are read too. More than six
    decimals are refused rather than cut, because a cut moves the cutoff.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(TIMESTAMP_ALLOWED)
        return _since_epoch_us(value)
    if isinstance(value, str):
        text = value.strip()
        match = _TIMESTAMP.fullmatch(text)
        if match and match["zone"]:
            moment = text[: match.start("zone")].rstrip()
            zone = "+00:00" if match["zone"] in {"Z", "z", "UTC"} else match["zone"]
            try:
                return _since_epoch_us(datetime.fromisoformat(moment + zone))
            except ValueError as exc:
                raise ValueError(TIMESTAMP_ALLOWED) from exc
    raise ValueError(TIMESTAMP_ALLOWED)


def _since_epoch_us(moment: datetime) -> int:
    delta = moment - _EPOCH
    return (delta.days * 86400 + delta.seconds) * 1_000_000 + delta.microseconds


def timestamp_text(us: int) -> str:
    """Return microseconds since 1970-01-01 UTC as RFC 3339 text with six decimals and `Z`."""
    seconds, rest = divmod(us, 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def table_name(value: object) -> tuple[str, str]:
    """Return (schema, table) from `public.attachments` or `"My Schema"."Table"`.

    A schema is required since sessions run with an empty search_path. A part with capitals or other
    characters has to be quoted as in SQL; it is refused unquoted, where SQL would fold its case.
    """
    allowed = (
        'schema and table, such as "public.attachments"; a part with capitals or other characters in '
        "double quotes, such as 'public.\"Attachments\"'"
    )
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004 -- pydantic turns ValueError, not TypeError, into a problem
    parts: list[str] = []
    rest = value.strip()
    while True:
        match = re.match(r'"((?:[^"\x00]|"")+)"', rest)
        if match:
            parts.append(match[1].replace('""', '"'))
        else:
            match = re.match(r'[^".]+', rest)
            if not match or not _PLAIN_IDENTIFIER.fullmatch(match[0]):
                raise ValueError(allowed)
            parts.append(match[0])
        rest = rest[match.end() :]
        if not rest:
            break
        if not rest.startswith("."):
            raise ValueError(allowed)
        rest = rest[1:]
    if len(parts) != 2 or any(len(part.encode()) > _IDENTIFIER_BYTES_MAX for part in parts):
        raise ValueError(allowed)
    return parts[0], parts[1]


def column(value: object) -> str:
    """Return a column name as the catalogue holds it: exact case, no quotes, at most 63 bytes."""
    fits = isinstance(value, str) and value and "\x00" not in value
    if not fits or len(str(value).encode()) > _IDENTIFIER_BYTES_MAX:
        raise ValueError("a column name, exactly as in the table, without quotes")
    return str(value)


def bucket_name(value: object) -> str:
    """Return a bucket name by the S3 naming rules."""
    allowed = "a bucket name: 3 to 63 lower-case letters, digits, '-' and '.', not an IP address"
    if not isinstance(value, str) or not _BUCKET.fullmatch(value) or ".." in value:
        raise ValueError(allowed)
    try:
        ip_address(value)
    except ValueError:
        return value
    raise ValueError(allowed)


def endpoint_url(value: object) -> str:
    """Return an S3 endpoint, `http(s)://host[:port]`, without trailing slash; no path, no user or password."""
    allowed = 'http:// or https://, a host and perhaps a port, such as "http://127.0.0.1:8333", nothing more'
    if not isinstance(value, str):
        raise ValueError(allowed)  # noqa: TRY004
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError as exc:
        raise ValueError(allowed) from exc
    bare = parts.path in {"", "/"} and not parts.query and not parts.fragment and "@" not in parts.netloc
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https"} or not bare or not re.fullmatch(r"[A-Za-z0-9._:%-]+", host):
        raise ValueError(allowed)
    named = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{named}" if port is None else f"{parts.scheme}://{named}:{port}"


def postgres_uri(value: object) -> str:
    """Return a libpq URI; the bare scheme means that PG* variables say everything."""
    if isinstance(value, str) and value.startswith(("postgresql://", "postgres://")) and "\x00" not in value:
        return value
    raise ValueError('a URI such as "postgresql://reader@db/app"')


def object_prefix(value: object) -> str:
    """Return a prefix for object keys, free of what S3 servers rewrite or refuse.

    SeaweedFS merges `a//b` into `a/b`; others refuse '.' and '..' segments, backslashes and control
    characters.
    """
    allowed = (
        "a prefix such as \"attachments/\": not beginning with '/', without '//', '.' or '..' segments, "
        "backslashes or control characters, at most 512 bytes"
    )
    if not isinstance(value, str) or len(value.encode("utf-8", "replace")) > 512:
        raise ValueError(allowed)
    segments = value.split("/")
    if value.startswith("/") or "//" in value or {".", ".."} & set(segments):
        raise ValueError(allowed)
    if "\\" in value or any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in value):
        raise ValueError(allowed)
    return value


def is_loopback(host: str) -> bool:
    """Say whether what is sent to `host` stays on this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
