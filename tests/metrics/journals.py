"""A journal in which every metric that comes from the record has a value of its own."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from journal.checkpoint import Order
from journal.entries import AttemptFailed, Parked, PlannedRow, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal

if TYPE_CHECKING:
    from pathlib import Path

NOW_US = 1_760_000_000_000_000
SECOND_US = 1_000_000
HOSTILE = "evil\x1b[2J\u202e<script>alert(1)</script>\"'&\n"
MD5 = "0cc175b9c0f1b6a831c399e269772661"


def eventful(path: Path) -> Journal:
    """Twelve keys of source "a", one in each outcome, one parked, two in flight; source "b" untouched; still open."""
    journal = Journal.create(
        path, name="blobs", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US - 900 * SECOND_US
    )
    journal.start_session(
        now_us=NOW_US - 600 * SECOND_US,
        facts={"pid": os.getpid(), "host": socket.gethostname(), "version": "0.1.0"},
    )
    journal.sample({}, now_us=NOW_US - 599 * SECOND_US)
    for name, count in (("a", 12), ("b", 3)):
        source = journal.add_source(name, {"table": f"public.{name}", "key": ["id"]}, now_us=NOW_US)
        journal.begin_pass(source, kind="sweep", now_us=NOW_US)
        keys = [HOSTILE if number == 6 else f"{name}{number}" for number in range(count)]
        planned = [PlannedRow(key, NOW_US - 1000 - number, 100) for number, key in enumerate(keys)]
        journal.seal_chunk(source, planned, now_us=NOW_US)
        journal.seal_segment(source, excluded={"where": 2}, unusable=0, unusable_example=None, now_us=NOW_US)
    claim = journal.claim(1, limit=9, window=100, now_us=NOW_US)
    assert claim is not None
    ordinals = [key.ordinal for key in claim.keys]
    outcomes = (
        Outcome.STORED, Outcome.STORED, Outcome.RECOVERED, Outcome.PRESENT, Outcome.SKIPPED, Outcome.VANISHED
    )  # fmt: skip
    journal.record(
        [
            _failed(ordinals[6], "server", retried=True),
            _failed(ordinals[6], "server", retried=True),
            _failed(ordinals[6], "rejected", retried=False),
        ],
        now_us=NOW_US - 5 * SECOND_US,
    )
    journal.record(
        [
            Settled(ordinal, outcome, 0 if outcome is Outcome.VANISHED else 90, MD5)
            for ordinal, outcome in zip(ordinals[:6], outcomes, strict=True)
        ],
        now_us=NOW_US - 4 * SECOND_US,
    )
    journal.record([Parked(ordinals[6], "rejected", "403 <Forbidden>")], now_us=NOW_US - 3 * SECOND_US)
    journal.end_throttle("replica_lag", detail="12 s", milliseconds=61_500, now_us=NOW_US - 2 * SECOND_US)
    journal.sample({"network": 500_250, "replica_lag": 61_750}, now_us=NOW_US - SECOND_US)
    journal.note(
        Kind.VERIFICATION_FINISHED,
        {
            "tier": "list",
            "missing": 2,
            "differing": 1,
            "extra": 7,
            "extra_fails": False,
            "exit_code": 4,
            "checked": 9,
        },
        now_us=NOW_US,
    )
    return journal


def _failed(ordinal: int, failure: str, *, retried: bool) -> AttemptFailed:
    return AttemptFailed(
        ordinal=ordinal,
        operation="PUT",
        failure=failure,
        message="500 <Internal>",
        http_status=500,
        code=None,
        request_id=None,
        milliseconds=12,
        attempt=1,
        retried=retried,
    )
