"""`status` for programs: a documented, additive contract; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.rendering_view import view

if TYPE_CHECKING:
    from daemon.rendering_pace import Speed
    from daemon.rendering_view import Line, View
    from journal.checkpoint import Checkpoint
    from journal.entries import SourceCounts
    from journal.status import MigrationStatus, NoteStatus, SessionStatus, SourceStatus

SCHEMA_VERSION = 2
"""Raised when a field changes its meaning or goes, or a state is added; fields may be added under the same version.

2: state "paused"; `as_of_us`, `pause`, `tunables`, `throttle`, `speed`, `time`.
"""


def status_json(status: MigrationStatus, *, now_us: int, past: bool = False) -> dict[str, Any]:
    """Return the state of a migration as JSON values.

    Times end in `_us`: microseconds since 1970-01-01 UTC. Spans end in `_seconds`, sizes in `_bytes`: integers.
    What does not apply is null. Keys are as stored, unescaped. `daemon/status.schema.json` says the same to
    programs.

    - `schema_version`: 2.
    - `as_of_us`: the earlier moment that was asked for (`past`), else null.
    - `migration`, `created_us`, `cutoff_us`, `order`.
    - `state`: planning, running, paused, draining, stopped, halted, killed, complete or complete_with_parked; `reason`:
      one line, may be empty.
    - `daemon`: `pid`, `host`, `since_us` of the process that holds the journal; null if none does.
    - `session`: `number`, `started_us`, `facts`, and once it has ended `ended_us`, `end_reason`, `exit_code`,
      `message`.
    - `head_seq`, `last_event_us`, `last_event_age_seconds`, `completed_us`.
    - `pause`: the operator's pause in force: `who`, `since_us`; `tunables`: the same with `overrides`, what an
      operator has set, null lifting a limit; `throttle`: the slow-down in force: `cause`, `detail`, `since_us`.
    - `concurrency`: uploads at once, as they have adapted in the session that works: `limit`, `ceiling`, `cause` of the
      newest change on record (s3_slow_down, unreachable, grew, recovered, ceiling), `since_us`.
    - `deadline_us`: `migration.deadline` of the newest session.
    - `speed`: of all sources: `rows_per_second_1m` and `rows_per_second_15m` (keys settled; to three decimals),
      `bytes_per_second_1m` and `bytes_per_second_15m` (uploaded; integers), `eta_seconds` of copying.
    - `time`: where all sessions' time went: `total_seconds`; `by_cause`, the costliest first: `cause`, `seconds`,
      `slow_downs` that have ended, and of the newest of them `last_us` and `last_detail`.
    - `totals`: the counts of all sources; `sources`: for each `name`, `id`, `identity`, `speed`, and
      - `counts`: `planned_rows`, `planned_bytes`, `settled`, `stored` (recovered ones included), `recovered`,
        `present`, `skipped`, `vanished`, `parked`, `in_flight`, `waiting`, `stored_bytes`, `present_bytes`,
        `settled_bytes` (as planned);
      - `checkpoint`: `position` (`created_at_us`, `row_key`) or null, `cutoff_us` (the value for
        --cutoff-timestamp), `floor_us` (oldest first), `held_by_parked`, `complete`, `notes`; `last_outcome_us`, when a key was last settled;
      - `passes`: `number`, `kind`, `state`, `rows`; `closed`, `proven`, `closing_proof`;
      - `excluded` (reason to rows), `unusable_rows`, `unusable_example`;
      - `probe`, `endpoint` (data of the newest such event, or null);
      - `parked`: `failure`, `count`, `example_key`, `message`; `failures`: the same with `operation`, `last_us`.
    - `halt`, `probe`, `verification`, `server`: `time_us` and `data` of the newest such event, or null;
      `verifications`: the same of the newest finished verification of each tier, the newest first.
    - `next_steps`: what the operator should do, in words; empty of an earlier moment.
    """
    seen = view(status, now_us=now_us)
    return {
        "schema_version": SCHEMA_VERSION,
        "as_of_us": now_us if past else None,
        "migration": status.name,
        "created_us": status.created_us,
        "cutoff_us": status.cutoff_us,
        "order": status.order.value,
        "state": status.state.value,
        "reason": seen.reason,
        "daemon": None
        if status.owner is None
        else {"pid": status.owner.pid, "host": status.owner.host, "since_us": status.owner.since_us},
        "session": _session(status.session),
        "head_seq": status.head_seq,
        "last_event_us": status.last_event_us,
        "last_event_age_seconds": max(0, now_us - status.last_event_us) // 1_000_000,
        "completed_us": status.completed_us,
        "pause": None if seen.pause is None else {"who": seen.pause.who, "since_us": seen.pause.since_us},
        "tunables": _tunables(status, seen),
        "throttle": None
        if seen.throttle is None
        else {
            "cause": seen.throttle.cause,
            "detail": seen.throttle.detail,
            "since_us": seen.throttle.since_us,
        },
        "concurrency": _concurrency(seen),
        "deadline_us": seen.deadline_us,
        "speed": _speed(seen.total.speed),
        "time": _time(seen),
        "totals": _counts(seen.total.counts),
        "sources": [_source(source, line) for source, line in zip(status.sources, seen.sources, strict=True)],
        "halt": _note(status.halt),
        "probe": _note(status.probe),
        "verification": _note(status.verifications[0] if status.verifications else None),
        "verifications": [_note(one) for one in status.verifications],
        "server": _note(status.server),
        "next_steps": [] if past else list(seen.next_steps),
    }


def _tunables(status: MigrationStatus, seen: View) -> dict[str, Any] | None:
    if seen.tunables is None or status.tunables is None:
        return None
    overrides = status.tunables.data["overrides"]
    return {"who": seen.tunables.who, "since_us": seen.tunables.since_us, "overrides": overrides}


def _concurrency(seen: View) -> dict[str, Any] | None:
    one = seen.concurrency
    if one is None:
        return None
    return {"limit": one.limit, "ceiling": one.ceiling, "cause": one.cause, "since_us": one.since_us}


def _speed(speed: Speed) -> dict[str, Any]:
    return {
        "rows_per_second_1m": None if speed.rows_1m is None else round(speed.rows_1m, 3),
        "rows_per_second_15m": None if speed.rows_15m is None else round(speed.rows_15m, 3),
        "bytes_per_second_1m": None if speed.bytes_1m is None else int(speed.bytes_1m),
        "bytes_per_second_15m": None if speed.bytes_15m is None else int(speed.bytes_15m),
        "eta_seconds": None if speed.eta_seconds is None else int(speed.eta_seconds),
    }


def _time(seen: View) -> dict[str, Any]:
    return {
        "total_seconds": seen.spent_seconds,
        "by_cause": [
            {
                "cause": one.cause,
                "seconds": one.seconds,
                "slow_downs": one.episodes,
                "last_us": one.last_us,
                "last_detail": one.last_detail,
            }
            for one in seen.spent
        ],
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


def _source(source: SourceStatus, line: Line) -> dict[str, Any]:
    return {
        "name": source.name,
        "id": source.id,
        "identity": source.identity,
        "counts": _counts(source.counts),
        "speed": _speed(line.speed),
        "last_outcome_us": source.last_outcome_us,
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
        "endpoint": source.endpoint,
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
