"""A journal with everything that a report tells of: two sources, two sessions, trouble, people, verifications."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.checkpoint import Order
from journal.entries import AttemptFailed, Parked, PlannedRow, Revocation, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal

if TYPE_CHECKING:
    from pathlib import Path

START_US = 1_768_400_000_000_000
SECOND_US = 1_000_000
MD5 = "0123456789abcdef0123456789abcdef"
HOSTILE = ["<script>alert(1)</script>", "\x1b[31mred", "=1+1", "@SUM(A1)", "-2", "'quoted", 'a"b,c', "żółć"]
IDENTITY = {
    "table": "public.{name}",
    "bucket": "blobs",
    "prefix": "{name}/",
    "layout": "flat",
    "reverse_key": False,
    "key": ["id"],
}


def identity(name: str) -> dict[str, object]:
    return {
        field: value.format(name=name) if isinstance(value, str) else value
        for field, value in IDENTITY.items()
    }


def write_journal(path: Path) -> Journal:
    """Make it and return it open."""
    clock = _Clock()
    journal = Journal.create(path, name="blobs", cutoff_us=START_US, order=Order.NEWEST_FIRST, now_us=clock())
    journal.start_session(now_us=clock(), facts={"host": "h1", "pid": 1, "user": "alice", "version": "0.1.0"})
    journal.note(Kind.SETTINGS_CHANGED, {"upload.concurrency": 64}, now_us=clock())
    journal.note(Kind.SERVER_RECORDED, {"system_identifier": "7", "timeline": 1}, now_us=clock())
    first = _plan(journal, "first", [*HOSTILE, *(f"k{number:03d}" for number in range(92))], clock)
    second = _plan(journal, "second", [f"s{number:03d}" for number in range(50)], clock)
    journal.sample({}, now_us=clock())
    keys = journal.claim(first, limit=100, window=1000, now_us=clock()).keys  # type: ignore[union-attr]
    journal.record([Settled(key.ordinal, Outcome.STORED, 100, MD5) for key in keys[:60]], now_us=clock(30))
    journal.sample({"network": 30_000}, put_counts={"0.005": 50, "0.01": 9, "+Inf": 1}, now_us=clock())
    journal.begin_throttle("replica_lag", detail="12 s > 10 s", now_us=clock())
    journal.pause(who="alice@h1", now_us=clock(5))
    journal.resume(who="bob@h2", now_us=clock(20))
    journal.end_throttle("replica_lag", detail="1 s", milliseconds=25_000, now_us=clock())
    journal.sample({"network": 5000, "replica_lag": 25_000}, now_us=clock())
    journal.record(
        [
            AttemptFailed(
                keys[60].ordinal, "PUT", "server", "503 SlowDown <b>", 503, "SlowDown", "REQ-1", 812, 1
            ),
            Settled(keys[60].ordinal, Outcome.RECOVERED, 100, MD5),
            Settled(keys[61].ordinal, Outcome.PRESENT, 100, MD5),
            Settled(keys[62].ordinal, Outcome.SKIPPED, 90),
            Settled(keys[63].ordinal, Outcome.VANISHED, 0),
            Parked(keys[64].ordinal, "foreign_object", "another object \x1b[31m is there"),
        ],
        now_us=clock(),
    )
    journal.end_session(now_us=clock(), reason="drained on SIGTERM", exit_code=143)
    clock(7200)
    journal.start_session(now_us=clock(), facts={"host": "h1", "pid": 2, "user": "alice", "version": "0.1.0"})
    journal.sample({}, now_us=clock())
    others = journal.claim(second, limit=100, window=1000, now_us=clock()).keys  # type: ignore[union-attr]
    journal.record([Settled(key.ordinal, Outcome.STORED, 100, MD5) for key in others], now_us=clock(15))
    journal.sample({"network": 15_000}, put_counts={"0.005": 50}, now_us=clock())
    verify(journal, clock, missing=keys[3].ordinal, source=first)
    journal.revoke([keys[3].ordinal], Revocation.REPAIR, message="missing", who="alice@h1", now_us=clock())
    return journal


def verify(journal: Journal, clock: _Clock, *, missing: int, source: int) -> None:
    run = journal.note(Kind.VERIFICATION_STARTED, {"tier": "list", "sample": None}, now_us=clock())
    found = {
        "run": run,
        "tier": "list",
        "findings": [["missing", missing, "first/=1+1", ""]],
        "ordinals": [missing],
    }
    journal.note(Kind.FINDING_RECORDED, found, source=source, now_us=clock())
    counts = {"checked": 111, "by_md5": 110, "by_size": 0, "missing": 1, "differing": 0, "extra": 0}
    data = {"run": run, "tier": "list", "until_seq": run - 1, "sources": None, "sample": None, **counts}
    journal.note(
        Kind.VERIFICATION_FINISHED, {**data, "counts": {"missing": 1}, "exit_code": 4}, now_us=clock()
    )


def _plan(journal: Journal, name: str, keys: list[str], clock: _Clock) -> int:
    source = journal.add_source(name, identity(name), now_us=clock())
    journal.begin_pass(source, kind="sweep", now_us=clock())
    rows = [PlannedRow(key, START_US - number, 100) for number, key in enumerate(keys, start=1)]
    journal.seal_chunk(source, rows, now_us=clock())
    journal.seal_segment(source, excluded={"where": 3}, unusable=0, unusable_example=None, now_us=clock())
    return source


class _Clock:
    """One millisecond a call, or so many seconds more."""

    def __init__(self) -> None:
        self._now_us = START_US

    def __call__(self, seconds: float = 0.001) -> int:
        self._now_us += round(seconds * SECOND_US)
        return self._now_us
