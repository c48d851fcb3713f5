"""Every metric of a session: name, kind, labels and meaning. README's table is held against this one; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "backfill_"
"""How every name begins."""
MIGRATION = "migration"
"""The label that every metric has; its value is `migration.name`."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric.

    Attributes:
        name: without PREFIX; a counter's ends in `_total`, and every name says its unit.
        labels: beside MIGRATION.
        meaning: what HELP says.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    meaning: str


DEFINITIONS: tuple[Definition, ...] = (
    Definition("planned_rows", "gauge", ("source",), "Rows decided to be copied."),
    Definition("planned_bytes", "gauge", ("source",), "Bytes of their values as planned."),
    Definition(
        "outcomes_total", "counter", ("source", "outcome"), "Keys settled in all sessions, by how they ended."
    ),
    Definition("copied_bytes_total", "counter", ("source",), "Bytes uploaded in all sessions."),
    Definition(
        "present_bytes_total", "counter", ("source",), "Bytes that were in the bucket and compared equal."
    ),
    Definition(
        "settled_planned_bytes", "gauge", ("source",), "Bytes as planned of settled keys: byte progress."
    ),
    Definition("in_flight", "gauge", ("source",), "Keys claimed without a recorded outcome."),
    Definition("parked", "gauge", ("source",), "Keys given up until an operator requeues them."),
    Definition("waiting", "gauge", ("source",), "Planned keys not claimed, and keys to be driven again."),
    Definition("excluded_rows", "gauge", ("source", "reason"), "Rows that the plan leaves out, by reason."),
    Definition(
        "failed_attempts_total",
        "counter",
        ("source", "operation", "failure"),
        "Attempts that failed in all sessions, by operation and class of failure.",
    ),
    Definition(
        "retries_total",
        "counter",
        ("source", "operation", "failure"),
        "Failed attempts that another one followed, in all sessions.",
    ),
    Definition(
        "spent_seconds_total",
        "counter",
        ("cause",),
        "Seconds of all sessions by what limited them, added every 15 seconds.",
    ),
    Definition(
        "throttled_seconds_total",
        "counter",
        ("cause",),
        "Seconds of all sessions that something else than the work itself took, by cause.",
    ),
    Definition("slow_downs_total", "counter", ("cause",), "Slow-downs on record as ended, by cause."),
    Definition("concurrency_limit", "gauge", (), "Uploads that may be under way at once."),
    Definition("concurrency_ceiling", "gauge", (), "What that limit may grow to, as configured or set."),
    Definition("rows_per_second_limit", "gauge", (), "Rows per second fetched at most; absent: no limit."),
    Definition("bytes_per_second_limit", "gauge", (), "Bytes per second fetched at most; absent: no limit."),
    Definition(
        "checkpoint_timestamp_seconds",
        "gauge",
        ("source",),
        "Unix time of the safe checkpoint; absent: there is none.",
    ),
    Definition("cutoff_timestamp_seconds", "gauge", (), "Unix time before which rows were created."),
    Definition("closed", "gauge", ("source",), "1 if planning of the source is proven complete, else 0."),
    Definition(
        "eta_seconds",
        "gauge",
        ("source",),
        "Seconds until every key that is not parked is settled; absent while nobody can say.",
    ),
    Definition(
        "deadline_timestamp_seconds", "gauge", (), "Unix time of migration.deadline; absent: none is set."
    ),
    Definition("journal_bytes", "gauge", (), "Bytes of the journal's file."),
    Definition("journal_wal_bytes", "gauge", (), "Bytes of the journal's write-ahead log."),
    Definition("journal_disk_free_bytes", "gauge", (), "Bytes that the journal's disk has left."),
    Definition(
        "journal_disk_reserve_bytes", "gauge", (), "Bytes below which the migration holds (disk_reserve)."
    ),
    Definition(
        "journal_commit_seconds", "histogram", (), "Seconds per group commit of outcomes in this process."
    ),
    Definition(
        "request_seconds",
        "histogram",
        ("operation",),
        "Seconds until the head of S3's answer, or for FETCH until the rows are here, in this process.",
    ),
    Definition("session_start_timestamp_seconds", "gauge", (), "Unix time of the newest session's start."),
    Definition("session", "gauge", (), "Number of the newest session."),
    Definition(
        "last_progress_timestamp_seconds",
        "gauge",
        ("source",),
        "Unix time of the newest recorded outcome; absent: there is none.",
    ),
    Definition("state", "gauge", ("state",), "1 for the state the migration is in, 0 for every other."),
    Definition("paused", "gauge", (), "1 while an operator's pause is in force, else 0."),
    Definition(
        "credentials_expiry_timestamp_seconds",
        "gauge",
        (),
        "Unix time when the S3 credentials in use expire; absent: they don't.",
    ),
    Definition(
        "verification_mismatches",
        "gauge",
        ("tier",),
        "Mismatches that the newest finished verification of a tier found; absent: there was none.",
    ),
    Definition(
        "verified_timestamp_seconds",
        "gauge",
        ("tier",),
        "Unix time of the newest finished verification of a tier.",
    ),
    Definition(
        "heartbeat_age_seconds",
        "gauge",
        (),
        "Seconds since event loop and journal were last seen to move in this process.",
    ),
    Definition("build_info", "gauge", ("version", "python", "sqlite"), "1; the labels say what runs."),
)
"""In the order in which they are exported."""
