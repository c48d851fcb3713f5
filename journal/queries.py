"""Questions that the writer and the readers ask alike: pure SQL over an open connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from journal.checkpoint import Checkpoint, Order, Position, SegmentView, derive
from journal.entries import SourceCounts, SourceRecord

if TYPE_CHECKING:
    import sqlite3

_TALLIES = (
    "planned_rows",
    "planned_bytes",
    "stored",
    "recovered",
    "present",
    "skipped",
    "vanished",
    "stored_bytes",
    "present_bytes",
    "settled_bytes",
)


def sources(connection: sqlite3.Connection) -> dict[str, SourceRecord]:
    """Return every source by name, in the order in which they were added."""
    return {
        name: SourceRecord(identifier, name, json.loads(identity), bool(closed), proof, bool(proven))
        for identifier, name, identity, closed, proof, proven in connection.execute(
            "SELECT id, name, identity, closed, closing_proof, proven FROM source ORDER BY id"
        )
    }


def counts(connection: sqlite3.Connection) -> dict[str, SourceCounts]:
    """Return where the keys of each source stand, from tallies and small tables: no walk over keys."""
    in_flight = dict(connection.execute("SELECT source, sum(left) FROM claim GROUP BY source"))
    stragglers: dict[tuple[int, str], int] = {
        (source, state): number
        for source, state, number in connection.execute(
            "SELECT source, state, count(*) FROM straggler GROUP BY source, state"
        )
    }
    unclaimed = dict(
        connection.execute(
            "SELECT source, sum(hi + 1 - frontier) FROM segment WHERE lo IS NOT NULL GROUP BY source"
        )
    )
    found: dict[str, SourceCounts] = {}
    for source, name, excluded, unusable, *tally in connection.execute(
        f"SELECT s.id, s.name, s.excluded, s.unusable, {', '.join(_TALLIES)}"  # noqa: S608 -- our own column names
        " FROM source s JOIN tally t ON t.source = s.id ORDER BY s.id"
    ):
        found[name] = SourceCounts(
            **dict(zip(_TALLIES, tally, strict=True)),
            parked=stragglers.get((source, "parked"), 0),
            in_flight=in_flight.get(source, 0) + stragglers.get((source, "claimed"), 0),
            pending=stragglers.get((source, "waiting"), 0),
            unclaimed=unclaimed.get(source, 0),
            excluded=json.loads(excluded),
            unusable=unusable,
        )
    return found


def checkpoints(connection: sqlite3.Connection, order: Order) -> dict[str, Checkpoint]:
    """Return the safe checkpoint of each source; a few look-ups per segment, whatever the number of keys."""
    return {name: _checkpoint(connection, record, order) for name, record in sources(connection).items()}


def _checkpoint(connection: sqlite3.Connection, source: SourceRecord, order: Order) -> Checkpoint:
    segments = connection.execute(
        "SELECT state, lo, hi, frontier FROM segment WHERE source = ? ORDER BY id", (source.id,)
    ).fetchall()
    views = [
        SegmentView(lo, hi, _first_unsettled(connection, lo, hi, frontier))
        for _, lo, hi, frontier in segments
        if lo is not None
    ]
    (parked,) = connection.execute(
        "SELECT count(*) FROM straggler WHERE source = ? AND state = 'parked'", (source.id,)
    ).fetchone()

    def position_of(ordinal: int) -> Position:
        return Position(
            *connection.execute(
                "SELECT created_at, row_key FROM plan WHERE ordinal = ?", (ordinal,)
            ).fetchone()
        )

    def is_parked(ordinal: int) -> bool:
        row = connection.execute("SELECT state FROM straggler WHERE ordinal = ?", (ordinal,)).fetchone()
        return row is not None and row[0] == "parked"

    return derive(
        order,
        views,
        position_of,
        sealed=any(state == "sealed" for state, *_ in segments)
        and not any(state == "open" and lo is not None for state, lo, *_ in segments),
        closed=source.closed,
        parked=parked,
        is_parked=is_parked,
    )


def _first_unsettled(connection: sqlite3.Connection, lo: int, hi: int, frontier: int) -> int | None:
    """Return the least unsettled ordinal of a segment: in its first open claim, off the frontier, or the frontier.

    Claims are disjoint and each holds an unsettled key, so only the first can hold the least.
    """
    found = [frontier] if frontier <= hi else []
    (straggler,) = connection.execute(
        "SELECT min(ordinal) FROM straggler WHERE ordinal BETWEEN ? AND ?", (lo, hi)
    ).fetchone()
    if straggler is not None:
        found.append(straggler)
    claim = connection.execute(
        "SELECT lo, hi FROM claim WHERE lo BETWEEN ? AND ? ORDER BY lo LIMIT 1", (lo, hi)
    ).fetchone()
    if claim is not None:
        (ordinal,) = connection.execute(
            "SELECT p.ordinal FROM plan p LEFT JOIN outcome o ON o.ordinal = p.ordinal"
            " WHERE p.ordinal BETWEEN ? AND ? AND o.ordinal IS NULL ORDER BY p.ordinal LIMIT 1",
            claim,
        ).fetchone()
        found.append(ordinal)
    return min(found) if found else None
