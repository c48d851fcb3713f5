"""Make the golden journal of the present schema; run once per release: python -m tests.journal.golden.make_golden.

A golden journal that is released is never made again: it stands for the files that operators have.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from journal import schema
from journal.entries import AttemptFailed, Parked, PlannedRow, Revocation, Settled
from journal.events import NOTES, Kind
from journal.lifecycle import Outcome
from tests.journal.journals import MD5, NOW_US, abandon, create, plan, reopen, rows, take
from tests.journal.test_schema_migration import GOLDEN, _facts


def make(path: Path) -> None:
    journal = create(path, cutoff_us=None)
    journal.set_cutoff(NOW_US, now_us=NOW_US)
    journal.start_session(now_us=NOW_US, facts={"pid": 4711, "host": "golden", "version": "0.1.0"})
    journal.accept_server({"system_identifier": "7"}, who="op", now_us=NOW_US)
    first = plan(journal, rows(30), chunk=11)
    odd = [PlannedRow("ключ/é 😀", 5, 1), PlannedRow("-inf", -(2**63), 2), PlannedRow("undated", None, 0)]
    plan(journal, odd)
    take(journal, first, 12)
    journal.record(
        [
            Settled(1, Outcome.STORED, 150, MD5),
            Settled(2, Outcome.RECOVERED, 100, MD5, "etag", "v1"),
            Settled(3, Outcome.PRESENT, 100, MD5, "etag"),
            Settled(4, Outcome.SKIPPED, 90),
            Settled(5, Outcome.VANISHED, 0),
            AttemptFailed(6, "PUT", "server", "answered 503", 503, "SlowDown", "r1", 12.5, 1),
            Parked(7, "rejected", "refused"),
            Parked(8, "rejected", "refused"),
        ],
        now_us=NOW_US,
    )
    journal.release([9], now_us=NOW_US)
    journal.requeue(row_keys=["k00007"], who="op", now_us=NOW_US)
    abandon(journal)
    journal = reopen(path)
    journal.start_session(now_us=NOW_US, facts={"pid": 4712})
    journal.recover(now_us=NOW_US)
    take(journal, first, 3)
    journal.begin_pass(first, kind="snapshot", now_us=NOW_US)
    journal.seal_chunk(first, [rows(5)[4]._replace(size=7, supersedes=5)], now_us=NOW_US)
    journal.abandon_pass(first, reason="the stage is gone", now_us=NOW_US)
    journal.close_source(first, proof="no older transaction", proven=True, now_us=NOW_US)
    journal.reopen_source(first, who="op", reason="reconcile", now_us=NOW_US)
    for kind in sorted(NOTES):
        journal.note(kind, {"example": True}, source=first, ordinal=1, now_us=NOW_US)
    started = journal.note(
        Kind.VERIFICATION_STARTED, {"tier": "content", "sample": {"keys": 2, "of": 4}}, now_us=NOW_US
    )
    journal.note(
        Kind.VERIFICATION_FINISHED,
        {
            "run": started,
            "tier": "content",
            "until_seq": started - 1,
            "sources": [first],
            "sample": {"keys": 2, "of": 4},
            "checked": 2,
            "exit_code": 0,
        },
        now_us=NOW_US,
    )
    journal.pause(who="op", now_us=NOW_US)
    journal.resume(who="op", now_us=NOW_US)
    journal.set_tunables({"concurrency": 8}, {"concurrency": 8}, who="op", now_us=NOW_US)
    journal.begin_throttle("replica_lag", detail="lag 12 s", now_us=NOW_US)
    journal.end_throttle("replica_lag", detail="lag 12 s", milliseconds=2500, now_us=NOW_US)
    journal.sample({"network": 14_000, "replica_lag": 1000}, now_us=NOW_US)
    empty = journal.add_source("empty", {}, now_us=NOW_US)
    journal.begin_pass(empty, kind="snapshot", now_us=NOW_US)
    journal.seal_segment(empty, excluded={}, unusable=1, unusable_example="a//b", now_us=NOW_US)
    # Completion is on record too, as a journal has it that was complete before keys were added.
    with journal._transaction():
        journal._append(Kind.MIGRATION_COMPLETED, {"sources": {}}, now_us=NOW_US)
    plan(journal, rows(2, first=900), source=2)
    journal.revoke([1, 3], Revocation.REPAIR, message="missing", who="op", now_us=NOW_US)
    journal.revoke([2], Revocation.UNDO, message="deleted by op", who="op", now_us=NOW_US)
    journal.end_session(now_us=NOW_US, reason="drained", exit_code=143)
    journal.close()


def main() -> None:
    name = f"schema-{schema.SCHEMA_VERSION}"
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        make(path)
        with reopen(path) as journal:
            (GOLDEN / f"{name}.json").write_text(
                json.dumps(_facts(journal), indent=1, ensure_ascii=False) + "\n"
            )
        shutil.copyfile(path, GOLDEN / f"{name}.db")


if __name__ == "__main__":
    main()
