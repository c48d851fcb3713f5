"""A journal with everything in it, written by the real writer, for the tests that render it."""

from __future__ import annotations

from journal.checkpoint import Order
from journal.entries import AttemptFailed, Parked, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal

CREATED_US = 1_768_400_000_000_000
CUTOFF_US = 1_768_404_645_123_456
HOSTILE_KEY = "evil\x1b[2J\nkey\u202e"
MD5 = "900150983cd24fb0d6963f7d28e17f72"


def eventful_journal(path):
    """Write a migration in which every kind of event has happened; return the open journal.

    Source "cas" holds ordinals 1 to 6: stored, parked (the hostile key), vanished, recovered, present, released.
    """
    journal = Journal.create(
        path, name="layer-cache", cutoff_us=None, order=Order.NEWEST_FIRST, now_us=CREATED_US
    )
    at = CREATED_US

    def now():
        nonlocal at
        at += 1_000_000
        return at

    journal.start_session(
        now_us=now(), facts={"pid": 4711, "host": "db1", "version": "0.1.0", "user": "backfill"}
    )
    journal.set_cutoff(CUTOFF_US, now_us=now())
    journal.note(Kind.SERVER_RECORDED, {"system_identifier": "7", "timeline": 1}, now_us=now())
    cas = journal.add_source(
        "cas",
        {"database": "app", "table": "public.cas", "key": ["key"], "bucket": "blobs", "prefix": "cas/",
         "layout": "tiered", "reverse_key": False},
        now_us=now(),
    )  # fmt: skip
    journal.note(
        Kind.PROBE_RECORDED,
        {"bucket": "blobs", "conditional": "ignored", "deletable": False, "key": "cas/.backfill-probe"},
        now_us=now(),
    )
    journal.begin_pass(cas, kind="sweep", now_us=now())
    keys = ["a-stored", HOSTILE_KEY, "c-vanished", "d-recovered", "żółć-present", "f-released"]
    journal.seal_chunk(
        cas,
        [(key, CUTOFF_US - 1_000_000 * (i + 1), 100 * i, None) for i, key in enumerate(keys)],
        now_us=now(),
    )
    journal.seal_segment(
        cas, excluded={"newer_than_cutoff": 12, "where": 3}, unusable=1, unusable_example="//x", now_us=now()
    )
    journal.build_key_index()
    journal.recover(now_us=now())
    journal.claim(cas, limit=6, window=100, now_us=now())
    journal.record(
        [
            Settled(1, Outcome.STORED, 0, MD5),
            AttemptFailed(2, "PUT", "server", "500 Internal Error", 500, "InternalError", "REQ1", 812.4, 1),
            Parked(2, "foreign_object", "another object is under 'evil': MD5 differs"),
            Settled(3, Outcome.VANISHED, 0),
        ],
        now_us=now(),
    )
    journal.close()
    journal = Journal.open(path, now_us=now())
    journal.start_session(now_us=now(), facts={"pid": 4712, "host": "db1"})
    journal.recover(now_us=now())
    journal.claim(cas, limit=6, window=100, now_us=now())
    journal.record(
        [Settled(4, Outcome.RECOVERED, 300, MD5, "etag-2", "v1"), Settled(5, Outcome.PRESENT, 400, MD5)],
        now_us=now(),
    )
    journal.release([6], now_us=now())
    journal.requeue(source=cas, who="alice", now_us=now())
    journal.claim(cas, limit=1, window=100, now_us=now())
    journal.record([Parked(2, "foreign_object", "still another object")], now_us=now())
    journal.note(Kind.SETTINGS_CHANGED, {"upload.concurrency": [64, 128]}, now_us=now())
    for change in (
        {"from": 8, "to": 16, "cause": "grew", "ceiling": 128, "cuts": 0},
        {"from": 16, "to": 8, "cause": "s3_slow_down", "ceiling": 128, "cuts": 1, "ordinal": 2},
        {"from": 8, "to": 2, "cause": "unreachable", "ceiling": 128, "cuts": 2},
    ):
        journal.note(Kind.CONCURRENCY_CHANGED, change, now_us=now())
    journal.note(Kind.DRAIN_REQUESTED, {"signal": "SIGTERM"}, now_us=now())
    journal.note(Kind.CANCELLED, {"signal": "SIGINT"}, now_us=now())
    journal.note(Kind.HALTED, {"problem": "PUT failed for good", "exit_code": 6}, now_us=now())
    journal.accept_server({"system_identifier": "8"}, now_us=now(), who="alice")
    journal.note(Kind.VERIFICATION_STARTED, {"tier": "list"}, now_us=now())
    journal.note(
        Kind.FINDING_RECORDED,
        {"tier": "list", "findings": [["missing", 1, "cas/a-stored", ""]], "ordinals": [1]},
        source=cas,
        ordinal=1,
        now_us=now(),
    )
    journal.note(
        Kind.VERIFICATION_FINISHED,
        {"tier": "list", "checked": 3, "by_md5": 1, "by_size": 1, "missing": 1, "differing": 0, "extra": 0,
         "unsettled": 2, "skipped": 0, "exit_code": 4},
        now_us=now(),
    )  # fmt: skip
    journal.begin_pass(cas, kind="snapshot", now_us=now())
    journal.abandon_pass(cas, reason="stage lost", now_us=now())
    journal.close_source(cas, proof="snapshot after every writer ended", proven=True, now_us=now())
    journal.reopen_source(cas, who="alice", reason="plan --reconcile", now_us=now())
    journal.end_session(now_us=now(), reason="drained", exit_code=143, message="drained on SIGTERM")
    return journal
