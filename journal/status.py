"""What a migration looks like from outside: frozen values, derived from the journal alone."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from journal import control_status, queries
from journal.checkpoint import Checkpoint, Order
from journal.control_status import Sample, SlowDown
from journal.entries import SourceCounts
from journal.events import Kind, decode
from journal.lock import Owner
from journal.projections import PARK_OPERATION
from journal.verification_runs import newest_of_each_tier

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping, Sequence

    from journal.entries import SourceRecord

FAILURES_SHOWN_MAX = 5
"""Most failures shown per source, the most frequent first."""


class MigrationState(StrEnum):
    """What the migration is doing, or how its last session ended."""

    PLANNING = "planning"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPED = "stopped"
    HALTED = "halted"
    KILLED = "killed"
    COMPLETE = "complete"
    COMPLETE_WITH_PARKED = "complete_with_parked"


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """The newest session; the fields about its end are None while it has none on record.

    Attributes:
        facts: pid, host, version, user and settings, as recorded.
    """

    number: int
    started_us: int
    facts: dict[str, Any]
    ended_us: int | None = None
    reason: str | None = None
    exit_code: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class PassStatus:
    """One planning pass: its number, kind ("sweep", "snapshot"), state ("open", "sealed", "abandoned") and rows."""

    number: int
    kind: str
    state: str
    rows: int


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """A class of failures: how often it happened, and the row key and time of the newest one."""

    operation: str
    failure: str
    count: int
    example_key: str
    last_us: int
    message: str


@dataclass(frozen=True, slots=True)
class ParkedStatus:
    """Keys parked now for one reason; `example_key` and `message` are of the newest."""

    failure: str
    count: int
    example_key: str
    message: str


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """Where one source stands.

    Attributes:
        probe: data of the source's newest `probe_recorded`.
        endpoint: data of its newest `endpoint_probed`.
        last_outcome_us: when an outcome of it was last recorded.
        failures: failed attempts by frequency, FAILURES_SHOWN_MAX at most, settled keys' included.
        parked: keys parked now, by reason.
    """

    id: int
    name: str
    identity: dict[str, Any]
    counts: SourceCounts
    checkpoint: Checkpoint
    passes: tuple[PassStatus, ...]
    closed: bool
    closing_proof: str | None
    proven: bool
    unusable_example: str | None
    probe: dict[str, Any] | None
    failures: tuple[FailureStatus, ...]
    parked: tuple[ParkedStatus, ...]
    last_outcome_us: int | None = None
    endpoint: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class NoteStatus:
    """The newest event of some kind."""

    ts_us: int
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """The whole migration at one moment.

    Attributes:
        owner: who holds the journal now; None if nobody does.
        head_seq, last_event_us: the newest event.
        halt: why the newest session halted, if it did.
        probe: the newest `probe_recorded` that names no source.
        verifications: the newest finished one of each tier, the newest first.
        server: the newest PostgreSQL server recorded or accepted.
        settings: the newest `settings_changed`: what the newest session that differed runs with.
        pause: the operator's pause in force: who and when.
        tunables: the newest `tunables_set`, with everything an operator has set.
        throttle: the `throttle_began` of the newest session that has no end yet.
        spent_ms: where the sessions' time went, by cause.
        samples: the newest, oldest first, SAMPLES_SHOWN_MAX of each source at most.
        concurrency: the newest `concurrency_changed` of the newest session.
        first_samples: those of the first moment: together with `spent_ms` they give an average of all sessions.
    """

    name: str
    created_us: int
    cutoff_us: int | None
    order: Order
    state: MigrationState
    owner: Owner | None
    session: SessionStatus | None
    head_seq: int
    last_event_us: int
    completed_us: int | None
    sources: tuple[SourceStatus, ...]
    halt: NoteStatus | None
    probe: NoteStatus | None
    server: NoteStatus | None
    verifications: tuple[NoteStatus, ...] = ()
    pause: NoteStatus | None = None
    tunables: NoteStatus | None = None
    throttle: NoteStatus | None = None
    spent_ms: dict[str, int] = field(default_factory=dict)
    slow_downs: tuple[SlowDown, ...] = ()
    samples: tuple[Sample, ...] = ()
    first_samples: tuple[Sample, ...] = ()
    settings: NoteStatus | None = None
    concurrency: NoteStatus | None = None


def derive_state(  # noqa: PLR0911 -- a decision table reads best as one
    *,
    alive: bool,
    session_open: bool,
    completed: bool,
    draining: bool,
    halted: bool,
    paused: bool,
    pass_open: bool,
    counts: list[SourceCounts],
) -> MigrationState:
    """Return the state in one word; pure.

    Args:
        alive: the newest session's process holds the lock.
        session_open: the newest session has no end on record.
        completed: every key was found settled, and nothing was added since.
        draining: a drain or a cancel is on record in the newest session.
        halted: a halt is.
        paused: an operator's pause is in force.
        pass_open: some source has a planning pass open.
        counts: of every source.
    """
    if completed:
        return MigrationState.COMPLETE
    if alive and session_open:
        if draining:
            return MigrationState.DRAINING
        if paused:
            return MigrationState.PAUSED
        planning = pass_open and not any(count.in_flight for count in counts)
        return MigrationState.PLANNING if planning else MigrationState.RUNNING
    if session_open:
        return MigrationState.KILLED
    if halted:
        return MigrationState.HALTED
    parked = sum(count.parked for count in counts)
    left = sum(count.in_flight + count.pending + count.unclaimed for count in counts)
    if parked and not left and not pass_open:
        return MigrationState.COMPLETE_WITH_PARKED
    return MigrationState.STOPPED


def works_in(owner: Owner | None, facts: Mapping[str, Any]) -> bool:
    """Say whether the holder of the journal is the process of the session with these facts, as far as they tell.

    Another process holds it while it starts after that one has died, or for a command of its own.
    """
    if owner is None:
        return False
    return not owner.pid or (facts.get("pid", owner.pid), facts.get("host", owner.host)) == (
        owner.pid,
        owner.host,
    )


def migration_status(connection: sqlite3.Connection, owner: Owner | None) -> MigrationStatus:
    """Return the status that the projections of `connection` give, within the caller's one transaction."""
    head_seq, name, order, cutoff_us, created_us, session_seq, ended_seq, completed_seq = connection.execute(
        "SELECT projected_seq, name, order_name, cutoff, created, session_seq, session_ended_seq, completed_seq"
        " FROM progress"
    ).fetchone()
    latest = {
        (kind, source): seq
        for kind, source, seq in connection.execute("SELECT kind, source, seq FROM latest")
    }

    def in_session(kind: Kind) -> bool:
        return session_seq is not None and latest.get((kind.value, 0), 0) > session_seq

    def newest(*kinds: Kind) -> NoteStatus | None:
        seq = max(latest.get((kind.value, 0), 0) for kind in kinds)
        return _note(connection, seq) if seq else None

    def in_force(began: Kind, ended: Kind) -> bool:
        return bool(latest.get((began.value, 0), 0) > latest.get((ended.value, 0), 0))

    counts = queries.counts(connection)
    checkpoints = queries.checkpoints(connection, Order(order))
    sources = tuple(
        _source_status(
            connection,
            record,
            counts[key],
            checkpoints[key],
            [latest.get((kind.value, record.id)) for kind in (Kind.PROBE_RECORDED, Kind.ENDPOINT_PROBED)],
        )
        for key, record in queries.sources(connection).items()
    )
    session = _session(connection, session_seq, ended_seq)
    state = derive_state(
        alive=session is not None and works_in(owner, session.facts),
        session_open=session_seq is not None and ended_seq is None,
        completed=completed_seq is not None,
        draining=in_session(Kind.DRAIN_REQUESTED) or in_session(Kind.CANCELLED),
        halted=in_session(Kind.HALTED),
        paused=in_force(Kind.PAUSED, Kind.RESUMED),
        pass_open=any(item.state == "open" for source in sources for item in source.passes),
        counts=list(counts.values()),
    )
    return MigrationStatus(
        name=name,
        created_us=created_us,
        cutoff_us=cutoff_us,
        order=Order(order),
        state=state,
        owner=owner,
        session=session,
        head_seq=head_seq,
        last_event_us=_note(connection, head_seq).ts_us,
        completed_us=None if completed_seq is None else _note(connection, completed_seq).ts_us,
        sources=sources,
        halt=newest(Kind.HALTED) if in_session(Kind.HALTED) else None,
        probe=newest(Kind.PROBE_RECORDED),
        verifications=tuple(_note(connection, seq) for seq in newest_of_each_tier(connection)),
        server=newest(Kind.SERVER_RECORDED, Kind.SERVER_ACCEPTED),
        pause=newest(Kind.PAUSED) if in_force(Kind.PAUSED, Kind.RESUMED) else None,
        tunables=newest(Kind.TUNABLES_SET),
        throttle=newest(Kind.THROTTLE_BEGAN)
        if in_session(Kind.THROTTLE_BEGAN) and in_force(Kind.THROTTLE_BEGAN, Kind.THROTTLE_ENDED)
        else None,
        spent_ms=control_status.spent_ms(connection),
        slow_downs=control_status.slow_downs(connection),
        samples=control_status.samples(connection, sources=len(sources)),
        first_samples=control_status.first_samples(connection),
        settings=newest(Kind.SETTINGS_CHANGED),
        concurrency=newest(Kind.CONCURRENCY_CHANGED) if in_session(Kind.CONCURRENCY_CHANGED) else None,
    )


def _note(connection: sqlite3.Connection, seq: int) -> NoteStatus:
    ts_us, text = connection.execute("SELECT ts, data FROM event WHERE seq = ?", (seq,)).fetchone()
    return NoteStatus(ts_us, decode(seq, text))


def _session(connection: sqlite3.Connection, started: int | None, ended: int | None) -> SessionStatus | None:
    if started is None:
        return None
    start = _note(connection, started)
    number, facts = start.data["session"], start.data["facts"]
    if ended is None:
        return SessionStatus(number, start.ts_us, facts)
    end = _note(connection, ended)
    return SessionStatus(
        number, start.ts_us, facts, end.ts_us, end.data["reason"], end.data["exit_code"], end.data["message"]
    )


def _source_status(
    connection: sqlite3.Connection,
    record: SourceRecord,
    counts: SourceCounts,
    checkpoint: Checkpoint,
    probe_seqs: Sequence[int | None],
) -> SourceStatus:
    probe, endpoint = (None if seq is None else _note(connection, seq).data for seq in probe_seqs)
    unusable_example, last_outcome_us = connection.execute(
        "SELECT unusable_example, ts FROM source LEFT JOIN movement ON movement.source = id WHERE id = ?",
        (record.id,),
    ).fetchone()
    return SourceStatus(
        id=record.id,
        name=record.name,
        identity=record.identity,
        counts=counts,
        checkpoint=checkpoint,
        passes=tuple(
            PassStatus(*row)
            for row in connection.execute(
                "SELECT pass, kind, state, coalesce(hi + 1 - lo, 0) FROM segment WHERE source = ? ORDER BY id",
                (record.id,),
            )
        ),
        closed=record.closed,
        closing_proof=record.closing_proof,
        proven=record.proven,
        unusable_example=unusable_example,
        probe=probe,
        endpoint=endpoint,
        failures=_failures(connection, record.id),
        parked=_parked(connection, record.id),
        last_outcome_us=last_outcome_us,
    )


def _failures(connection: sqlite3.Connection, source: int) -> tuple[FailureStatus, ...]:
    return tuple(
        FailureStatus(operation, failure, count, row_key, ts_us, str(json.loads(text).get("message", "")))
        for operation, failure, count, row_key, ts_us, text in connection.execute(
            "SELECT f.operation, f.failure, f.count, p.row_key, e.ts, e.data FROM failure f"
            " JOIN plan p ON p.ordinal = f.example JOIN event e ON e.seq = f.seq"
            " WHERE f.source = ? AND f.operation <> ? ORDER BY f.count DESC, f.seq DESC LIMIT ?",
            (source, PARK_OPERATION, FAILURES_SHOWN_MAX),
        )
    )


def _parked(connection: sqlite3.Connection, source: int) -> tuple[ParkedStatus, ...]:
    # With a bare column beside max(), SQLite takes it from the row that holds the maximum.
    rows = connection.execute(
        "SELECT failure, count(*), max(seq), ordinal FROM straggler WHERE source = ? AND state = 'parked'"
        " GROUP BY failure ORDER BY count(*) DESC",
        (source,),
    ).fetchall()
    return tuple(
        ParkedStatus(
            failure,
            count,
            connection.execute("SELECT row_key FROM plan WHERE ordinal = ?", (ordinal,)).fetchone()[0],
            str(_note(connection, seq).data.get("message", "")),
        )
        for failure, count, seq, ordinal in rows
    )
