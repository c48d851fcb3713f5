"""What a report tells, as one document: the figures of the page and of `report.json` are these; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon import __version__
from daemon import rendering_units as units
from daemon.estimating import LIST_DOLLARS_PER_1000, LIST_KEYS_PER_REQUEST, PUT_DOLLARS_PER_1000
from daemon.rendering_advice import reason
from daemon.rendering_events import happened
from daemon.rendering_verified import checked_words, found_words, verified
from journal.status import MigrationState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.report_keys import KeyTotals, Level
    from journal.entries import SourceCounts
    from journal.report_facts import ReportFacts
    from journal.status import SourceStatus
    from journal.timeline import SessionSpan

SCHEMA_VERSION = 1
"""Version of `report.json`: fields may be added under the same one."""
PARTS = (
    "stored",
    "recovered",
    "present",
    "skipped",
    "vanished",
    "parked",
    "in_flight",
    "waiting",
    "unclaimed",
)
"""What planned keys add up of."""
_PUT = "PUT"


def report_document(facts: ReportFacts, totals: KeyTotals, *, level: Level, now_us: int) -> dict[str, Any]:
    """Return what `report.json` holds; `report.schema.json` documents every field."""
    status = facts.status
    sources = [_source(source) for source in status.sources]
    return {
        "schema_version": SCHEMA_VERSION,
        "made_us": now_us,
        "made": units.moment(now_us),
        "program_version": __version__,
        "level": level.value,
        "name": status.name,
        "journal": facts.anchor.document(),
        "last_event_us": status.last_event_us,
        "cutoff_us": status.cutoff_us,
        "order": status.order.value,
        "outcome": _outcome(facts, now_us),
        "sources": sources,
        "reconciliation": {part: sum(source["parts"][part] for source in sources) for part in PARTS}
        | {"planned": sum(source["planned"] for source in sources)},
        "keys": {
            "current": totals.keys,
            "superseded_plans": facts.superseded,
            "written": totals.written,
            "became": dict(sorted(totals.became.items())),
            "verified_by": dict(sorted(totals.verified.items())),
            "findings": dict(sorted(totals.findings.items())),
        },
        "sizes": [
            {"below_bytes": 1 << bits, "keys": number} for bits, number in sorted(totals.sizes.items())
        ],
        "put_seconds": facts.course.put_counts,
        "estimate": _estimate(facts, sources),
        "time": {
            "spent_ms": dict(status.spent_ms),
            "slow_downs": [
                {
                    "cause": one.cause,
                    "episodes": one.episodes,
                    "ms": one.ms,
                    "last_us": one.last_us,
                    "last_detail": one.last_detail,
                }
                for one in status.slow_downs
            ],
        },
        "timeline": [
            {
                "begin_us": one.begin_us,
                "end_us": one.end_us,
                "seconds": round(one.seconds, 3),
                "objects": round(one.settled, 1),
                "stored_bytes": round(one.stored_bytes),
                "spent_ms": dict(one.spent_ms),
            }
            for one in facts.course.bins
        ],
        "failures": {
            "classes": facts.failure_classes,
            "newest": [
                {
                    "source": one.source,
                    "operation": one.operation,
                    "failure": one.failure,
                    "count": one.count,
                    "last_us": one.last_us,
                    "example_key": one.example_key,
                    "http_status": one.data.get("http_status"),
                    "request_id": one.data.get("request_id"),
                    "milliseconds": one.data.get("milliseconds"),
                    "message": str(one.data.get("message", "")),
                }
                for one in facts.failures
            ],
        },
        "parked": {
            "keys": facts.parked_keys,
            "named": [
                {
                    "source": one.source,
                    "key": one.row_key,
                    "failure": one.failure,
                    "message": one.message,
                    "since_us": one.since_us,
                }
                for one in facts.parked
            ],
        },
        "actions": {
            "number": facts.action_count,
            "newest": [
                {
                    "time_us": one.event.ts_us,
                    "seq": one.event.seq,
                    "kind": one.event.kind,
                    "who": _who(one.event.data),
                    "keys": one.keys,
                    "text": _did(one.event.data),
                }
                for one in facts.actions
            ],
        },
        "sessions": {
            "number": facts.session_count,
            "newest": [_session(span) for span in facts.sessions],
        },
        "verifications": [
            {
                "run": run.seq,
                "tier": run.tier,
                "started_us": run.started_us,
                "finished_us": run.finished_us,
                "until_seq": run.until_seq,
                "sample": None if run.sample is None else {"keys": run.sample.keys, "of": run.sample.of},
                "checked": int(run.data.get("checked", 0)),
                "found": run.data.get("counts") or {},
                "bound": run.data.get("bound"),
                "exit_code": run.exit_code,
                "text": _verified_text(run.data, run.finished_us),
                "examples": {
                    kind: [list(example) for example in examples]
                    for (of_run, kind), examples in facts.findings.items()
                    if of_run == run.seq
                },
            }
            for run in facts.runs
        ],
        "environment": [
            {"time_us": event.ts_us, "kind": event.kind, "source_id": event.source, "text": happened(event)}
            for event in facts.environment
            if event.kind != "settings_changed"
        ],
        "settings": {} if status.settings is None else _settings(status.settings.data),
    }


def _outcome(facts: ReportFacts, now_us: int) -> dict[str, Any]:
    status = facts.status
    planned = sum(source.counts.planned_rows for source in status.sources)
    settled = sum(source.counts.settled for source in status.sources)
    complete = status.state is MigrationState.COMPLETE
    mismatch = [one for one in _newest_by_tier(facts) if one["exit_code"]]
    verified_since = [
        run
        for run in facts.runs
        if not run.exit_code and (status.completed_us is None or run.finished_us >= status.completed_us)
    ]
    session = status.session
    return {
        "state": status.state.value,
        "text": f"{status.state.value.replace('_', ' ')}: {reason(status, now_us)}",
        "complete": complete,
        "planned": planned,
        "settled": settled,
        "verified": bool(complete and verified_since and not mismatch),
        "mismatch": bool(mismatch),
        "session_exit_code": None if session is None else session.exit_code,
        "completed_us": status.completed_us,
    }


def _newest_by_tier(facts: ReportFacts) -> list[dict[str, Any]]:
    newest: dict[str, dict[str, Any]] = {}
    for run in facts.runs:
        newest.setdefault(run.tier, {"tier": run.tier, "exit_code": run.exit_code})
    return list(newest.values())


def _source(source: SourceStatus) -> dict[str, Any]:
    counts = source.counts
    parts = _parts(counts)
    return {
        "name": source.name,
        "table": str(source.identity.get("table", "")),
        "bucket": str(source.identity.get("bucket", "")),
        "prefix": str(source.identity.get("prefix", "")),
        "planned": counts.planned_rows,
        "parts": parts,
        "adds_up": sum(parts.values()) == counts.planned_rows,
        "planned_bytes": counts.planned_bytes,
        "settled_bytes": counts.settled_bytes,
        "stored_bytes": counts.stored_bytes,
        "present_bytes": counts.present_bytes,
        "excluded": dict(counts.excluded),
        "unusable": counts.unusable,
        "closed": source.closed,
        "proven": source.proven,
        "closing_proof": source.closing_proof,
        "conditional": None if source.probe is None else source.probe.get("conditional"),
        "endpoint": source.endpoint,
    }


def _parts(counts: SourceCounts) -> dict[str, int]:
    return {
        "stored": counts.stored,
        "recovered": counts.recovered,
        "present": counts.present,
        "skipped": counts.skipped,
        "vanished": counts.vanished,
        "parked": counts.parked,
        "in_flight": counts.in_flight,
        "waiting": counts.pending,
        "unclaimed": counts.unclaimed,
    }


def _estimate(facts: ReportFacts, sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the plan meant, beside what happened; dollars at list prices."""
    rows = sum(source["planned"] for source in sources)
    stored = sum(source["parts"]["stored"] + source["parts"]["recovered"] for source in sources)
    failed = sum(one.failed for one in facts.attempts if one.operation == _PUT)
    seconds = sum((span.ended_us - span.started_us) / 1e6 for span in facts.spans)
    return {
        "planned": {
            "rows": rows,
            "bytes": sum(source["planned_bytes"] for source in sources),
            "puts": rows,
            "put_dollars": round(rows * PUT_DOLLARS_PER_1000 / 1000, 4),
            "list_requests": -(-rows // LIST_KEYS_PER_REQUEST),
            "list_dollars": round(-(-rows // LIST_KEYS_PER_REQUEST) * LIST_DOLLARS_PER_1000 / 1000, 4),
        },
        "actual": {
            "rows": stored,
            "bytes": sum(source["stored_bytes"] for source in sources),
            "puts": stored + failed,
            "put_dollars": round((stored + failed) * PUT_DOLLARS_PER_1000 / 1000, 4),
            "failed_puts": failed,
            "session_seconds": round(seconds, 1),
        },
    }


def _session(span: SessionSpan) -> dict[str, Any]:
    facts = {name: span.facts[name] for name in ("host", "pid", "user", "version") if name in span.facts}
    return {
        "number": span.number,
        "started_us": span.started_us,
        "ended_us": span.ended_us,
        "reason": span.reason,
        "exit_code": span.exit_code,
        "message": span.message,
        "facts": facts,
    }


def _who(data: Mapping[str, Any]) -> str:
    return str(data.get("who") or data.get("cause") or "")


def _did(data: Mapping[str, Any]) -> str:
    """Return what an action says beside who and when, in one line."""
    told = [
        f"{name.replace('_', ' ')} {value}"
        for name, value in data.items()
        if name not in {"who", "cause", "chain", "digests"}
        and isinstance(value, str | int | float)
        and value != ""
    ]
    changes = data.get("changes")
    if isinstance(changes, dict):
        told += [f"{name.replace('_', '-')}={value}" for name, value in changes.items()]
    return units.one_line(", ".join(told))


def _verified_text(data: Mapping[str, Any], finished_us: int) -> str:
    one = verified(data, finished_us=finished_us)
    return f"{found_words(one)} in {checked_words(one)}" if one.failed else checked_words(one)


def _settings(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings on record: none of them is a secret, since none is ever recorded."""
    return {name: value for name, value in data.items() if name != "cause"}
