"""The SQL that a GO allows: drop or empty a table that was copied whole, or delete what was copied in batches; pure.

It is printed, never run. The statement that removes rows counts them and their bytes first, and stops by itself if that
is not what was attested: no client can go past that, be it one that ignores errors.
"""

# ruff: noqa: S608 -- this module is where SQL is put together for people; names are quoted, `where` is theirs

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.row_queries import RowQueries, literal, set_statements
from daemon.session_settings import MEANING
from daemon.settings_values import timestamp_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BATCH_ROWS = 10_000
"""Rows that one DELETE takes."""
PAUSE_SECONDS = 1
_TAG = "$tag-of-the-text$"
LOCK_SECONDS = 5
"""How long a statement waits for its lock: longer, and everybody queues behind it."""


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table whose rows in scope are all copied.

    Attributes:
        queries: what is asked about it; what is in scope is what a planning scan keeps.
        cutoff_us: microseconds since 1970-01-01 UTC; rows from then on are out of scope.
        seen: rows it had in the attested snapshot.
        left_out: rows of them that are out of scope: they have no copy.
        size: bytes of those in scope that are not excused.
        excused: row keys of rows in scope that have no copy, by the operator's leave.
    """

    queries: RowQueries
    cutoff_us: int
    seen: int
    left_out: int
    size: int
    excused: Sequence[str] = ()


def drop_statements(tables: Mapping[str, CopiedTable]) -> dict[str, str]:
    """Return the SQL of each source, by name; only a comment where it would remove what another source still needs."""
    found = {}
    for name, table in tables.items():
        needing = [other for other, beside in tables.items() if _needs(beside, table)]
        found[name] = _none(table, needing) if needing else drop_sql(table)
    return found


def _needs(beside: CopiedTable, table: CopiedTable) -> bool:
    """Say whether a source copies another column of the same table, and not that of every row."""
    return (
        beside.queries.table == table.queries.table
        and beside.queries.spec.value != table.queries.spec.value
        and bool(beside.left_out or beside.excused)
    )


def _none(table: CopiedTable, needing: Sequence[str]) -> str:
    names = _comment(", ".join(needing))
    return f"""\
-- {_comment(table.queries.table.sql)} keeps rows without a copy of the column of {names}, so they are not removed here:
-- look at these rows yourself, before the table is dropped."""


def drop_sql(table: CopiedTable) -> str:
    """Return what frees the table's room: TRUNCATE where everything in it is copied, else batches of DELETE."""
    text = _delete(table) if table.left_out or table.excused else _empty(table)
    tag = "backfill"
    while f"${tag}$" in text:
        tag += "_"
    return text.replace(_TAG, f"${tag}$")


def _empty(table: CopiedTable) -> str:
    name = table.queries.table.sql
    guard = _guard(table.queries, "", table.seen, table.size)
    # One statement does it all: many clients go on behind one that has failed. The count must see what was
    # committed while the lock was waited for, which a repeatable snapshot would not.
    return f"""\
-- Every row of {_comment(name)} is copied. Stop whatever writes to it first.
BEGIN ISOLATION LEVEL READ COMMITTED;
DO {_TAG} BEGIN
  SET LOCAL lock_timeout = '{LOCK_SECONDS}s';
  LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE;
{guard}
  TRUNCATE TABLE {name};  -- or: DROP TABLE
END {_TAG};
COMMIT;"""


def _delete(table: CopiedTable) -> str:
    queries = table.queries
    name = queries.table.sql
    scope = queries.in_scope(f"{literal(timestamp_text(table.cutoff_us))}::timestamptz")
    if table.excused:
        scope += f" AND NOT {queries.row_key_among(table.excused)}"
    kept = []
    if table.left_out:
        kept.append(f"{table.left_out} out of the migration's scope")
    if table.excused:
        kept.append(f"{len(table.excused)} excused")
    expected = table.seen - table.left_out - len(table.excused)
    meaning = set_statements(MEANING, scope="LOCAL")
    # OR REPLACE: the SQL of another source may have made one in the same session.
    return f"""\
-- {_comment(name)} keeps rows without a copy: {", ".join(kept)}.
-- This deletes the {expected} copied ones. Stop whatever writes to the table first; CALL outside a transaction.
CREATE OR REPLACE PROCEDURE pg_temp.delete_copied() LANGUAGE plpgsql AS {_TAG}
DECLARE deleted bigint;
BEGIN
  {meaning};
{_guard(queries, f" WHERE {scope}", expected, table.size)}
  LOOP
    DELETE FROM {name} AS d USING (
      SELECT tableoid AS relation, ctid AS place FROM {queries.aliased} WHERE {scope} LIMIT {BATCH_ROWS}
    ) AS batch WHERE d.tableoid = batch.relation AND d.ctid = batch.place;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    COMMIT;
    {meaning};
    EXIT WHEN deleted = 0;
    PERFORM pg_sleep({PAUSE_SECONDS});
  END LOOP;
END {_TAG};
CALL pg_temp.delete_copied();
VACUUM (ANALYZE) {name};  -- room for new rows; VACUUM FULL or pg_repack gives it back to the disk"""


def _guard(queries: RowQueries, where: str, rows: int, size: int) -> str:
    counted = f"count(*) = {rows} AND coalesce(sum({queries.size}), 0) = {size}"
    return f"""\
  IF NOT (SELECT {counted} FROM {queries.aliased}{where}) THEN
    RAISE EXCEPTION 'the table has changed since it was attested: attest again';
  END IF;"""


def _comment(name: str) -> str:
    """Return a name as a comment may hold it: on one line."""
    return " ".join(name.split())
