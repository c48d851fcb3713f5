"""The fold of what is planned: the migration, its sources, passes and chunks; part of `Projector.apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.checkpoint import Order
from journal.events import Kind, StoredEvent, encode

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

_INCOMPLETE = "UPDATE progress SET completed_seq = NULL"


def update_one(
    connection: sqlite3.Connection, statement: str, parameters: Sequence[Any] | dict[str, Any]
) -> None:
    """Execute an UPDATE that must find exactly its row.

    Raises:
        KeyError: it does not: the event contradicts those before it.
    """
    if connection.execute(statement, parameters).rowcount != 1:
        raise KeyError("the row to update is not there")


def _migration_created(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(
        connection,
        "UPDATE progress SET name = ?, order_name = ?, cutoff = ?, created = ?",
        (event.data["name"], Order(event.data["order"]).value, event.data["cutoff_us"], event.ts_us),
    )


def _cutoff_fixed(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(connection, "UPDATE progress SET cutoff = ?", (event.data["cutoff_us"],))


def _session_started(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(
        connection,
        "UPDATE progress SET session = ?, session_seq = ?, session_ended_seq = NULL",
        (event.data["session"], event.seq),
    )


def _session_ended(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(connection, "UPDATE progress SET session_ended_seq = ?", (event.seq,))


def _migration_completed(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(connection, "UPDATE progress SET completed_seq = ?", (event.seq,))


def _source_added(connection: sqlite3.Connection, event: StoredEvent) -> None:
    connection.execute(
        "INSERT INTO source (id, name, identity, closed, proven, excluded, unusable)"
        " VALUES (?, ?, ?, 0, 0, '{}', 0)",
        (event.source, event.data["name"], encode(event.data["identity"])),
    )
    connection.execute("INSERT INTO tally VALUES (?, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)", (event.source,))
    update_one(connection, _INCOMPLETE, ())


def _source_closed(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(
        connection,
        "UPDATE source SET closed = 1, closing_proof = ?, proven = ? WHERE id = ?",
        (event.data["proof"], int(event.data["proven"]), event.source),
    )


def _source_reopened(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(
        connection,
        "UPDATE source SET closed = 0, closing_proof = NULL, proven = 0 WHERE id = ?",
        (event.source,),
    )
    update_one(connection, _INCOMPLETE, ())


def _pass_begun(connection: sqlite3.Connection, event: StoredEvent) -> None:
    connection.execute(
        "INSERT INTO segment (id, source, pass, kind, state) VALUES (?, ?, ?, ?, 'open')",
        (event.data["segment"], event.source, event.data["pass"], event.data["kind"]),
    )
    update_one(connection, _INCOMPLETE, ())


def _chunk_sealed(connection: sqlite3.Connection, event: StoredEvent) -> None:
    data = event.data
    lo, hi = data["lo"], data["lo"] + data["n"] - 1
    update_one(
        connection,
        "UPDATE segment SET lo = coalesce(lo, :lo), hi = :hi, frontier = coalesce(frontier, :lo)"
        " WHERE id = :segment AND state = 'open'",
        {"lo": lo, "hi": hi, "segment": data["segment"]},
    )
    connection.execute(
        "INSERT INTO chunk (lo, hi, segment, digest, seq) VALUES (?, ?, ?, ?, ?)",
        (lo, hi, data["segment"], data["sha256"], event.seq),
    )
    update_one(
        connection,
        "UPDATE tally SET planned_rows = planned_rows + ?, planned_bytes = planned_bytes + ? WHERE source = ?",
        (data["n"], data["bytes"], event.source),
    )
    update_one(connection, "UPDATE progress SET planned_hi = ?, completed_seq = NULL", (hi,))


def _segment_sealed(connection: sqlite3.Connection, event: StoredEvent) -> None:
    data = event.data
    update_one(
        connection, "UPDATE segment SET state = 'sealed' WHERE id = ? AND state = 'open'", (data["segment"],)
    )
    update_one(
        connection,
        "UPDATE source SET excluded = ?, unusable = ?, unusable_example = ? WHERE id = ?",
        (encode(data["excluded"]), data["unusable"], data["unusable_example"], event.source),
    )


def _pass_abandoned(connection: sqlite3.Connection, event: StoredEvent) -> None:
    update_one(
        connection,
        "UPDATE segment SET state = 'abandoned' WHERE id = ? AND state = 'open'",
        (event.data["segment"],),
    )


PLAN_FOLDS: dict[str, Callable[[sqlite3.Connection, StoredEvent], None]] = {
    Kind.MIGRATION_CREATED: _migration_created,
    Kind.CUTOFF_FIXED: _cutoff_fixed,
    Kind.SESSION_STARTED: _session_started,
    Kind.SESSION_ENDED: _session_ended,
    Kind.MIGRATION_COMPLETED: _migration_completed,
    Kind.SOURCE_ADDED: _source_added,
    Kind.SOURCE_CLOSED: _source_closed,
    Kind.SOURCE_REOPENED: _source_reopened,
    Kind.PASS_BEGUN: _pass_begun,
    Kind.CHUNK_SEALED: _chunk_sealed,
    Kind.SEGMENT_SEALED: _segment_sealed,
    Kind.PASS_ABANDONED: _pass_abandoned,
}
"""What folds each of these kinds of event."""
