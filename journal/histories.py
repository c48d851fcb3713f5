"""The life of single keys, and the objects that a migration answers for: read from plan, log and projections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from journal.events import Kind, StoredEvent, decode
from journal.key_verifications import KeyVerification, key_verifications
from journal.lifecycle import OUTCOME_OF_CODE, KeyState, Outcome, Trigger, advance
from journal.projections import STATE_OF_STRAGGLER

if TYPE_CHECKING:
    import sqlite3

EVENTS_WALKED_MAX = 50_000
"""How far back the claim of a key is sought. The claim window keeps it near the key's next event: what can lie
between them are failed attempts of the other keys in flight, and a sample every 15 s of a pause."""
_COPIES = {Outcome.STORED, Outcome.RECOVERED, Outcome.PRESENT}


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """One planned key from its plan to now.

    Attributes:
        source: the source's name.
        supersedes, superseded_by: ordinals of the same key's earlier and later plan.
        pass_number, pass_kind: the planning pass that found it.
        recoveries: how often a process died with it since it was last requeued.
        outcome: None while it is not settled; `size`, `md5`, `etag`, `version_id` belong to it.
        planned_size: bytes.
        events: everything on record that concerns it, oldest first; data of batches narrowed to this key.
        source_id, identity: the source's id and recorded fingerprint: what its object is called follows from it.
        outcome_seq: the event of the outcome.
        replaced_seq: the event by which a later plan of the key was stored or found present: the bucket holds that
            one's bytes since; None if none was.
        verifications: what has found its object right, oldest first.
    """

    ordinal: int
    source: str
    row_key: str
    created_at: int | None
    planned_size: int
    supersedes: int | None
    superseded_by: int | None
    pass_number: int
    pass_kind: str
    state: KeyState
    recoveries: int
    outcome: Outcome | None
    size: int | None
    md5: str | None
    etag: str | None
    version_id: str | None
    events: tuple[StoredEvent, ...]
    source_id: int = 0
    identity: dict[str, Any] = field(default_factory=dict)
    outcome_seq: int | None = None
    replaced_seq: int | None = None
    verifications: tuple[KeyVerification, ...] = ()

    @property
    def unverified(self) -> bool:
        """Whether an object must be in the bucket that no verification has found right since it was put there."""
        return (
            self.outcome in _COPIES
            and self.replaced_seq is None
            and all(found.outcome_seq != self.outcome_seq for found in self.verifications)
        )


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """An object that must be in the bucket; `etag` is None where it equals `md5`.

    Attributes:
        outcome_seq: the event that says so.
        version_id: on a versioned bucket.
    """

    ordinal: int
    source: int
    row_key: str
    created_at: int | None
    size: int
    md5: str
    etag: str | None
    outcome: Outcome
    outcome_seq: int = 0
    version_id: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectPage:
    """Some expected objects in the order of their outcomes; ask again with `next_after_seq` unless it is None."""

    objects: tuple[ExpectedObject, ...]
    next_after_seq: int | None


def row_keys(connection: sqlite3.Connection, *, after: int, limit: int) -> list[tuple[int, str, int]]:
    """Return ordinals, row keys and sources in processing order, behind the ordinal `after`."""
    return connection.execute(
        "SELECT ordinal, row_key, (SELECT source FROM segment WHERE ordinal BETWEEN lo AND hi)"
        " FROM plan WHERE ordinal > ? ORDER BY ordinal LIMIT ?",
        (after, limit),
    ).fetchall()


def ordinals_of(connection: sqlite3.Connection, row_key: str) -> list[int]:
    """Return every ordinal under which a row key was planned, in any source: by the index, else by a scan."""
    return [
        row[0]
        for row in connection.execute("SELECT ordinal FROM plan WHERE row_key = ? ORDER BY 1", (row_key,))
    ]


def key_history(connection: sqlite3.Connection, ordinal: int) -> KeyHistory:
    """Return the life of one planned key."""
    row_key, created_at, planned, supersedes, source, source_id, identity, number, kind, chunk_seq = (
        connection.execute(
            "SELECT p.row_key, p.created_at, p.size, p.supersedes, s.name, s.id, s.identity, g.pass, g.kind, h.seq"
            " FROM plan p JOIN chunk h ON h.lo = (SELECT max(lo) FROM chunk WHERE lo <= p.ordinal)"
            " JOIN segment g ON g.id = h.segment JOIN source s ON s.id = g.source WHERE p.ordinal = ?",
            (ordinal,),
        ).fetchone()
    )
    later = connection.execute("SELECT min(ordinal) FROM plan WHERE supersedes = ?", (ordinal,)).fetchone()[0]
    straggler = connection.execute(
        "SELECT state, recoveries FROM straggler WHERE ordinal = ?", (ordinal,)
    ).fetchone()
    settled = connection.execute("SELECT code, seq FROM outcome WHERE ordinal = ?", (ordinal,)).fetchone()
    claim = connection.execute("SELECT seq FROM claim WHERE ? BETWEEN lo AND hi", (ordinal,)).fetchone()
    own = [row[0] for row in connection.execute("SELECT seq FROM key_event WHERE ordinal = ?", (ordinal,))]
    entry: list[Any] = []
    state = KeyState.PLANNED
    outcome = None
    if settled:
        outcome = OUTCOME_OF_CODE[settled[0]]
        state = advance(KeyState.IN_FLIGHT, outcome)
        entry = next(row for row in _event(connection, settled[1]).data if row[0] == ordinal)
        own.append(settled[1])
    elif straggler:
        state = STATE_OF_STRAGGLER[straggler[0]]
    elif claim:
        state = advance(KeyState.PLANNED, Trigger.CLAIM)
    first_claim = (
        claim[0] if claim else _claim_between(connection, ordinal, chunk_seq, min(own)) if own else None
    )
    seqs = sorted({chunk_seq, *own} | ({first_claim} if first_claim else set()))
    events = tuple(_narrowed(_event(connection, seq), ordinal) for seq in seqs)
    replaced_seq = None if later is None else _replaced_seq(connection, ordinal)
    detail = [*entry, None, None, None, None]
    return KeyHistory(
        ordinal=ordinal,
        source=source,
        row_key=row_key,
        created_at=created_at,
        planned_size=planned,
        supersedes=supersedes,
        superseded_by=later,
        pass_number=number,
        pass_kind=kind,
        state=state,
        recoveries=straggler[1] if straggler else 0,
        outcome=outcome,
        size=detail[2] if entry else None,
        md5=detail[3] if entry else None,
        etag=detail[4] if entry else None,
        version_id=detail[5] if entry else None,
        events=events,
        source_id=source_id,
        identity=dict(decode(chunk_seq, identity)),
        outcome_seq=settled[1] if settled else None,
        replaced_seq=replaced_seq,
        verifications=key_verifications(
            connection, source=source_id, events=events, replaced_seq=replaced_seq
        ),
    )


def _event(connection: sqlite3.Connection, seq: int) -> StoredEvent:
    row = connection.execute(
        "SELECT seq, ts, kind, version, source, data FROM event WHERE seq = ?", (seq,)
    ).fetchone()
    return StoredEvent(row[0], row[1], row[2], row[3], row[4], decode(seq, row[5]))


def claim_of_frontier(connection: sqlite3.Connection, ordinal: int) -> int | None:
    """Return the event that claimed a key from the frontier; None where it was not, or longer ago than is sought."""
    open_claim = connection.execute("SELECT seq FROM claim WHERE ? BETWEEN lo AND hi", (ordinal,)).fetchone()
    if open_claim is not None:
        return int(open_claim[0])
    (planned_seq,) = connection.execute(
        "SELECT seq FROM chunk WHERE lo = (SELECT max(lo) FROM chunk WHERE lo <= ?)", (ordinal,)
    ).fetchone()
    (first_seq,) = connection.execute(
        "SELECT min(seq) FROM (SELECT seq FROM key_event WHERE ordinal = :ordinal"
        " UNION ALL SELECT seq FROM outcome WHERE ordinal = :ordinal)",
        {"ordinal": ordinal},
    ).fetchone()
    return None if first_seq is None else _claim_between(connection, ordinal, planned_seq, first_seq)


def _claim_between(connection: sqlite3.Connection, ordinal: int, planned_seq: int, seq: int) -> int | None:
    """Return the event that claimed a key from the frontier, between its plan and the first event that names it."""
    row = connection.execute(
        "SELECT seq FROM event WHERE seq > ? AND seq < ? AND kind = ?"
        " AND data ->> 'lo' <= ? AND data ->> 'hi' >= ? ORDER BY seq DESC LIMIT 1",
        (max(planned_seq, seq - EVENTS_WALKED_MAX), seq, Kind.KEYS_CLAIMED.value, ordinal, ordinal),
    ).fetchone()
    return None if row is None else int(row[0])


def _narrowed(event: StoredEvent, ordinal: int) -> StoredEvent:
    """Return a batch event with what concerns one key only."""
    data = event.data
    if event.kind == Kind.OUTCOMES_RECORDED:
        entry = [*next(row for row in data if row[0] == ordinal), None, None]
        data = {
            "ordinal": ordinal,
            "outcome": OUTCOME_OF_CODE[entry[1]].value,
            "size": entry[2],
            "md5": entry[3],
            "etag": entry[4],
            "version_id": entry[5],
        }
    elif isinstance(data, dict) and "ordinals" in data:
        data = {**{field: value for field, value in data.items() if field != "ordinals"}, "ordinal": ordinal}
        if event.kind == Kind.OBJECTS_DELETED:
            data = {field: value for field, value in data.items() if field not in {"bytes", "versions"}}
        if event.kind == Kind.FINDING_RECORDED and isinstance(data.get("findings"), list):
            data["findings"] = [finding for finding in data["findings"] if ordinal in finding]
    return event._replace(data=data)


def expected_objects(
    connection: sqlite3.Connection, *, after_seq: int, head_seq: int, limit: int
) -> ObjectPage:
    """Return stored and present keys whose outcome event lies in (after_seq, head_seq], whole events at a time.

    Left out are keys whose outcome was revoked, and keys that were planned again and whose later plan is stored or
    present: the bucket holds that one's bytes. A page ends where it has come across `limit` outcomes of whatever
    kind: millions of skipped keys must not be one read.
    """
    objects: list[ExpectedObject] = []
    last = None
    passed = 0
    for seq, source, text in connection.execute(
        "SELECT seq, source, data FROM event WHERE seq > ? AND seq <= ? AND kind = ? ORDER BY seq",
        (after_seq, head_seq, Kind.OUTCOMES_RECORDED.value),
    ):
        places = {
            ordinal: (row_key, created_at)
            for ordinal, row_key, created_at, again in connection.execute(
                "SELECT p.ordinal, p.row_key, p.created_at, EXISTS (SELECT 1 FROM plan n WHERE n.supersedes = p.ordinal)"
                " FROM json_each(?) e CROSS JOIN plan p ON p.ordinal = e.value ->> 0"
                " CROSS JOIN outcome o ON o.ordinal = p.ordinal AND o.seq = ?",
                (text, seq),
            )
            if not (again and replaced(connection, ordinal))
        }
        outcomes = decode(seq, text)
        objects += [
            ExpectedObject(
                ordinal=row[0],
                source=source,
                row_key=places[row[0]][0],
                created_at=places[row[0]][1],
                size=row[2],
                md5=row[3],
                etag=row[4] if len(row) > 4 else None,
                outcome=OUTCOME_OF_CODE[row[1]],
                outcome_seq=seq,
                version_id=row[5] if len(row) > 5 else None,
            )
            for row in outcomes
            if row[1] in {"S", "R", "P"} and row[0] in places
        ]
        passed += len(outcomes)
        if passed >= limit:
            last = seq
            break
    return ObjectPage(tuple(objects), last)


def replaced(connection: sqlite3.Connection, ordinal: int) -> bool:
    """Say whether a later plan of the key is, or once was, stored or present: the bucket holds that one's bytes.

    A revoked outcome of a later plan counts too: what was written under the key does not come back with it.
    """
    return _replaced_seq(connection, ordinal) is not None


def _replaced_seq(connection: sqlite3.Connection, ordinal: int) -> int | None:
    # Of outcomes, only those that were revoked are indexed by key.
    (found,) = connection.execute(
        "WITH RECURSIVE later (ordinal) AS (SELECT ordinal FROM plan WHERE supersedes = ?"
        " UNION SELECT p.ordinal FROM plan p JOIN later l ON p.supersedes = l.ordinal)"
        " SELECT min(seq) FROM (SELECT o.seq FROM later l JOIN outcome o ON o.ordinal = l.ordinal"
        " WHERE o.code IN ('S', 'R', 'P') UNION ALL SELECT k.seq FROM later l JOIN key_event k"
        " ON k.ordinal = l.ordinal JOIN event v ON v.seq = k.seq WHERE v.kind = ?)",
        (ordinal, Kind.OUTCOMES_RECORDED.value),
    ).fetchone()
    return None if found is None else int(found)
