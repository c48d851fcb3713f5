"""How many attempts failed and how many were repeated, of all sessions: a frozen value, and the query for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.projections import PARK_OPERATION

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True, slots=True)
class AttemptCounts:
    """Attempts of one operation that failed in one way; after `retried` of the `failed` another one followed."""

    source: str
    operation: str
    failure: str
    failed: int
    retried: int


def attempt_counts(connection: sqlite3.Connection) -> tuple[AttemptCounts, ...]:
    """Return every class of failed attempts of every source; parking is no attempt."""
    return tuple(
        AttemptCounts(*row)
        for row in connection.execute(
            "SELECT s.name, f.operation, f.failure, f.count, coalesce(r.count, 0)"
            " FROM failure f JOIN source s ON s.id = f.source LEFT JOIN retry r"
            " ON r.source = f.source AND r.operation = f.operation AND r.failure = f.failure"
            " WHERE f.operation <> ? ORDER BY s.id, f.operation, f.failure",
            (PARK_OPERATION,),
        )
    )
