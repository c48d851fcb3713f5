"""Questions that the writer and the readers ask alike: pure SQL over an open connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

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
        connection.execute("SELECT source, sum(hi + 1 - frontier) FROM segment WHERE lo IS NOT NULL GROUP BY source")
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
