"""Objects that a migration created, as an undo needs them: those it answers for, and those it may have left half undone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from journal.events import Kind, decode
from journal.histories import ExpectedObject, expected_objects, ordinals_of, replaced
from journal.lifecycle import OUTCOME_OF_CODE, UNDONE

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True)
class CreatedObject:
    """An object as its outcome has it.

    Attributes:
        recorded: from the outcome; its `outcome` is present where the object is another's.
        outcome_us: when the outcome was recorded, microseconds since 1970-01-01 UTC.
        undone: the outcome was revoked for an undo, and nothing on record says that the object is gone.
    """

    recorded: ExpectedObject
    outcome_us: int
    undone: bool = False


@dataclass(frozen=True, slots=True)
class CreatedPage:
    """Some created objects; ask again behind `next_after` unless it is None."""

    objects: tuple[CreatedObject, ...]
    next_after: int | None


def expected_page(connection: sqlite3.Connection, *, after_seq: int, limit: int) -> CreatedPage:
    """Return stored and present keys behind an outcome event, whole events at a time, `limit` keys or a few more."""
    (head_seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    page = expected_objects(connection, after_seq=after_seq, head_seq=head_seq, limit=limit)
    return CreatedPage(_dated(connection, page.objects), page.next_after_seq)


def undone_page(
    connection: sqlite3.Connection, source: int, *, until_seq: int, after_ordinal: int, limit: int
) -> CreatedPage:
    """Return keys of a source, undone by event `until_seq`, without word that their object is gone; by ordinal.

    Whoever revoked them may have died before it deleted anything, or met an object that could not be deleted.
    """
    ordinals = [
        row[0]
        for row in connection.execute(
            "SELECT s.ordinal FROM straggler s WHERE s.source = ? AND s.state = 'parked' AND s.failure = ?"
            " AND s.ordinal > ? AND s.seq <= ? AND NOT EXISTS (SELECT 1 FROM key_event k JOIN event v ON v.seq = k.seq"
            " WHERE k.ordinal = s.ordinal AND k.seq > s.seq AND v.kind = ?) ORDER BY s.ordinal LIMIT ?",
            (source, UNDONE, after_ordinal, until_seq, Kind.OBJECTS_DELETED.value, limit),
        )
    ]
    return CreatedPage(
        tuple(_undone(connection, source, ordinals)), ordinals[-1] if len(ordinals) == limit else None
    )


def of_row_keys(connection: sqlite3.Connection, row_keys: Sequence[str]) -> tuple[CreatedObject, ...]:
    """Return what `expected_page` and `undone_page` hold of some row keys, in any source, by ordinal.

    By the index of row keys, or by a scan of the plan for each where there is none.
    """
    found: list[CreatedObject] = []
    for ordinal in sorted({ordinal for key in row_keys for ordinal in ordinals_of(connection, key)}):
        settled = connection.execute("SELECT seq FROM outcome WHERE ordinal = ?", (ordinal,)).fetchone()
        parked = connection.execute(
            "SELECT source, seq FROM straggler WHERE ordinal = ? AND state = 'parked' AND failure = ?",
            (ordinal, UNDONE),
        ).fetchone()
        if settled:
            page = expected_objects(connection, after_seq=settled[0] - 1, head_seq=settled[0], limit=1)
            found += _dated(connection, [one for one in page.objects if one.ordinal == ordinal])
        elif parked:
            source, seq = parked
            undone = undone_page(connection, source, until_seq=seq, after_ordinal=ordinal - 1, limit=1)
            found += [one for one in undone.objects if one.recorded.ordinal == ordinal]
    return tuple(found)


def unplanned_row_keys(connection: sqlite3.Connection, row_keys: Iterable[str]) -> list[str]:
    """Return those of some row keys that no source has planned."""
    return [key for key in row_keys if not ordinals_of(connection, key)]


def _dated(connection: sqlite3.Connection, objects: Sequence[ExpectedObject]) -> tuple[CreatedObject, ...]:
    times = dict(
        connection.execute(
            "SELECT v.seq, v.ts FROM json_each(?) e CROSS JOIN event v ON v.seq = e.value",
            (json.dumps(sorted({one.outcome_seq for one in objects})),),
        )
    )
    return tuple(CreatedObject(one, times[one.outcome_seq]) for one in objects)


def _undone(connection: sqlite3.Connection, source: int, ordinals: Sequence[int]) -> Iterable[CreatedObject]:
    """Yield keys with the outcome that was revoked last; its event stays indexed under the key."""
    outcomes: dict[int, tuple[int, dict[int, list[Any]]]] = {}
    for ordinal, row_key, created_at, seq in connection.execute(
        "SELECT p.ordinal, p.row_key, p.created_at, (SELECT max(k.seq) FROM key_event k JOIN event v"
        " ON v.seq = k.seq WHERE k.ordinal = p.ordinal AND v.kind = ?)"
        " FROM json_each(?) e CROSS JOIN plan p ON p.ordinal = e.value",
        (Kind.OUTCOMES_RECORDED.value, json.dumps(list(ordinals))),
    ).fetchall():
        if replaced(connection, ordinal):
            continue
        if seq not in outcomes:
            ts_us, text = connection.execute("SELECT ts, data FROM event WHERE seq = ?", (seq,)).fetchone()
            outcomes[seq] = (ts_us, {row[0]: row for row in decode(seq, text)})
        ts_us, rows = outcomes[seq]
        _, code, size, md5, etag, version_id, *_ = [*rows[ordinal], None, None]
        yield CreatedObject(
            ExpectedObject(
                ordinal=ordinal,
                source=source,
                row_key=row_key,
                created_at=created_at,
                size=size,
                md5=md5,
                etag=etag,
                outcome=OUTCOME_OF_CODE[code],
                outcome_seq=seq,
                version_id=version_id,
            ),
            ts_us,
            undone=True,
        )
