"""`status` for programs: a documented, additive contract; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.rendering_advice import next_steps, reason

if TYPE_CHECKING:
    from journal.checkpoint import Checkpoint
    from journal.entries import SourceCounts
    from journal.status import MigrationStatus, NoteStatus, SessionStatus, SourceStatus

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; fields may be added under the same version."""


def status_json(status: MigrationStatus, *, now_us: int) -> dict[str, Any]:
    """Return the state of a migration as JSON values.

    Times end in `_us`: microseconds since 1970-01-01 UTC. Spans end in `_seconds`, sizes in `_bytes`: integers.
    What does not apply is null. Keys are as stored, unescaped.

    - `schema_version`: 1.
    - `migration`, `created_us`, `cutoff_us`, `order`.
    - `state`: planning, running, draining, stopped, halted, killed, complete or complete_with_parked; `reason`:
      one line, may be empty.
    - `daemon`: `pid`, `host`, `since_us` of the process that holds the journal; null if none does.
    - `session`: `number`, `started_us`, `facts`, and once it has ended `ended_us`, `end_reason`, `exit_code`,
      `message`.
    - `head_seq`, `last_event_us`, `last_event_age_seconds`, `completed_us`.
    - `totals`: the counts of all sources; `sources`: for each `name`, `id`, `identity`, and
      - `counts`: `planned_rows`, `planned_bytes`, `settled`, `stored` (recovered ones included), `recovered`,
        `present`, `skipped`, `vanished`, `parked`, `in_flight`, `waiting`, `stored_bytes`, `present_bytes`,
        `settled_bytes` (as planned);
      - `checkpoint`: `position` (`created_at_us`, `row_key`) or null, `cutoff_us` (the value for
        --cutoff-timestamp), `floor_us` (oldest first), `held_by_parked`, `complete`, `notes`;
      - `passes`: `number`, `kind`, `state`, `rows`; `closed`, `proven`, `closing_proof`;
      - `excluded` (reason to rows), `unusable_rows`, `unusable_example`;
      - `probe` (data of the newest probe event or null);
      - `parked`: `failure`, `count`, `example_key`, `message`; `failures`: the same with `operation`, `last_us`.
    - `halt`, `probe`, `verification`, `server`: `time_us` and `data` of the newest such event, or null.
    - `next_steps`: what the operator should do, in words.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "migration": status.name,
        "created_us": status.created_us,
        "cutoff_us": status.cutoff_us,
        "order": status.order.value,
        "state": status.state.value,
        "reason": reason(status, now_us),
        "daemon": None
        if status.owner is None
        else {"pid": status.owner.pid, "host": status.owner.host, "since_us": status.owner.since_us},
        "session": _session(status.session),
        "head_seq": status.head_seq,
        "last_event_us": status.last_event_us,
        "last_event_age_seconds": max(0, now_us - status.last_event_us) // 1_000_000,
        "completed_us": status.completed_us,
        "totals": _summed([_counts(source.counts) for source in status.sources]),
        "sources": [_source(source) for source in status.sources],
        "halt": _note(status.halt),
        "probe": _note(status.probe),
        "verification": _note(status.verification),
        "server": _note(status.server),
        "next_steps": next_steps(status),
    }


def _session(session: SessionStatus | None) -> dict[str, Any] | None:
    if session is None:
        return None
    return {
        "number": session.number,
        "started_us": session.started_us,
        "facts": session.facts,
        "ended_us": session.ended_us,
        "end_reason": session.reason,
        "exit_code": session.exit_code,
        "message": session.message,
    }


def _counts(counts: SourceCounts) -> dict[str, int]:
    return {
        "planned_rows": counts.planned_rows,
        "planned_bytes": counts.planned_bytes,
        "settled": counts.settled,
        "stored": counts.stored + counts.recovered,
        "recovered": counts.recovered,
        "present": counts.present,
        "skipped": counts.skipped,
        "vanished": counts.vanished,
        "parked": counts.parked,
        "in_flight": counts.in_flight,
        "waiting": counts.pending + counts.unclaimed,
        "stored_bytes": counts.stored_bytes,
        "present_bytes": counts.present_bytes,
        "settled_bytes": counts.settled_bytes,
    }


def _summed(every: list[dict[str, int]]) -> dict[str, int]:
    return {field: sum(counts[field] for counts in every) for field in (every[0] if every else ())}


def _checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    position = checkpoint.position
    return {
        "position": None
        if position is None
        else {"created_at_us": position.created_at, "row_key": position.row_key},
        "cutoff_us": checkpoint.cutoff_us,
        "floor_us": checkpoint.floor_us,
        "held_by_parked": checkpoint.held_by_parked,
        "complete": checkpoint.complete,
        "notes": list(checkpoint.notes),
    }


def _source(source: SourceStatus) -> dict[str, Any]:
    return {
        "name": source.name,
        "id": source.id,
        "identity": source.identity,
        "counts": _counts(source.counts),
        "checkpoint": _checkpoint(source.checkpoint),
        "passes": [
            {"number": one.number, "kind": one.kind, "state": one.state, "rows": one.rows}
            for one in source.passes
        ],
        "closed": source.closed,
        "proven": source.proven,
        "closing_proof": source.closing_proof,
        "excluded": source.counts.excluded,
        "unusable_rows": source.counts.unusable,
        "unusable_example": source.unusable_example,
        "probe": source.probe,
        "parked": [
            {
                "failure": one.failure,
                "count": one.count,
                "example_key": one.example_key,
                "message": one.message,
            }
            for one in source.parked
        ],
        "failures": [
            {
                "operation": one.operation,
                "failure": one.failure,
                "count": one.count,
                "example_key": one.example_key,
                "message": one.message,
                "last_us": one.last_us,
            }
            for one in source.failures
        ],
    }


def _note(note: NoteStatus | None) -> dict[str, Any] | None:
    return None if note is None else {"time_us": note.ts_us, "data": note.data}
