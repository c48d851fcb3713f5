"""What taking an outcome back means for the projections, and which keys it once happened to."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from journal.entries import Revocation
from journal.events import Kind, encode
from journal.lifecycle import OUTCOME_OF_CODE, UNDONE, KeyState, Trigger, advance
from journal.plan_projections import update_one

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from journal.events import StoredEvent

_TRIGGERS = {Revocation.REPAIR: Trigger.REDRIVE, Revocation.UNDO: Trigger.UNDO}
_STRAGGLERS = {Revocation.REPAIR: ("waiting", None), Revocation.UNDO: ("parked", UNDONE)}


def once_revoked(connection: sqlite3.Connection, ordinals: Sequence[int]) -> frozenset[int]:
    """Return those of some keys off the frontier that had an outcome which was revoked."""
    return frozenset(
        row[0]
        for row in connection.execute(
            "SELECT k.ordinal FROM json_each(?) e CROSS JOIN key_event k ON k.ordinal = e.value"
            " CROSS JOIN event v ON v.seq = k.seq AND v.kind = ?",
            (encode(list(ordinals)), Kind.OUTCOMES_REVOKED.value),
        )
    )


def _outcomes_revoked(connection: sqlite3.Connection, event: StoredEvent) -> None:
    """Make settled keys stragglers; the event of the outcome that they had is indexed under them from now on."""
    ordinals, cause = event.data["ordinals"], Revocation(event.data["cause"])
    rows = connection.execute(
        "SELECT o.ordinal, o.code, o.seq, p.size, coalesce(o.size, p.size) FROM json_each(?) e"
        " CROSS JOIN outcome o ON o.ordinal = e.value CROSS JOIN plan p ON p.ordinal = o.ordinal",
        (encode(ordinals),),
    ).fetchall()
    if len(rows) != len(ordinals):
        raise KeyError("an outcome revoked that is not there")
    lost = Counter(row[1] for row in rows)
    for code in lost:
        advance(advance(KeyState.IN_FLIGHT, OUTCOME_OF_CODE[code]), _TRIGGERS[cause])
    connection.executemany("DELETE FROM outcome WHERE ordinal = ?", [(row[0],) for row in rows])
    connection.executemany(
        "INSERT INTO straggler (ordinal, source, state, recoveries, failure, seq) VALUES (?, ?, ?, 0, ?, ?)",
        [(row[0], event.source, *_STRAGGLERS[cause], event.seq) for row in rows],
    )
    update_one(
        connection,
        "UPDATE tally SET stored = stored - :S, recovered = recovered - :R, present = present - :P,"
        " stored_bytes = stored_bytes - :stored_bytes, present_bytes = present_bytes - :present_bytes,"
        " settled_bytes = settled_bytes - :settled_bytes WHERE source = :source",
        {
            **{code: lost[code] for code in "SRP"},
            "stored_bytes": sum(row[4] for row in rows if row[1] in "SR"),
            "present_bytes": sum(row[4] for row in rows if row[1] == "P"),
            "settled_bytes": sum(row[3] for row in rows),
            "source": event.source,
        },
    )
    update_one(connection, "UPDATE progress SET completed_seq = NULL", ())
    connection.executemany(
        "INSERT INTO key_event (ordinal, seq) VALUES (?, ?)",
        [pair for row in rows for pair in ((row[0], row[2]), (row[0], event.seq))],
    )


REVOCATION_FOLDS: dict[str, Callable[[sqlite3.Connection, StoredEvent], None]] = {
    Kind.OUTCOMES_REVOKED: _outcomes_revoked
}
"""What folds each of these kinds of event."""
