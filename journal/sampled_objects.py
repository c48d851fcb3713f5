"""Draw some of the objects that a migration answers for, and read them; by look-ups, not by a walk over all."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

from journal.events import decode, encode
from journal.histories import ExpectedObject, replaced
from journal.lifecycle import OUTCOME_OF_CODE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Sequence

OBJECTS_LISTED_MAX = 1_000_000
"""Up to so many objects, all are listed to draw from; beyond, ordinals are drawn until enough of them fit."""
DRAWS_PER_QUERY = 5000
"""Ordinals looked up at once."""


def draw(
    connection: sqlite3.Connection, *, seed: int, keys: int, until_seq: int, sources: Collection[int]
) -> list[int]:
    """Return up to `keys` ordinals of stored and present keys, each equally likely, in ascending order.

    The same seed on the same journal draws the same keys. Where fewer answer to the description, all are returned.

    Args:
        connection: to a journal whose projections are up.
        seed: of the draw.
        keys: how many.
        until_seq: only outcomes recorded up to this event.
        sources: only of these.
    """
    found: list[int] = []
    for tried in _drawn(connection, sources, Random(seed)):  # noqa: S311 -- a sample, not a secret
        fit = {
            ordinal
            for ordinal, again in connection.execute(
                "SELECT o.ordinal, EXISTS (SELECT 1 FROM plan n WHERE n.supersedes = o.ordinal)"
                " FROM json_each(?) e CROSS JOIN outcome o ON o.ordinal = e.value"
                " WHERE o.seq <= ? AND o.code IN ('S', 'R', 'P')",
                (encode(tried), until_seq),
            )
            if not (again and replaced(connection, ordinal))
        }
        found += [ordinal for ordinal in tried if ordinal in fit][: keys - len(found)]
        if len(found) >= keys:
            break
    return sorted(found)


def _drawn(connection: sqlite3.Connection, sources: Collection[int], random: Random) -> Iterator[list[int]]:
    """Yield ordinals of some sources in random order, none twice, until none with an object is left."""
    wanted = encode(sorted(sources))
    (objects,) = connection.execute(
        "SELECT coalesce(sum(stored + recovered + present), 0) FROM tally"
        " WHERE source IN (SELECT value FROM json_each(?))",
        (wanted,),
    ).fetchone()
    # A small source must not be sought among the ordinals of large ones.
    chunks = connection.execute(
        "SELECT h.lo, h.hi FROM chunk h JOIN segment g ON g.id = h.segment"
        " WHERE g.source IN (SELECT value FROM json_each(?)) ORDER BY h.lo",
        (wanted,),
    ).fetchall()
    if objects <= OBJECTS_LISTED_MAX:
        ordinals = [
            ordinal
            for lo, hi in chunks
            for (ordinal,) in connection.execute(
                "SELECT ordinal FROM outcome WHERE ordinal BETWEEN ? AND ? AND code IN ('S', 'R', 'P')"
                " ORDER BY ordinal",
                (lo, hi),
            )
        ]
        random.shuffle(ordinals)
        for first in range(0, len(ordinals), DRAWS_PER_QUERY):
            yield ordinals[first : first + DRAWS_PER_QUERY]
        return
    ends = list(accumulate(hi - lo + 1 for lo, hi in chunks))
    seen: set[int] = set()
    while len(seen) < ends[-1]:
        tried = {random.randrange(ends[-1]) for _ in range(DRAWS_PER_QUERY)} - seen
        seen |= tried
        places = sorted(tried)
        random.shuffle(places)
        yield [_ordinal(chunks, ends, place) for place in places]


def _ordinal(chunks: Sequence[tuple[int, int]], ends: Sequence[int], place: int) -> int:
    """Return the ordinal at a place among those of all chunks, which end before these places."""
    chunk = bisect_right(ends, place)
    return chunks[chunk][1] + 1 - (ends[chunk] - place)


def objects_of(connection: sqlite3.Connection, ordinals: Sequence[int]) -> list[ExpectedObject]:
    """Return the objects of some stored and present keys; those that have lost that outcome are left out."""
    by_event: dict[int, dict[int, tuple[str, int | None, int]]] = {}
    for ordinal, seq, row_key, created_at, source in connection.execute(
        "SELECT o.ordinal, o.seq, p.row_key, p.created_at, v.source FROM json_each(?) e"
        " CROSS JOIN outcome o ON o.ordinal = e.value CROSS JOIN plan p ON p.ordinal = o.ordinal"
        " CROSS JOIN event v ON v.seq = o.seq WHERE o.code IN ('S', 'R', 'P')",
        (encode(list(ordinals)),),
    ):
        by_event.setdefault(seq, {})[ordinal] = (row_key, created_at, source)
    found = []
    for seq, wanted in sorted(by_event.items()):
        (text,) = connection.execute("SELECT data FROM event WHERE seq = ?", (seq,)).fetchone()
        for row in decode(seq, text):
            if row[0] not in wanted:
                continue
            row_key, created_at, source = wanted[row[0]]
            found.append(
                ExpectedObject(
                    ordinal=row[0],
                    source=source,
                    row_key=row_key,
                    created_at=created_at,
                    size=row[2],
                    md5=row[3],
                    etag=row[4] if len(row) > 4 else None,
                    outcome=OUTCOME_OF_CODE[row[1]],
                    outcome_seq=seq,
                    version_id=row[5] if len(row) > 5 else None,
                )
            )
    return found
