"""Everything but the keys themselves that a report tells of a journal: read in short transactions, bounded lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from journal.anchors import Anchor, anchor_at
from journal.events import Kind, StoredEvent, decode
from journal.projections import PARK_OPERATION
from journal.report_rows import planned_until
from journal.timeline import (
    ACTION_KINDS,
    SESSION_KINDS,
    Course,
    SessionSpan,
    course,
    rare_events,
    session_spans,
)
from journal.verification_runs import VerificationRun, verification_runs

if TYPE_CHECKING:
    import sqlite3

    from journal.attempts import AttemptCounts
    from journal.reader import Reader
    from journal.status import MigrationStatus

FAILURES_TOLD_MAX = 50
"""Classes of failed attempts told, the most frequent first."""
PARKED_TOLD_MAX = 100
"""Parked keys named; the file of keys has them all."""
ACTIONS_TOLD_MAX = 200
"""Deeds of operators told, the newest."""
SESSIONS_TOLD_MAX = 200
"""Sessions told, the newest."""
FINDINGS_TOLD_MAX = 5
"""Findings of one kind of one run that are named."""
_TOGETHER_US = 1_000_000
"""Requeueing or revoking many keys at once takes several events: within a second of each other they are one deed."""

_ENVIRONMENT = (Kind.ENDPOINT_PROBED, Kind.PROBE_RECORDED, Kind.SERVER_RECORDED, Kind.SETTINGS_CHANGED)


@dataclass(frozen=True, slots=True)
class FailedAttempts:
    """Attempts of one operation of one source that failed in one way; the rest is of the newest."""

    source: str
    operation: str
    failure: str
    count: int
    last_us: int
    example_key: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """A key that is parked."""

    source: str
    row_key: str
    failure: str
    message: str
    since_us: int


@dataclass(slots=True)
class Action:
    """What somebody did; `keys` is how many keys it concerned, 0 where none is named."""

    event: StoredEvent
    keys: int


@dataclass(frozen=True, slots=True)
class ReportFacts:
    """What a report tells.

    Attributes:
        anchor: the moment that it tells of: the newest event at the start.
        planned_hi: the highest ordinal planned by then.
        superseded: plans that a later plan of the same key replaces.
        failures: FAILURES_TOLD_MAX at most; `failure_classes` is how many there are. `parked` and `parked_keys`,
            `actions` and `action_count`, `sessions` and `session_count` alike.
        findings: examples by run and kind: key and detail.
        environment: the newest event of each kind and source that describes what was found outside.
    """

    status: MigrationStatus
    anchor: Anchor
    planned_hi: int
    superseded: int
    attempts: tuple[AttemptCounts, ...]
    failures: tuple[FailedAttempts, ...]
    failure_classes: int
    parked: tuple[ParkedKey, ...]
    parked_keys: int
    actions: tuple[Action, ...]
    action_count: int
    sessions: tuple[SessionSpan, ...]
    session_count: int
    spans: tuple[SessionSpan, ...]
    runs: tuple[VerificationRun, ...]
    findings: dict[tuple[int, str], list[tuple[str, str]]]
    environment: tuple[StoredEvent, ...]
    course: Course


def report_facts(reader: Reader, *, now_us: int) -> ReportFacts:
    """Read what a report tells, as of the newest event.

    Raises:
        JournalError: as `Reader.read`; the projections are being derived anew.
    """
    status = reader.status(now_us=now_us)
    head_seq = status.head_seq
    anchor, planned_hi, superseded, failures, classes, parked, parked_keys, runs = reader.read(
        lambda connection: (
            anchor_at(connection, head_seq),
            planned_until(connection),
            int(connection.execute("SELECT count(*) FROM plan WHERE supersedes IS NOT NULL").fetchone()[0]),
            _failures(connection),
            int(
                connection.execute(
                    "SELECT count(*) FROM failure WHERE operation <> ?", (PARK_OPERATION,)
                ).fetchone()[0]
            ),
            _parked(connection),
            int(connection.execute("SELECT count(*) FROM straggler WHERE state = 'parked'").fetchone()[0]),
            verification_runs(connection),
        )
    )
    spans, actions, environment, findings = _walk(reader, head_seq, status.last_event_us)
    return ReportFacts(
        status=status,
        anchor=anchor,
        planned_hi=planned_hi,
        superseded=superseded,
        attempts=reader.attempts(),
        failures=failures,
        failure_classes=classes,
        parked=parked,
        parked_keys=parked_keys,
        actions=tuple(actions[-ACTIONS_TOLD_MAX:]),
        action_count=len(actions),
        sessions=tuple(spans[-SESSIONS_TOLD_MAX:]),
        session_count=len(spans),
        spans=tuple(spans),
        runs=tuple(run for run in runs if run.finished_seq <= head_seq),
        findings=findings,
        environment=tuple(environment),
        course=course(reader, spans, head_seq=head_seq),
    )


def _walk(
    reader: Reader, head_seq: int, last_event_us: int
) -> tuple[list[SessionSpan], list[Action], list[StoredEvent], dict[tuple[int, str], list[tuple[str, str]]]]:
    """Go through the rare events once."""
    kinds = {*SESSION_KINDS, *ACTION_KINDS, *_ENVIRONMENT, Kind.FINDING_RECORDED}
    sessions: list[StoredEvent] = []
    actions: list[Action] = []
    environment: dict[tuple[str, int | None], StoredEvent] = {}
    findings: dict[tuple[int, str], list[tuple[str, str]]] = {}
    for event in rare_events(reader, kinds, head_seq=head_seq):
        if event.kind in SESSION_KINDS:
            sessions.append(event)
        elif event.kind in ACTION_KINDS:
            _add_action(actions, event)
        elif event.kind == Kind.FINDING_RECORDED:
            for kind, _, key, detail in event.data.get("findings", ()):
                told = findings.setdefault((int(event.data.get("run") or 0), str(kind)), [])
                if len(told) < FINDINGS_TOLD_MAX:
                    told.append((str(key), str(detail or "")))
        else:
            environment[event.kind, event.source] = event
    return (
        session_spans(sessions, last_event_us=last_event_us),
        actions,
        sorted(environment.values(), key=lambda event: event.seq),
        findings,
    )


def _add_action(actions: list[Action], event: StoredEvent) -> None:
    """Add a deed; without the keys that it lists, which may be many."""
    data = event.data if isinstance(event.data, dict) else {}
    keys = len(data.get("ordinals", ()))
    slim = event._replace(data={field: value for field, value in data.items() if field != "ordinals"})
    if keys and actions:
        before = actions[-1].event
        if (before.kind, before.data) == (
            event.kind,
            slim.data,
        ) and event.ts_us - before.ts_us < _TOGETHER_US:
            actions[-1].keys += keys
            return
    actions.append(Action(slim, keys))


def _failures(connection: sqlite3.Connection) -> tuple[FailedAttempts, ...]:
    return tuple(
        FailedAttempts(source, operation, failure, count, ts_us, row_key, dict(decode(seq, text)))
        for source, operation, failure, count, row_key, ts_us, seq, text in connection.execute(
            "SELECT s.name, f.operation, f.failure, f.count, p.row_key, e.ts, e.seq, e.data FROM failure f"
            " JOIN source s ON s.id = f.source JOIN plan p ON p.ordinal = f.example JOIN event e ON e.seq = f.seq"
            " WHERE f.operation <> ? ORDER BY f.count DESC, f.seq DESC LIMIT ?",
            (PARK_OPERATION, FAILURES_TOLD_MAX),
        )
    )


def _parked(connection: sqlite3.Connection) -> tuple[ParkedKey, ...]:
    return tuple(
        ParkedKey(source, row_key, failure or "", str(decode(seq, text).get("message", "")), ts_us)
        for source, row_key, failure, seq, ts_us, text in connection.execute(
            "SELECT s.name, p.row_key, x.failure, e.seq, e.ts, e.data FROM straggler x"
            " JOIN source s ON s.id = x.source JOIN plan p ON p.ordinal = x.ordinal JOIN event e ON e.seq = x.seq"
            " WHERE x.state = 'parked' ORDER BY x.source, x.ordinal LIMIT ?",
            (PARKED_TOLD_MAX,),
        )
    )
