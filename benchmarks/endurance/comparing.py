"""Whether the bucket holds what the table holds: read by psql and by signed listings, none of it by the product."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote_plus
from xml.etree import ElementTree as ET

from benchmarks.endurance.migration import PREFIX
from benchmarks.servers import BUCKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemon.demo.postgres import EmbeddedPostgres
    from daemon.demo.seaweed import EmbeddedSeaweed

SAMPLE = 300
"""Objects whose bytes are read."""
PROBE = ".backfill-probe"
EXAMPLES = 3
_XML = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Content(NamedTuple):
    """What a value is known by."""

    size: int
    md5: str


@dataclass
class Difference:
    """Row keys by what is wrong with them; an empty text: nothing was lost and nothing added."""

    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = [
            f"{len(keys):,} {word} (such as {', '.join(keys[:EXAMPLES])})"
            for word, keys in (
                ("missing", self.missing),
                ("different", self.different),
                ("surplus", self.surplus),
            )
            if keys
        ]
        return "; ".join(told)


def compare(
    rows: Mapping[str, Content], objects: Mapping[str, Content], gone: Mapping[str, set[Content]]
) -> Difference:
    """Hold the bucket against the table; pure.

    Args:
        rows: those that the migration owes, as they are now.
        objects: what the bucket has, by row key.
        gone: rows deleted meanwhile, with each content that they ever had: theirs may be there or not.
    """
    return Difference(
        missing=[key for key in rows if key not in objects],
        different=[key for key, content in rows.items() if objects.get(key, content) != content],
        surplus=[
            key for key, content in objects.items() if key not in rows and content not in gone.get(key, ())
        ],
    )


def rows_before(postgres: EmbeddedPostgres, cutoff_us: int) -> dict[str, Content]:
    """Return every row that a migration with this cutoff owes; PostgreSQL computes the MD5."""
    return dict(_contents(postgres, _ROWS.format(cutoff_us=cutoff_us)))


_ROWS = """copy (select id, octet_length(value), md5(value) from public.rows
where created_at < timestamptz 'epoch' + {cutoff_us} * interval '1 microsecond') to stdout"""


def earlier_contents(postgres: EmbeddedPostgres) -> dict[str, set[Content]]:
    """Return what rows were before they changed or went away, from the table that the churn's trigger keeps."""
    found: dict[str, set[Content]] = {}
    for key, content in _contents(postgres, "copy (select id, size, md5 from public.history) to stdout"):
        found.setdefault(key, set()).add(content)
    return found


def _contents(postgres: EmbeddedPostgres, statement: str) -> list[tuple[str, Content]]:
    lines = (line.split("\t") for line in postgres.sql(statement).splitlines())
    return [(key, Content(int(size), md5)) for key, size, md5 in lines]


def listing(server: EmbeddedSeaweed) -> dict[str, Content]:
    """Return every object of the migration, by row key; the MD5 is its ETag."""
    found: dict[str, Content] = {}
    token = ""
    while True:
        query = f"list-type=2&encoding-type=url&prefix={quote(PREFIX, safe='')}"
        if token:
            query = f"continuation-token={quote(token, safe='')}&{query}"
        page = ET.fromstring(_get(server, f"/{BUCKET}?{query}"))
        for one in page.iter(f"{_XML}Contents"):
            name, size, etag = (one.findtext(f"{_XML}{field}") or "" for field in ("Key", "Size", "ETag"))
            key = unquote_plus(name).removeprefix(PREFIX)
            if key != PROBE:
                found[key] = Content(int(size), etag.strip('"'))
        token = page.findtext(f"{_XML}NextContinuationToken") or ""
        if page.findtext(f"{_XML}IsTruncated") != "true":
            return found


def wrong_bytes(
    postgres: EmbeddedPostgres, server: EmbeddedSeaweed, rows: Mapping[str, Content], seed: int
) -> list[str]:
    """Read some objects and their rows whole; return the keys of those that differ."""
    keys = random.Random(seed).sample(sorted(rows), min(SAMPLE, len(rows)))
    listed = ",".join(f"'{key}'" for key in keys)
    read = postgres.sql(f"select id, encode(value, 'hex') from public.rows where id in ({listed})")
    values = {key: bytes.fromhex(value) for key, value in (line.split("|") for line in read.splitlines())}
    return [key for key in keys if _get(server, f"/{BUCKET}/{PREFIX}{key}") != values[key]]


def _get(server: EmbeddedSeaweed, target: str) -> bytes:
    status, body = server.request("GET", target)
    if status != 200:
        raise AssertionError(f"GET {target}: expected 200, found {status}: {body[:300]!r}")
    return body
