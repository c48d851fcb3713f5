"""What passes between PostgreSQL and the rest of the program: plain values, no driver types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

INFINITY_US = 2**63 - 1
"""created_at = 'infinity', in the microseconds since 1970-01-01 UTC that every `created_at` here counts."""
MINUS_INFINITY_US = -(2**63)
"""created_at = '-infinity'."""


class SweptRow(NamedTuple):
    """One row as a planning scan reads it; the value itself never leaves the server.

    Attributes:
        row_key: the key column as `::text`, or a JSON array of texts for a composite key.
        created_at: microseconds since 1970-01-01 UTC; None where the source has none or the row's is NULL.
        size: octet_length(value), 0 for a NULL value that the source's rule treats as empty.
    """

    row_key: str
    created_at: int | None
    size: int


@dataclass(slots=True)
class Exclusions:
    """Rows a scan saw and left out, each for one reason; nothing is excluded without a count here."""

    newer_than_cutoff: int = 0
    where: int = 0
    null_created_at: int = 0
    null_value: int = 0

    def add(self, other: Exclusions) -> None:
        """Add the counts of another scan, reason by reason."""
        self.newer_than_cutoff += other.newer_than_cutoff
        self.where += other.where
        self.null_created_at += other.null_created_at
        self.null_value += other.null_value

    def as_dict(self) -> dict[str, int]:
        """Return reason to count, for an event or a table."""
        return {
            "newer_than_cutoff": self.newer_than_cutoff,
            "where": self.where,
            "null_created_at": self.null_created_at,
            "null_value": self.null_value,
        }


@dataclass(frozen=True, slots=True)
class SweptRange:
    """Rows of one block range of one relation (a table, a leaf partition or an inheritance child).

    Attributes:
        relation: the relation's oid.
        filenode: pg_relation_filenode at the time of the read; a change means the table was rewritten.
        first_block: inclusive.
        next_block: exclusive; None if the range had no upper bound (it was the relation's last).
        seen: rows the server returned, excluded ones included.
    """

    relation: int
    filenode: int
    first_block: int
    next_block: int | None
    seen: int
    rows: list[SweptRow]
    excluded: Exclusions


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What the catalogue says of a source's table, as recorded in the journal and shown by `check`.

    Attributes:
        relations: oids of the heaps to sweep by block range; empty where only a cursor serves (views,
            foreign tables, servers before 14).
        key_types: regtype names of the key columns, in config order.
        unique: the name of the unique index that proves the key, or None.
        estimated_rows: reltuples over all relations; -1 where unknown.
    """

    oid: int
    kind: str
    relations: tuple[int, ...]
    blocks: dict[int, int]
    key_types: tuple[str, ...]
    value_type: str
    created_at_type: str | None
    unique: str | None
    estimated_rows: int


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Which server answered, recorded per session; a change of identifier asks for --accept-source."""

    system_identifier: str
    timeline: int
    version: int
    database: str
    address: str
    in_recovery: bool
    now_us: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to fetch, with the bytes reserved for its value."""

    row_key: str
    reserved: int


@dataclass(frozen=True, slots=True)
class RowDigest:
    """A row's value as the server digests it.

    Attributes:
        size: bytes.
        md5, sha256: lower-case hex digits; `sha256` is empty where it was not asked for.
        created_at_text: created_at as the server writes it in UTC; None without one.
    """

    row_key: str
    size: int
    md5: str
    sha256: str
    created_at_text: str | None = None


@dataclass(frozen=True, slots=True)
class FetchedRow:
    """A row's value, or the news that it has grown past its reservation.

    Attributes:
        size: octet_length(value) at the time of the fetch, in bytes.
        value: None if `size` exceeds what was reserved: fetch it again, alone, with room for `size`.
        created_at_text: created_at as the server writes it in UTC; None without one.
        metadata: the configured metadata columns as text; NULL columns are absent.
    """

    row_key: str
    size: int
    value: bytes | None
    created_at_text: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
