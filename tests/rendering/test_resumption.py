from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.rendering_resumption import (
    Configured,
    resumption_json,
    resumption_text,
    settings_changes,
    unplanned_text,
)
from journal.checkpoint import Order
from journal.entries import Parked, PlannedRow, Revocation, Settled
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader
from journal.resuming import Evidence
from tests.rendering.golden_files import assert_golden
from tests.rendering.stories import CREATED_US, CUTOFF_US, HOSTILE_KEY, MD5

CONFIGURED = Configured(
    Path("/var/lib/backfill/journal.db"),
    changes=["upload.concurrency: 64, now 128"],
    added=["audit"],
    limits=["limits.limit = 5"],
)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A migration that was killed in the midst of everything.

    Source cas, 20 keys: 1 and 2 stored, 3 to be repaired, 4 vanished, 5 parked, 6 requeued, 7 in flight again, 8
    released, 9 to 12 recovered, 13 to 20 never begun. Source logs: all settled, and closed. Source wal: half sealed.
    """
    path = tmp_path_factory.mktemp("journal") / "journal.db"
    at = CREATED_US

    def now():
        nonlocal at
        at += 1_000_000
        return at

    def seal(source, first, rows):
        planned = [
            PlannedRow(f"{source}-{first + i}", CUTOFF_US - 1000 * (first + i), 10) for i in range(rows)
        ]
        journal.seal_chunk(source, planned, now_us=now())

    def store(*ordinals):
        settled = [Settled(ordinal, Outcome.STORED, 10, MD5) for ordinal in ordinals]
        journal.record(settled, now_us=now())

    journal = Journal.create(
        path, name="layer-cache", cutoff_us=CUTOFF_US, order=Order.NEWEST_FIRST, now_us=CREATED_US
    )
    journal.start_session(now_us=now(), facts={"pid": 1, "host": "db1"})
    cas, logs, wal = (
        journal.add_source(name, {"table": f"public.{name}", "bucket": "blobs"}, now_us=now())
        for name in ("cas", "logs", "wal")
    )
    for source, chunks in ((cas, (10, 10)), (logs, (3,))):
        journal.begin_pass(source, kind="sweep", now_us=now())
        for number, rows in enumerate(chunks):
            seal(source, 10 * number, rows)
        journal.seal_segment(source, excluded={"where": 0}, unusable=0, unusable_example=None, now_us=now())
    journal.claim(logs, limit=3, window=100, now_us=now())
    store(21, 22, 23)
    journal.close_source(logs, proof="snapshot", proven=True, now_us=now())
    journal.claim(cas, limit=12, window=100, now_us=now())
    store(1, 2, 3)
    journal.record([Settled(4, Outcome.VANISHED, 0), Parked(5, "foreign_object", "another's")], now_us=now())
    journal.record([Parked(6, "rejected", "no")], now_us=now())
    journal.release([7, 8], now_us=now())
    journal.close()
    journal = Journal.open(path, now_us=now())
    journal.start_session(now_us=now(), facts={"pid": 2, "host": "db1"})
    journal.recover(now_us=now())
    journal.claim(cas, limit=1, window=100, now_us=now())
    journal.revoke([3], Revocation.REPAIR, message="gone", who="op", now_us=now())
    journal.requeue(failure="rejected", who="alice", now_us=now())
    journal.begin_pass(wal, kind="sweep", now_us=now())
    seal(wal, 0, 4)
    journal.pause(who=HOSTILE_KEY, now_us=now())
    journal.note("settings_changed", {"upload": {"concurrency": 64}}, now_us=now())
    journal.close()
    with Reader.open(path) as reader:
        return reader.resumption()


def test_every_number_is_told_with_the_events_that_prove_it(found):
    for width in (80, 120):
        text = resumption_text(found, CONFIGURED, width=width)
        assert all(line.isprintable() and len(line) <= width for line in text.splitlines())
        assert_golden(f"resumption_{width}.txt", text)


def test_a_key_that_took_its_process_with_it_too_often_is_told_to_be_parked(found):
    dying = replace(found.sources[0], dying=Evidence(1, 1, 30, 30))
    text = resumption_text(replace(found, sources=(dying,)), CONFIGURED, width=120)
    assert "1 key of them outlived too many dead sessions and would be parked" in text
    assert "`run` would drive 20 keys" in resumption_text(found, CONFIGURED, width=120)
    assert "`run` would drive 19 keys" in resumption_text(
        replace(found, sources=(dying, *found.sources[1:])), CONFIGURED, width=120
    )


def test_json_holds_the_same(found):
    document = json.loads(json.dumps(resumption_json(found, CONFIGURED)))
    assert_golden("resumption.json", json.dumps(document, indent=2))


def test_where_there_is_no_journal_it_says_what_counts_without_one():
    text = unplanned_text(Path("/tmp/j.db"), ["cas", HOSTILE_KEY])
    assert "plan 2 sources (cas, evil" in text
    assert "`plan --dry-run` counts" in text
    assert all(line.isprintable() for line in text.splitlines())


def test_settings_that_changed_are_named_by_their_path_with_both_values():
    before = {"a": {"b": 1, "c": [1, 2]}, "d": None, "gone": "x"}
    after = {"a": {"b": 2, "c": [1, 2]}, "d": True, "new": {"e": 1}}
    assert settings_changes(before, after) == [
        "a.b: 1, now 2",
        "d: not set, now true",
        'gone: "x", now not set',
        'new: not set, now {"e": 1}',
    ]
    assert settings_changes(after, after) == []
