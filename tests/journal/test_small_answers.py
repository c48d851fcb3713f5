"""Answers of the journal that few callers ask for, number by number."""

from __future__ import annotations

import hashlib
import math
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from journal.attempts import AttemptCounts, attempt_counts
from journal.attestation import SourceDigest, journal_facts, source_digests
from journal.entries import AttemptFailed, PlannedRow
from journal.errors import Difference, IdentityMismatch, JournalError, JournalLocked
from journal.events import Kind, encode
from journal.lifecycle import Outcome
from journal.reader import Reader
from journal.sizes import JournalSizes, sizes_of
from journal.timeline import Bin, SessionSpan, course, rare_events, session_spans
from tests.journal.journals import MD5, NOW_US, create, park, plan, planned, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.log import Journal

SECOND_US = 1_000_000


def failed(journal: Journal, ordinal: int, operation: str, failure: str, *, retried: bool) -> None:
    journal.record([AttemptFailed(ordinal, operation, failure, "m", retried=retried)], now_us=NOW_US)


def test_failed_attempts_are_counted_by_source_operation_and_class_and_parking_is_none(
    tmp_path: Path,
) -> None:
    journal, first = planned(tmp_path / "journal.db")
    second = plan(journal, rows(3))
    take(journal, first)
    take(journal, second)
    failed(journal, 12, "FETCH", "timeout", retried=True)
    failed(journal, 1, "PUT", "server", retried=True)
    failed(journal, 2, "PUT", "server", retried=False)
    failed(journal, 2, "HEAD", "forbidden", retried=False)
    park(journal, 2, "forbidden")
    with Reader.open(journal.path) as reader:
        found = reader.read_projected(attempt_counts)
    assert found == (
        AttemptCounts("source-1", "HEAD", "forbidden", 1, 0),
        AttemptCounts("source-1", "PUT", "server", 2, 1),
        AttemptCounts("source-2", "FETCH", "timeout", 1, 1),
    )


def test_a_source_is_digested_line_by_line_in_byte_order_of_its_keys(tmp_path: Path) -> None:
    journal, first = planned(tmp_path / "journal.db", count=2)
    second = plan(journal, [PlannedRow("ż", NOW_US - 1, 7), PlannedRow('a"b', NOW_US - 2, 5)])
    for source in (first, second):
        take(journal, source)
    settle(journal, [1, 3])
    settle(journal, [4], size=5)
    park(journal, 2)
    with Reader.open(journal.path) as reader:
        found = source_digests(reader)
    lines = {
        first: f'["k00000",100,"{MD5}"]\n',
        second: f'["a\\"b",5,"{MD5}"]\n["ż",100,"{MD5}"]\n',
    }
    digests = {source: hashlib.sha256(text.encode()).hexdigest() for source, text in lines.items()}
    assert found == {
        first: SourceDigest(1, 100, digests[first]),
        second: SourceDigest(2, 105, digests[second]),
    }
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_source_closed_without_proof_is_attested_so(tmp_path: Path) -> None:
    journal, first = planned(tmp_path / "journal.db")
    second, third = plan(journal, rows(1)), plan(journal, rows(1))
    journal.close_source(first, proof="seen", proven=True, now_us=NOW_US)
    journal.close_source(second, proof="believed", proven=False, now_us=NOW_US)
    with Reader.open(journal.path) as reader:
        found = [(one.id, one.closed, one.closing_proof, one.proven) for one in journal_facts(reader).sources]
    assert found == [
        (first, True, "seen", True),
        (second, True, "believed", False),
        (third, False, None, False),
    ]


def test_every_key_of_a_source_is_counted_once_by_what_became_of_it(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db", count=8)
    plan(journal, rows(2))
    take(journal, source)
    for ordinal, outcome in enumerate(Outcome, 1):
        settle(journal, [ordinal], outcome)
    newest = journal.statistics().head_seq
    park(journal, 7)
    with Reader.open(journal.path) as reader:
        first, second = journal_facts(reader).sources
    assert (first.planned, first.stored, first.present, first.skipped, first.vanished) == (8, 2, 1, 1, 1)
    assert (first.unsettled, first.parked, first.outcome_seq) == (2, 1, newest)
    assert (second.planned, second.stored, second.present, second.skipped, second.vanished) == (2, 0, 0, 0, 0)
    assert (second.unsettled, second.parked, second.parked_keys, second.outcome_seq) == (2, 0, (), 0)


def test_what_the_writer_has_done_and_holds_is_counted(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db")
    before = journal.statistics()
    assert (before.in_flight, before.open_claims) == (0, 0)
    take(journal, source, limit=4)
    take(journal, source, limit=3)
    settle(journal, [1, 2, 3, 4, 5])
    found = journal.statistics()
    assert (found.in_flight, found.open_claims) == (2, 1)
    assert (found.commits - before.commits, found.head_seq - before.head_seq) == (3, 3)


def test_the_sizes_of_a_journal_are_those_of_its_files_and_of_the_room_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def statvfs(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(f_bavail=3, f_frsize=4096)

    monkeypatch.setattr(os, "statvfs", statvfs)
    (tmp_path / "journal.db").write_bytes(b"123")
    assert sizes_of(tmp_path / "journal.db") == JournalSizes(3, 0, 12_288)
    (tmp_path / "journal.db-wal").write_bytes(b"12345")
    assert sizes_of(tmp_path / "journal.db") == JournalSizes(3, 5, 12_288)
    assert asked == [tmp_path, tmp_path]


def test_an_error_tells_its_hint_if_it_has_one() -> None:
    assert str(JournalError("open it: it is gone", "restore it")) == "open it: it is gone\n  hint: restore it"
    assert str(JournalError("open it: it is gone")) == "open it: it is gone"
    assert JournalError("open it: it is gone").args == ("open it: it is gone",)
    locked = JournalLocked("it is held", "wait", owner="h1, pid 7")
    assert (locked.hint, locked.owner) == ("wait", "h1, pid 7")


def test_a_mismatch_lists_every_field_that_differs() -> None:
    differences = [
        Difference("blobs", "bucket", '"one"', '"two"'),
        Difference("old", "source", "present", "missing"),
    ]
    found = IdentityMismatch(differences)
    assert found.problem.splitlines()[1:] == [
        '  blobs.bucket: journal has "one", config has "two"',
        "  old.source: journal has present, config has missing",
    ]
    assert (found.differences, "a journal of its own" in found.hint) == (differences, True)


def test_a_field_that_the_configuration_changed_is_told_with_both_values(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    found = journal.differences({"source-1": {"table": "public.other", "key": ("id",), "zone": None}})
    assert found == [Difference("source-1", "table", '"public.source-1"', '"public.other"')]


def test_data_that_is_no_json_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode({"seconds": math.nan})
    assert encode(["ż", None]) == '["ż",null]'


def test_who_paused_and_when_is_known_only_while_the_pause_is_in_force(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    assert journal.paused_by is None
    journal.pause(who="alice@db1", now_us=NOW_US + 5)
    assert journal.paused_by == ("alice@db1", NOW_US + 5)
    journal.resume(who="bob@db1", now_us=NOW_US + 6)
    assert journal.paused_by is None


def test_a_journal_with_a_plan_is_not_discarded_and_one_without_goes_but_for_its_lock(tmp_path: Path) -> None:
    journal, _ = planned(tmp_path / "journal.db")
    assert not journal.discard()
    other = create(tmp_path / "other.db")
    assert other.discard()
    assert sorted(path.name for path in tmp_path.glob("other*")) == ["other.db.lock"]


def test_what_was_done_between_two_samples_is_spread_over_their_bins_by_time(tmp_path: Path) -> None:
    journal = create(tmp_path / "journal.db")
    journal.start_session(now_us=NOW_US, facts={})
    source = plan(journal, rows(10))
    take(journal, source)
    journal.sample({}, now_us=NOW_US + 5 * SECOND_US)
    settle(journal, range(1, 5), size=50)
    journal.sample({"network": 20_000}, put_counts={"0.1": 3}, now_us=NOW_US + 25 * SECOND_US)
    journal.end_session(now_us=NOW_US + 30 * SECOND_US, reason="drained", exit_code=143, message="m")
    head_seq = journal.statistics().head_seq
    with Reader.open(journal.path) as reader:
        kinds = (Kind.SESSION_STARTED, Kind.SESSION_ENDED)
        events = list(rare_events(reader, kinds, head_seq=head_seq))
        spans = session_spans(events, last_event_us=NOW_US + 99)
        found = course(reader, spans, head_seq=head_seq)
    assert spans == [SessionSpan(1, NOW_US, NOW_US + 30 * SECOND_US, {}, "drained", 143, "m")]
    assert (found.samples, found.put_counts) == (2, {"0.1": 3})
    assert sum(one.settled for one in found.bins) == pytest.approx(4)
    assert sum(one.stored_bytes for one in found.bins) == pytest.approx(200)
    assert sum(one.seconds for one in found.bins) == pytest.approx(20)
    assert sum(one.spent_ms["network"] for one in found.bins) == pytest.approx(20_000, abs=len(found.bins))
    assert _overlaps(found.bins) == pytest.approx([one.seconds for one in found.bins])


def _overlaps(bins: tuple[Bin, ...]) -> list[float]:
    begun, ended = NOW_US + 5 * SECOND_US, NOW_US + 25 * SECOND_US
    return [(min(one.end_us, ended) - max(one.begin_us, begun)) / 1e6 for one in bins]
