"""SQL that reads rows: the planning sweep, the snapshot scan, the fetch; pure text.

Only what the configuration's owner wrote as `where` enters as it is; every other name is quoted. The columns of
a planning row are `reason, row_key, created_at, size`: the server decides by itself why a row is left out, so
that one scan yields both the plan and the count of every exclusion.
"""

# ruff: noqa: S608 -- this module is where SQL is put together; what enters is quoted or the operator's own

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from daemon.retrying import Failure, FailureClass
from daemon.rows import Exclusions, SweptRange, SweptRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from daemon.config import SourceConfig
    from daemon.rows import TableFacts

CAST_TYPES = {
    "text": "text",
    "character varying": "text",
    "uuid": "uuid",
    "smallint": "smallint",
    "integer": "integer",
    "bigint": "bigint",
    "bytea": "bytea",
}
"""Key types, and the type that texts of row keys are cast to so that the column's index serves."""

LAST_DATE = "294276-12-29"
"""Two days before the last timestamp (PostgreSQL manual, table 8.9), so that no time zone carries it over.

A date can lie millions of years later, and converting it would fail the scan of the whole table.
"""


class Reason(IntEnum):
    """Why a planning scan leaves a row out; the order is the order of the checks."""

    NONE = 0
    WHERE = 1
    NULL_CREATED_AT = 2
    NEWER_THAN_CUTOFF = 3
    NULL_VALUE = 4
    NULL_KEY = 5


def quoted(identifier: str) -> str:
    """Return `identifier` as SQL quotes it."""
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return `text` as an SQL literal, under standard_conforming_strings."""
    return "'" + text.replace("'", "''") + "'"


def set_statements(settings: Mapping[str, str], *, scope: str) -> str:
    """Return the statements that set `settings` for "SESSION" or, in a transaction, "LOCAL"."""
    return "; ".join(f"SET {scope} {quoted(name)} = {literal(value)}" for name, value in settings.items())


@dataclass(frozen=True, slots=True)
class Relation:
    """A table by name."""

    schema: str
    name: str

    @property
    def sql(self) -> str:
        """Both parts quoted."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


@dataclass(frozen=True, slots=True)
class RowQueries:
    """The statements of one source.

    Attributes:
        utf8: the database's encoding is UTF8, so that octet_length(text) counts the bytes we will send; else
            texts are converted to be measured.
    """

    spec: SourceConfig
    facts: TableFacts
    utf8: bool

    @property
    def table(self) -> Relation:
        """The source's table."""
        return Relation(self.spec.schema_name, self.spec.table_name)

    @property
    def dated(self) -> bool:
        """Whether the scans take the cutoff as their last argument."""
        return self.spec.created_at is not None

    def sweep(self, relation: Relation, *, bounded: bool) -> str:
        """Return the statement that reads one block range of a heap.

        Arguments: first tid, next tid if `bounded`, cutoff if dated. The last column is the filenode. It is
        read under the lock that the statement holds on the relation, so that it is the filenode of the rows;
        an outer join yields it even for a range without rows, with NULL for a reason.
        """
        bounds = "ctid >= $1::tid AND ctid < $2::tid" if bounded else "ctid >= $1::tid"
        cutoff = 3 if bounded else 2
        return (
            "SELECT found.*, heap.filenode "
            f"FROM (SELECT pg_relation_filenode(to_regclass({literal(relation.sql)})) AS filenode) AS heap "
            f"LEFT JOIN (SELECT {self._planning_columns(cutoff)} "
            f"FROM ONLY {relation.sql} AS {self._alias} WHERE {bounds}) AS found ON true"
        )

    def scan(self) -> str:
        """Return the statement that reads the whole source; its argument is the cutoff if dated."""
        return f"SELECT {self._planning_columns(1)} FROM {self.table.sql} AS {self._alias}"

    def fetch(self) -> str:
        """Return the statement that reads values by key.

        Arguments: one text array per key column, then the bytes reserved for each key. Columns: row key, size
        (NULL for a NULL value), value (NULL if larger than reserved), created_at, then the metadata columns.
        The *array* is cast to the column's type, never the column to text: only so does an index on it serve.
        """
        wanted, reserved = self._by_key(reserving=True)
        columns = [
            f"{self._row_key} AS row_key",
            f"{self._octets} AS size",
            f"CASE WHEN {self._octets} <= {reserved} THEN {self._bytes} END AS value",
            f"{self._instant}::text AS created_at",
            *(f"{self._column(name)}::text" for name in self.spec.metadata),
        ]
        return f"SELECT {', '.join(columns)} {wanted}"

    def digests(self, *, with_sha256: bool) -> str:
        """Return the statement that digests values by key, on the server.

        Arguments: one text array per key column. Columns: row key, size (NULL for a NULL value), MD5 in hex, SHA-256
        in hex (empty unless asked for, to spare the server the work), created_at. No value leaves the database.
        """
        sha256 = f"encode(sha256({self._bytes}), 'hex')" if with_sha256 else "''"
        wanted, _ = self._by_key(reserving=False)
        columns = [
            f"{self._row_key} AS row_key",
            f"{self._octets} AS size",
            f"md5({self._bytes}) AS md5",
            f"{sha256} AS sha256",
            f"{self._instant}::text AS created_at",
        ]
        return f"SELECT {', '.join(columns)} {wanted}"

    def _by_key(self, *, reserving: bool) -> tuple[str, str]:
        """Return FROM and WHERE of a statement about some keys, and what each key has reserved there."""
        arrays = [f"${n}::text[]::{cast}[]" for n, cast in enumerate(self._casts, start=1)]
        reserved_array = f"(${len(arrays) + 1}::bigint[])"
        source = f"{self.table.sql} AS {self._alias}"
        if len(arrays) == 1:
            column = self._column(self.spec.key[0])
            reserved = f"{reserved_array}[array_position({arrays[0]}, {column})]"
            return f"FROM {source} WHERE {column} = ANY({arrays[0]})", reserved
        asked = quoted(self.spec.table_name[:50] + " wanted")
        names = [f"key{n}" for n in range(len(arrays))]
        join = " AND ".join(
            f"{self._column(column)} = {asked}.{name}"
            for column, name in zip(self.spec.key, names, strict=True)
        )
        lists, columns = ([*arrays, reserved_array], [*names, "reserved"]) if reserving else (arrays, names)
        return (
            f"FROM unnest({', '.join(lists)}) AS {asked}({', '.join(columns)}) JOIN {source} ON {join}",
            f"{asked}.reserved",
        )

    def key_arguments(self, row_keys: Sequence[str]) -> list[Any]:
        """Return the arguments that name these row keys, one array per key column.

        Raises:
            ValueError: a row key has not as many parts as the source has key columns.
        """
        parts = [split_row_key(row_key, len(self.spec.key)) for row_key in row_keys]
        columns = [list(column) for column in zip(*parts, strict=True)]
        for position, cast in enumerate(self._casts):
            if cast == "bytea":
                columns[position] = ["\\x" + digits for digits in columns[position]]
        return columns

    def fetch_arguments(self, row_keys: Sequence[str], reserved: Sequence[int]) -> list[Any]:
        """Return the arguments of `fetch` for these row keys.

        Raises:
            ValueError: a row key has not as many parts as the source has key columns.
        """
        return [*self.key_arguments(row_keys), list(reserved)]

    def sample_arguments(self) -> list[Any]:
        """Return arguments of the right types for EXPLAIN of `fetch`."""
        samples = {"uuid": "00000000-0000-0000-0000-000000000000", "bytea": "\\x00"}
        return [*([samples.get(cast, "0")] for cast in self._casts), [0]]

    @property
    def _casts(self) -> list[str]:
        return [CAST_TYPES[name] for name in self.facts.key_types]

    @property
    def aliased(self) -> str:
        """The table with the name that conditions on it take."""
        return f"{self.table.sql} AS {self._alias}"

    @property
    def _alias(self) -> str:
        # Leaves of a partitioned table go by their parent's name, so that `where` may qualify its columns.
        return quoted(self.spec.table_name)

    def _column(self, name: str) -> str:
        return f"{self._alias}.{quoted(name)}"

    @property
    def _row_key(self) -> str:
        texts = [
            f"encode({self._column(name)}, 'hex')" if cast == "bytea" else f"{self._column(name)}::text"
            for name, cast in zip(self.spec.key, self._casts, strict=True)
        ]
        return texts[0] if len(texts) == 1 else f"array_to_json(ARRAY[{', '.join(texts)}])::text"

    @property
    def _key_is_null(self) -> str:
        return " OR ".join(f"{self._column(name)} IS NULL" for name in self.spec.key)

    @property
    def _instant(self) -> str:
        """created_at as timestamptz, NULL for a source without one."""
        if self.spec.created_at is None:
            return "NULL::timestamptz"
        column = self._column(self.spec.created_at)
        zone = literal(self.spec.created_at_zone or "UTC")
        kind = self.facts.created_at_type
        if kind != "timestamp with time zone":
            return (
                f"(CASE WHEN {column} <= {literal(LAST_DATE)}::{kind} THEN {column}::timestamp AT TIME ZONE {zone} "
                f"WHEN {column} IS NOT NULL THEN 'infinity' END)"
            )
        return column

    @property
    def size(self) -> str:
        """The value's size in bytes, 0 for a NULL value."""
        return f"coalesce({self._octets}, 0)"

    @property
    def _textual(self) -> bool:
        return self.facts.value_type != "bytea"

    @property
    def _octets(self) -> str:
        """The value's size in bytes; on a TOASTed value this reads its header only."""
        measured = self._column(self.spec.value)
        if self._textual and not self.utf8:
            measured = self._bytes
        return f"octet_length({measured})"

    @property
    def _bytes(self) -> str:
        column = self._column(self.spec.value)
        return f"convert_to({column}, 'UTF8')" if self._textual else column

    def in_scope(self, cutoff: str) -> str:
        """Return the condition that holds for the rows that a planning scan keeps, columns under the table's name.

        `cutoff` is an SQL expression of type timestamptz.
        """
        return " AND ".join(f"({check}) IS NOT TRUE" for check, _ in self._exclusions(cutoff))

    def row_key_among(self, row_keys: Sequence[str]) -> str:
        """Return the condition that a row's key is one of these, columns under the table's name."""
        return f"{self._row_key} IN ({', '.join(map(literal, row_keys))})"

    def _exclusions(self, cutoff: str) -> list[tuple[str, Reason]]:
        """Return why a planning scan leaves rows out, in the order of the checks."""
        checks = []
        if self.spec.where:
            # The line break ends a comment that the fragment may end in.
            checks.append((f"({self.spec.where}\n) IS NOT TRUE", Reason.WHERE))
        if self.dated:
            if self.spec.null_created_at != "include":
                checks.append((f"{self._instant} IS NULL", Reason.NULL_CREATED_AT))
            checks.append((f"{self._instant} >= {cutoff}", Reason.NEWER_THAN_CUTOFF))
        if self.spec.null_value != "empty":
            checks.append((f"{self._column(self.spec.value)} IS NULL", Reason.NULL_VALUE))
        checks.append((self._key_is_null, Reason.NULL_KEY))
        return checks

    def _planning_columns(self, cutoff: int) -> str:
        checks = self._exclusions(f"${cutoff}::timestamptz")
        cases = " ".join(f"WHEN {check} THEN {reason:d}" for check, reason in checks)
        return (
            f"CASE {cases} ELSE {Reason.NONE:d} END AS reason, {self._row_key} AS row_key, "
            f"{self._instant} AS created_at, {self.size} AS size"
        )


def split_row_key(row_key: str, columns: int) -> list[str]:
    """Return the texts of a row key's columns.

    Raises:
        ValueError: it has not `columns` of them.
    """
    if columns == 1:
        return [row_key]
    import json

    parts = json.loads(row_key)
    if (
        not isinstance(parts, list)
        or len(parts) != columns
        or not all(isinstance(part, str) for part in parts)
    ):
        raise ValueError(f"row key {row_key!r} has not {columns} parts")
    return parts


_as_swept = SweptRow._make


def sort_out(planning_rows: Iterable[Sequence[Any]]) -> tuple[list[SweptRow], Exclusions, int]:
    """Return what is to be planned, the exclusions by reason, and how many rows have a NULL in their key.

    A row without a reason is none: an outer join made it.
    """
    kept: list[SweptRow] = []
    counts = [0] * len(Reason)
    for row in planning_rows:
        reason = row[0]
        if reason == 0:
            kept.append(_as_swept(row[1:4]))
        elif reason is not None:
            counts[reason] += 1
    excluded = Exclusions(
        newer_than_cutoff=counts[Reason.NEWER_THAN_CUTOFF],
        where=counts[Reason.WHERE],
        null_created_at=counts[Reason.NULL_CREATED_AT],
        null_value=counts[Reason.NULL_VALUE],
    )
    return kept, excluded, counts[Reason.NULL_KEY]


def joined(left: SweptRange, right: SweptRange) -> SweptRange:
    """Return two neighbouring ranges as one.

    Raises:
        Failure: the heap was rewritten in between, so that the halves don't fit together.
    """
    if left.filenode != right.filenode:
        raise Failure(
            FailureClass.CONFLICT, "SWEEP", f"sweep of relation {left.relation}: it was rewritten meanwhile"
        )
    excluded = Exclusions()
    excluded.add(left.excluded)
    excluded.add(right.excluded)
    return SweptRange(
        left.relation,
        left.filenode,
        left.first_block,
        right.next_block,
        left.seen + right.seen,
        left.rows + right.rows,
        excluded,
    )


def unindexed_scans(plan: Any) -> list[str]:
    """Return the scans in an EXPLAIN (FORMAT JSON) plan that read a table other than through an index condition."""
    found = []
    waiting = [entry["Plan"] for entry in plan]
    while waiting:
        node = waiting.pop()
        waiting += node.get("Plans", [])
        kind = node["Node Type"]
        reads_all = kind in {"Seq Scan", "Foreign Scan", "Sample Scan", "Custom Scan"}
        by_index = kind in {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}
        if reads_all or (by_index and "Index Cond" not in node):
            found.append(f"{kind} on {node.get('Relation Name') or node.get('Index Name') or 'a relation'}")
    return found
