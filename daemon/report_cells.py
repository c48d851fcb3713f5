"""One key as a row of `keys.csv`: S3 Batch Operations' columns, ours behind them, no cell that a spreadsheet runs; pure.

A spreadsheet takes a cell for a formula that begins with =, +, -, @, a tab, a line break, or the full-width forms of
the four signs (OWASP, "CSV Injection"). The rule, which `plain_cell` reverses: foreign text that begins with one of
these, or with an apostrophe, gets an apostrophe in front. Column Key needs none: it is percent-encoded, as the
manifests of S3 Batch Operations are, a leading "-" too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from daemon import rendering_units as units
from daemon.layouts import object_key, recorded_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from journal.entries import SourceRecord
    from journal.report_rows import KeyRow

COLUMNS = (
    "Bucket",
    "Key",
    "VersionId",
    "TaskStatus",
    "ErrorCode",
    "HTTPStatusCode",
    "ResultMessage",
    "SourceTable",
    "SourceKey",
    "CreatedAt",
    "Size",
    "MD5",
    "ETag",
    "Outcome",
    "Attempts",
    "VerifiedTier",
    "Finding",
)
"""The first seven as in a completion report of S3 Batch Operations (Amazon S3 User Guide, "Examples: S3 Batch
Operations completion reports", ReportSchema)."""
APOSTROPHE = "'"
RUN_BY_SPREADSHEETS = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""First characters that make a cell a formula, or that a spreadsheet drops before it looks for one."""

_MARKED = RUN_BY_SPREADSHEETS | {APOSTROPHE}
_COPIED = frozenset({"stored", "recovered", "present"})
_CODES = {
    "skipped": "Skipped",
    "vanished": "RowVanished",
    "parked": "Parked",
    "in_flight": "InFlight",
    "waiting": "Waiting",
    "unclaimed": "NotBegun",
}
_QUOTE = '"'
_QUOTED = re.compile('[",\r\n]')
_UNRESERVED = re.compile("[A-Za-z0-9_.~/][A-Za-z0-9_.~/-]*")
_DAY_US = 86_400_000_000
_DAYS_MAX = 2_900_000
"""Up to here in the years 1970 to 9909."""


def cell(text: str) -> str:
    """Return foreign text as a cell that no spreadsheet runs; `plain_cell` gives the text back."""
    return APOSTROPHE + text if text[:1] in _MARKED else text


def plain_cell(text: str) -> str:
    """Return the text that `cell` made a cell of."""
    return text.removeprefix(APOSTROPHE)


def key_cell(key: str) -> str:
    """Return an object key percent-encoded, "/" apart; decoding gives the key back."""
    if _UNRESERVED.fullmatch(key) is not None:
        return key
    encoded = quote(key, safe="/", errors="surrogatepass")
    return "%2D" + encoded[1:] if encoded[:1] == "-" else encoded


def is_fine(key: KeyRow) -> bool:
    """Say whether the bucket has the key's object as far as anybody knows: an outcome says so and no finding denies it."""
    return key.became in _COPIED and key.finding is None


def line_writer(source: SourceRecord) -> Callable[[KeyRow], str]:
    """Return what makes a line of each key of `source`, its cells in the order of COLUMNS, a line feed at its end.

    Where the journal doesn't tell how the source names its objects, Key is empty. Cells are joined by hand: the
    standard library's writer alone would take half of the time that there is for a key.
    """
    identity: Mapping[str, object] = source.identity
    layout = recorded_layout(identity)
    bucket = _foreign(str(identity.get("bucket", "")))
    table = _foreign(str(identity.get("table", source.name)))

    def line(key: KeyRow) -> str:
        row_key, md5, became = key.row_key, key.md5, key.became
        name = "" if layout is None else key_cell(object_key(layout, row_key))
        version = "" if key.version_id is None else _foreign(key.version_id)
        etag = _foreign(key.etag) if key.etag is not None else md5 if became in _COPIED else ""
        what = "succeeded,,200," if became in _COPIED and key.finding is None else _trouble(key)
        return (
            f"{bucket},{name},{version},{what},{table},{row_key if row_key.isalnum() else _foreign(row_key)},"
            f"{'' if key.created_at is None else _moment(key.created_at)},{key.size},{md5},{etag},{became},"
            f"{key.attempts},{key.verified_tier or ''},{'' if key.finding is None else _foreign(key.finding)}\n"
        )

    return line


def _foreign(text: str) -> str:
    """Return foreign text as a cell, quoted where RFC 4180 asks for it."""
    found = cell(text)
    return found if _QUOTED.search(found) is None else f'"{found.replace(_QUOTE, 2 * _QUOTE)}"'


def _moment(time_us: int) -> str:
    """Return what `rendering_units.moment` does, for times of this era, at half the cost."""
    day, rest = divmod(time_us, _DAY_US)
    if not 0 <= day <= _DAYS_MAX:
        return units.moment(time_us)
    seconds, fraction = divmod(rest, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z"


@lru_cache(maxsize=1000)
def _date(day: int) -> str:
    return units.moment(day * _DAY_US)[:10]


def _trouble(key: KeyRow) -> str:
    """Return task status, error code, HTTP status and message of a key that is not fine."""
    if key.finding is not None:
        code = "".join(word.capitalize() for word in key.finding.split("_"))
        http, message = "", f"found by verification ({key.finding_tier})"
    else:
        code = key.code or key.failure or _CODES.get(key.became, key.became)
        http, message = "" if key.http_status is None else str(key.http_status), key.message
    return f"failed,{_foreign(units.one_line(code))},{http},{_foreign(units.one_line(message))}"
