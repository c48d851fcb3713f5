"""What must have happened in the seeds of CI, or the weather is too kind to prove anything."""

from __future__ import annotations

SEEDS_MIN = 1000
"""With fewer seeds nothing is said about what never happened."""
TIMES_MIN = 5
"""How often each must have happened: once would hang on luck."""
_READINGS = ("fetch", "scan_batch", "snapshot", "sweep_range", "statement")
_POSTGRES = (
    "conflict answered",
    "connection unanswered",
    "server answered",
    "timeout answered",
    "timeout unanswered",
)
_GARBAGE = ("garbage", "garbage with 400", "error document with 200", "truncated answer")
_CHANGES = (
    *("insert", "late_insert", "late_commit", "update", "update_same_length"),
    *("delete", "move", "rewrite", "reinsert"),
)
EXPECTED = (
    *(f"outcome {name}" for name in ("stored", "recovered", "present", "skipped", "vanished")),
    *(f"death {how}" for how in ("before commit", "after commit", "step", "answer", "by poison")),
    *(f"postgres {name}: {kind}" for name in _READINGS for kind in _POSTGRES),
    *(
        f"postgres {name}: dropped in mid-answer"
        for name in ("fetch", "sweep_range", "describe", "check_fetch_plan", "server", "writers_before")
    ),
    *("postgres frozen", "postgres never answered", "postgres down"),
    *("postgres failover", "postgres failover without the tail", "event server_accepted"),
    *(f"table {change}" for change in _CHANGES),
    *(f"s3 {operation} {what}" for operation in ("PUT", "HEAD", "GET", "DELETE") for what in _GARBAGE),
    *("s3 storm", "s3 500", "s3 500 dripping", "s3 500 falling silent", "s3 403", "s3 409"),
    *("s3 lost response", "s3 dropped request", "s3 silence", "s3 silence after effect", "s3 slow"),
    *("s3 dripping answer", "s3 late", "s3 again", "s3 lost, and again", "s3 flipped bit", "s3 rot"),
    *("s3 301", "s3 301 of a region", "s3 307", "s3 raced by a foreign writer"),
    *(
        f"s3 answered {code}"
        for code in (
            "PreconditionFailed",
            "XAmzContentSHA256Mismatch",
            "ExpiredToken",
            "RequestTimeTooSkewed",
        )
    ),
    *(
        "failed expired_credentials",
        "failed clock_skew",
        "failed garbled",
        "failed conflict",
        "failed corrupted",
    ),
    *("disk full", "disk low", "stage lost", "disk I/O error, commit lost", "disk I/O error, commit written"),
    "disk I/O error: halted FAILED",
    *(f"operator {what}" for what in ("pause", "set", "hold", "requeue", "status", "drain")),
    *("operator SIGTERM", "operator SIGTERM twice", "operator SIGINT", "operator SIGINT twice"),
    *("operator SIGHUP", "operator SIGHUP refused", "requeued", "event cancelled"),
    *(f"reading {kind}" for kind in ("calm", "busy", "crowded", "unread", "silent")),
    *(
        f"event throttle_began {cause}"
        for cause in (
            "active_sessions",
            "hibernation",
            "disk_reserve",
            "operator",
            "rate_limit",
            "byte_budget",
        )
    ),
    *("key planned again", "foreign object overwritten", "bucket compared whole"),
    *("checkpoint with cutoff", "checkpoint with floor"),
    *("ended: died", "ended: DONE: every key is settled", "ended: PARKED: ended"),
    *("ended: TERMINATED: drained on SIGTERM", "ended: TERMINATED: cancelled on SIGTERM"),
    *("ended: INTERRUPTED: drained on SIGINT", "ended: STOPPED: drained on drain by the simulation"),
    *("ended: STOPPED: drained on limit = 7", "ended: STOPPED: drained on max_bytes = 3000"),
    *("ended: STOPPED: drained on max_duration = 1s", "ended: STOPPED: drained on max_duration = 30s"),
    *(f"ended: halted {code}" for code in ("UNREACHABLE", "PARKED", "REFUSED", "USAGE", "JOURNAL", "FAILED")),
    *("event pass_abandoned", "event keys_recovered", "event keys_released", "event keys_requeued"),
    *("event keys_reclaimed", "event key_parked", "event source_closed", "event migration_completed"),
    *("parked process_died", "parked foreign_object", "parked unusable_key", "suspect alone"),
    *("value beyond the budget", "keys beyond one claim"),
    *("damage missing", "damage differing", "damage extra", "damage repaired", "event outcomes_revoked"),
)
