"""SQL that writes rows back and compares them, and what fits into a table; pure text and judgement.

Every value but the bytes travels as text and is cast to the column's own type, as the row key and the metadata were
cast to text when they were read: the same settings hold both ways.
"""

# ruff: noqa: S608 -- this module is where SQL is put together; what enters is quoted or the catalogue's own

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.row_queries import Relation, literal, quoted, split_row_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config import SourceConfig

TABLE_KINDS = {"r", "p"}
"""relkind of what rows are written to: a table, a partitioned table."""

TABLE = """
SELECT c.oid, c.relkind::text AS relkind, has_schema_privilege(n.oid, 'USAGE') AS usable,
       has_table_privilege(c.oid, 'SELECT') AS readable, current_user::text AS role,
       pg_is_in_recovery() AS in_recovery
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2"""

COLUMNS = """
SELECT a.attname::text AS name, format_type(a.atttypid, NULL) AS type,
       a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AS demanded, a.attgenerated <> '' AS generated,
       has_column_privilege(a.attrelid, a.attnum, 'INSERT') AS writable
FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped"""
"""`type` is without its modifier: a cast to varchar(3) would cut in silence, an assignment refuses."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table that is written to."""

    name: str
    type: str
    demanded: bool
    generated: bool
    writable: bool


@dataclass(frozen=True, slots=True)
class RestoredRow:
    """One row as its object tells it.

    Attributes:
        ordinal: of the key.
        row_key: as the journal has it.
        size, md5: as the journal has them; the value is compared with them once more by the server.
        value: None before the object was read.
        created_at: as PostgreSQL wrote it in UTC; as planned before the object was read; None for NULL.
        metadata: by column of the configuration; absent ones are NULL.
    """

    ordinal: int
    row_key: str
    size: int
    md5: str
    value: bytes | None = None
    created_at: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


def hint_of(spec: SourceConfig, table: Relation) -> str:
    """Return the statement that makes a table which every row fits into."""
    like = Relation(spec.schema_name, spec.table_name).sql
    return f"CREATE TABLE {table.sql} (LIKE {like} INCLUDING ALL)"


def problems_of(spec: SourceConfig, table: Relation, columns: Sequence[Column], role: str) -> list[str]:
    """Return everything that keeps rows of a source from being written to a table with these columns."""
    by_name = {column.name: column for column in columns}
    wanted = wanted_columns(spec)
    problems = [
        f"{table.sql}: no column {quoted(name)}; expected it, as source {spec.name} has it"
        for name in wanted
        if name not in by_name
    ]
    problems += [
        f"{table.sql}: column {quoted(column.name)} is NOT NULL without a default, and no object holds it"
        for column in columns
        if column.demanded and column.name not in wanted
    ]
    problems += [
        f"{table.sql}: column {quoted(name)} is generated; expected one that the {what} can be written to"
        for name, what in ((spec.value, "value"), *((key, "key") for key in spec.key))
        if name in by_name and by_name[name].generated
    ]
    refused = [
        quoted(name)
        for name in wanted
        if name in by_name and not by_name[name].writable and not by_name[name].generated
    ]
    if refused:
        problems.append(f"{table.sql}: role {quoted(role)} may not INSERT into {', '.join(refused)}")
    return problems


def wanted_columns(spec: SourceConfig) -> list[str]:
    """Return the columns that a source's objects tell, each once: key, created_at, value, metadata."""
    dated = [spec.created_at] if spec.created_at is not None else []
    return list(dict.fromkeys([*spec.key, *dated, spec.value, *spec.metadata]))


@dataclass(frozen=True, slots=True)
class RestoreQueries:
    """The statements for one source and one table whose columns fit."""

    spec: SourceConfig
    table: Relation
    types: dict[str, str]
    generated: frozenset[str]

    def compare(self) -> str:
        """Return the statement that says of rows by key what the table has: place, size, md5 of the value.

        Arguments: an array of texts for each key column. The place counts from 0.
        """
        value = f"t.{quoted(self.spec.value)}"
        content = value if self._binary else f"convert_to({value}, 'UTF8')"
        return (
            f"SELECT (n.place - 1)::int AS place, octet_length({content}) AS size, md5({content}) AS md5"
            f" FROM {self._given(0)} JOIN {self.table.sql} AS t ON {self._same_key}"
        )

    def insert(self) -> str:
        """Return the statement that writes rows which are not there, and returns a line for each that it wrote.

        Arguments: as `arguments` returns them.
        """
        value = "n.v" if self._binary else f"convert_from(n.v, 'UTF8')::{self.types[self.spec.value]}"
        columns = [(name, self._cast(f"n.k{at}", name)) for at, name in enumerate(self.spec.key)]
        columns.append((self.spec.value, value))
        taken = {name for name, _ in columns}
        if self.spec.created_at is not None and self.spec.created_at not in taken:
            columns.append((self.spec.created_at, self._created_at))
            taken.add(self.spec.created_at)
        columns += [
            (name, self._cast(f"n.m{at}", name))
            for at, name in enumerate(self.spec.metadata)
            if name not in taken
        ]
        written = [(name, text) for name, text in columns if name not in self.generated]
        names = ", ".join(quoted(name) for name, _ in written)
        return (
            f"INSERT INTO {self.table.sql} ({names}) OVERRIDING SYSTEM VALUE"
            f" SELECT {', '.join(text for _, text in written)} FROM {self._given(2 + len(self.spec.metadata))}"
            f" WHERE NOT EXISTS (SELECT FROM {self.table.sql} AS t WHERE {self._same_key})"
            " ON CONFLICT DO NOTHING RETURNING 1"
        )

    def keys(self, rows: Sequence[RestoredRow]) -> list[list[str]]:
        """Return the arguments of `compare`.

        Raises:
            ValueError: a row key has not as many parts as the source has key columns.
        """
        parts = [split_row_key(row.row_key, len(self.spec.key)) for row in rows]
        return [
            ["\\x" + part for part in column] if self.types[name] == "bytea" else list(column)
            for name, column in zip(self.spec.key, zip(*parts, strict=True), strict=True)
        ]

    def arguments(self, rows: Sequence[RestoredRow]) -> list[list[Any]]:
        """Return the arguments of `insert`: keys, values, created_at, and each metadata column."""
        told = [dict(row.metadata) for row in rows]
        return [
            *self.keys(rows),
            [row.value for row in rows],
            [row.created_at for row in rows],
            *([texts.get(name) for texts in told] for name in self.spec.metadata),
        ]

    @property
    def _binary(self) -> bool:
        return self.types[self.spec.value] == "bytea"

    @property
    def _same_key(self) -> str:
        return " AND ".join(
            f"t.{quoted(name)} = {self._cast(f'n.k{at}', name)}" for at, name in enumerate(self.spec.key)
        )

    @property
    def _created_at(self) -> str:
        name = self.spec.created_at or ""
        if self.types[name] == "timestamp with time zone":
            return self._cast("n.c", name)
        zone = literal(self.spec.created_at_zone or "UTC")
        return f"(n.c::timestamptz AT TIME ZONE {zone})::{self.types[name]}"

    def _cast(self, text: str, name: str) -> str:
        return f"{text}::{self.types[name]}"

    def _given(self, further: int) -> str:
        """Return the arrays of arguments as rows: keys, and unless `further` is 0 value, created_at and metadata."""
        names = [f"k{at}" for at in range(len(self.spec.key))]
        kinds = ["text"] * len(names)
        if further:
            names += ["v", "c", *(f"m{at}" for at in range(further - 2))]
            kinds += ["bytea", *["text"] * (further - 1)]
        arrays = ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(kinds, start=1))
        return f"unnest({arrays}) WITH ORDINALITY AS n({', '.join(names)}, place)"
