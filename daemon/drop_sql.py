"""The SQL that a GO allows: drop or empty a table that was copied whole, or delete what was copied in batches; pure.

It is printed, never run. Every statement stops by itself if the table is no longer what was attested.
"""

# ruff: noqa: S608 -- this module is where SQL is put together for people; names are quoted, `where` is theirs

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.row_queries import Relation, literal, quoted
from daemon.settings_values import timestamp_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.config import SourceConfig

BATCH_ROWS = 10_000
"""Rows that one DELETE takes."""
PAUSE_SECONDS = 1
LOCK_SECONDS = 5
"""How long a statement waits for its lock: longer, and everybody queues behind it."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table whose rows in scope are all copied.

    Attributes:
        cutoff_us: microseconds since 1970-01-01 UTC; rows from then on are out of scope.
        seen: rows it had in the attested snapshot.
        left_out: rows of them that are out of scope: they have no copy.
        excused: row keys that have no copy, by the operator's leave.
    """

    spec: SourceConfig
    cutoff_us: int
    seen: int
    left_out: int
    excused: Sequence[str] = ()


def drop_sql(table: CopiedTable) -> str:
    """Return what frees the table's room: DROP where everything in it is copied, else batches of DELETE."""
    relation = Relation(table.spec.schema_name, table.spec.table_name)
    if not table.left_out and not table.excused:
        return _drop(relation, table.seen)
    return _delete(table, relation)


def _drop(relation: Relation, seen: int) -> str:
    name = relation.sql
    return f"""\
-- Every row of {_comment(name)} is copied. Stop whatever writes to it first.
BEGIN;
SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;
{_guard(name, "", seen)}
TRUNCATE TABLE {name};  -- or: DROP TABLE {name};
COMMIT;"""


def _delete(table: CopiedTable, relation: Relation) -> str:
    name = relation.sql
    scope = _scope(table)
    kept = []
    if table.left_out:
        kept.append(f"{table.left_out} rows are out of the migration's scope")
    if table.excused:
        kept.append(f"{len(table.excused)} are excused and have no copy")
    expected = table.seen - table.left_out - len(table.excused)
    return f"""\
-- {_comment(name)} keeps rows without a copy: {"; ".join(kept)}.
-- This deletes the {expected} copied ones. Stop whatever writes to the table first; CALL outside a transaction.
{_guard(name, f" WHERE {scope}", expected)}
CREATE PROCEDURE pg_temp.delete_copied() LANGUAGE plpgsql AS $backfill$
DECLARE deleted bigint;
BEGIN
  LOOP
    DELETE FROM {name} AS d USING (
      SELECT tableoid AS relation, ctid AS place FROM {name} WHERE {scope} LIMIT {BATCH_ROWS}
    ) AS batch WHERE d.tableoid = batch.relation AND d.ctid = batch.place;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    COMMIT;
    EXIT WHEN deleted = 0;
    PERFORM pg_sleep({PAUSE_SECONDS});
  END LOOP;
END $backfill$;
CALL pg_temp.delete_copied();
VACUUM (ANALYZE) {name};  -- room for new rows; VACUUM FULL or pg_repack gives it back to the disk"""


def _guard(name: str, where: str, expected: int) -> str:
    return f"""\
DO $backfill$ BEGIN
  IF (SELECT count(*) FROM {name}{where}) <> {expected} THEN
    RAISE EXCEPTION 'the table has changed since it was attested: attest again';
  END IF;
END $backfill$;"""


def _scope(table: CopiedTable) -> str:
    """Return the condition that is true for the rows of the migration's scope, as planning has it."""
    spec = table.spec
    conditions = []
    if spec.where:
        # The line break ends a comment that the fragment may end in.
        conditions.append(f"({spec.where}\n)")
    if spec.created_at is not None:
        column = quoted(spec.created_at)
        zoned = (
            column
            if spec.created_at_zone is None
            else f"({column}::timestamp AT TIME ZONE {literal(spec.created_at_zone)})"
        )
        before = f"{zoned} < {literal(timestamp_text(table.cutoff_us))}::timestamptz"
        conditions.append(f"({before} OR {column} IS NULL)" if spec.null_created_at == "include" else before)
    if spec.null_value != "empty":
        conditions.append(f"{quoted(spec.value)} IS NOT NULL")
    if table.excused:
        key = quoted(spec.key[0]) + "::text" if len(spec.key) == 1 else _composite(spec.key)
        conditions.append(f"{key} NOT IN ({', '.join(literal(row_key) for row_key in table.excused)})")
    return " AND ".join(conditions) or "true"


def _composite(key: Sequence[str]) -> str:
    return f"array_to_json(ARRAY[{', '.join(f'{quoted(column)}::text' for column in key)}])::text"


def _comment(name: str) -> str:
    """Return a name as a comment may hold it: on one line."""
    return " ".join(name.split())
