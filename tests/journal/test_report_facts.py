"""What a report tells beside the keys: each list whole, in its order, and no longer than it may be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal import report_facts as module
from journal.entries import AttemptFailed, Parked, PlannedRow
from journal.events import Kind
from journal.log import Journal
from journal.reader import Reader
from journal.report_facts import ParkedKey, ReportFacts, report_facts
from tests.journal.journals import NOW_US, create, park, plan, planned, settle, take, two_in_flight

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

    from journal.anchors import Anchor

SECOND_US = 1_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return two_in_flight(tmp_path / "journal.db")


def told(journal: Journal) -> ReportFacts:
    with Reader.open(journal.path) as reader:
        return report_facts(reader, now_us=NOW_US)


def failed(journal: Journal, ordinal: int, failure: str, operation: str = "PUT", at_us: int = NOW_US) -> None:
    journal.record([AttemptFailed(ordinal, operation, failure, f"of {ordinal}", 503)], now_us=at_us)


def requeued(journal: Journal, ordinals: Sequence[int], at_us: int, who: str = "op", source: int = 1) -> None:
    for ordinal in ordinals:
        park(journal, ordinal)
    assert journal.requeue(source=source, who=who, now_us=at_us) == len(ordinals)
    take(journal, source)


def test_failed_attempts_are_told_by_class_the_most_frequent_and_then_the_newest_first(
    journal: Journal,
) -> None:
    failed(journal, 1, "timeout")
    failed(journal, 2, "server")
    failed(journal, 11, "server", at_us=NOW_US + 1)
    failed(journal, 3, "server", at_us=NOW_US + 2)
    failed(journal, 4, "server", "HEAD", NOW_US + 3)
    park(journal, 5)
    park(journal, 6)
    found = told(journal)
    assert [
        (f.source, f.operation, f.failure, f.count, f.last_us, f.example_key) for f in found.failures
    ] == [
        ("source-1", "PUT", "server", 2, NOW_US + 2, "k00002"),
        ("source-1", "HEAD", "server", 1, NOW_US + 3, "k00003"),
        ("source-2", "PUT", "server", 1, NOW_US + 1, "k00050"),
        ("source-1", "PUT", "timeout", 1, NOW_US, "k00000"),
    ]
    assert (found.failures[0].data["message"], found.failures[0].data["http_status"]) == ("of 3", 503)
    assert found.failure_classes == len(found.attempts) == 4


def test_classes_of_failures_beyond_those_told_are_counted(journal: Journal) -> None:
    for number in range(module.FAILURES_TOLD_MAX + 2):
        failed(journal, 1, f"class-{number}")
    park(journal, 1)
    found = told(journal)
    assert (len(found.failures), found.failure_classes) == (50, 52)
    assert found.failures[-1].failure == "class-2"


def test_parked_keys_are_named_by_source_and_place_with_what_they_were_parked_for(journal: Journal) -> None:
    journal.record([Parked(7, "rejected", "400")], now_us=NOW_US + 2)
    journal.record([Parked(12, "forbidden", "403")], now_us=NOW_US + 1)
    journal.record([Parked(3, "foreign_object", "another")], now_us=NOW_US + 3)
    park(journal, 1)
    journal.requeue(row_keys=["k00000"], who="op", now_us=NOW_US)
    found = told(journal)
    assert found.parked == (
        ParkedKey("source-1", "k00002", "foreign_object", "another", NOW_US + 3),
        ParkedKey("source-1", "k00006", "rejected", "400", NOW_US + 2),
        ParkedKey("source-2", "k00051", "forbidden", "403", NOW_US + 1),
    )
    assert found.parked_keys == 3


def test_parked_keys_beyond_those_told_are_counted(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db", module.PARKED_TOLD_MAX + 1)
    take(journal, source)
    for ordinal in range(1, module.PARKED_TOLD_MAX + 2):
        park(journal, ordinal)
    found = told(journal)
    assert (len(found.parked), found.parked_keys) == (100, 101)
    assert found.parked[-1].row_key == "k00099"


def test_a_deed_on_many_keys_is_one_with_all_of_them_and_without_their_list(journal: Journal) -> None:
    requeued(journal, [1, 2], NOW_US)
    requeued(journal, [11], NOW_US + SECOND_US - 1, source=2)
    (found,) = told(journal).actions
    assert (found.keys, found.event.kind, found.event.ts_us, found.event.data) == (
        3,
        Kind.KEYS_REQUEUED,
        NOW_US,
        {"who": "op"},
    )


def test_deeds_a_second_apart_or_of_two_people_are_two(journal: Journal) -> None:
    requeued(journal, [1], NOW_US)
    requeued(journal, [1, 2], NOW_US + SECOND_US)
    requeued(journal, [2], NOW_US + SECOND_US, who="another")
    assert [(deed.keys, deed.event.data) for deed in told(journal).actions] == [
        (1, {"who": "op"}),
        (2, {"who": "op"}),
        (1, {"who": "another"}),
    ]


def test_deeds_that_name_no_key_are_each_told(journal: Journal) -> None:
    for _ in range(2):
        journal.note(Kind.DRAIN_REQUESTED, {"signal": "SIGTERM"}, now_us=NOW_US)
    found = told(journal)
    assert [(deed.keys, deed.event.data) for deed in found.actions] == [(0, {"signal": "SIGTERM"})] * 2
    assert found.action_count == 2


def test_the_newest_deeds_and_sessions_are_told_and_all_are_counted(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACTIONS_TOLD_MAX", 2)
    monkeypatch.setattr(module, "SESSIONS_TOLD_MAX", 2)
    journal.end_session(now_us=NOW_US + 1, reason="drained", exit_code=143)
    for number in range(3):
        journal.start_session(now_us=NOW_US + 10 * number + 10, facts={"pid": number})
        journal.note(Kind.DRAIN_REQUESTED, {"signal": str(number)}, now_us=NOW_US + 10 * number + 11)
        if number < 2:
            journal.end_session(now_us=NOW_US + 10 * number + 12, reason="drained", exit_code=143)
    found = told(journal)
    assert [deed.event.data["signal"] for deed in found.actions] == ["1", "2"]
    assert [(span.facts["pid"], span.ended_us) for span in found.sessions] == [
        (1, NOW_US + 22),
        (2, NOW_US + 31),
    ]
    assert (found.action_count, found.session_count, len(found.spans)) == (3, 4, 4)


def test_findings_are_told_by_run_and_kind_with_few_examples(journal: Journal) -> None:
    several = [["missing", n, f"k{n}", None if n else "gone"] for n in range(7)]
    for data in (
        {"run": 4, "findings": [*several[:4], ["differing", 1, "k1", "other bytes"]]},
        {"run": 4, "findings": several[4:]},
        {"run": 9, "findings": [["missing", None, 5, ""]]},
        {"findings": [["extra", None, "x", ""]]},
        {},
    ):
        journal.note(Kind.FINDING_RECORDED, {"tier": "list", **data}, source=1, now_us=NOW_US)
    assert told(journal).findings == {
        (4, "missing"): [("k0", "gone"), ("k1", ""), ("k2", ""), ("k3", ""), ("k4", "")],
        (4, "differing"): [("k1", "other bytes")],
        (9, "missing"): [("5", "")],
        (0, "extra"): [("x", "")],
    }


def test_what_was_found_outside_is_told_once_by_kind_and_source_the_newest_of_each(journal: Journal) -> None:
    for kind, source, data in (
        (Kind.PROBE_RECORDED, 2, {"n": 1}),
        (Kind.PROBE_RECORDED, 1, {"n": 2}),
        (Kind.SERVER_RECORDED, None, {"n": 3}),
        (Kind.ENDPOINT_PROBED, 1, {"n": 4}),
        (Kind.SETTINGS_CHANGED, None, {"n": 5}),
        (Kind.PROBE_RECORDED, 2, {"n": 6}),
    ):
        journal.note(kind, data, source=source, now_us=NOW_US)
    assert [(event.kind, event.source, event.data["n"]) for event in told(journal).environment] == [
        (Kind.PROBE_RECORDED, 1, 2),
        (Kind.SERVER_RECORDED, None, 3),
        (Kind.ENDPOINT_PROBED, 1, 4),
        (Kind.SETTINGS_CHANGED, None, 5),
        (Kind.PROBE_RECORDED, 2, 6),
    ]


def test_plans_that_a_later_one_replaces_are_counted(journal: Journal) -> None:
    settle(journal, range(1, 14))
    assert (told(journal).planned_hi, told(journal).superseded) == (13, 0)
    later = [PlannedRow("k00000", NOW_US - 1, 7, supersedes=1), PlannedRow("new", NOW_US - 2, 7)]
    plan(journal, later, source=1)
    assert (told(journal).planned_hi, told(journal).superseded) == (15, 1)


def test_a_report_tells_of_nothing_that_is_recorded_while_it_is_read(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def finish() -> None:
        data = {"run": 0, "tier": "list", "counts": {}}
        journal.note(Kind.VERIFICATION_FINISHED, data, now_us=NOW_US)
        journal.note(Kind.DRAIN_REQUESTED, {"signal": "SIGTERM"}, now_us=NOW_US)

    def anchor_at(connection: sqlite3.Connection, seq: int) -> Anchor:
        finish()
        return real(connection, seq)

    real = module.anchor_at
    finish()
    head_seq = journal.statistics().head_seq
    monkeypatch.setattr(module, "anchor_at", anchor_at)
    found = told(journal)
    assert journal.statistics().head_seq == head_seq + 2
    assert (found.anchor.head_seq, found.status.head_seq) == (head_seq, head_seq)
    assert [run.finished_seq for run in found.runs] == [head_seq - 1]
    assert [deed.event.seq for deed in found.actions] == [head_seq]


def test_a_journal_without_a_plan_is_told_as_empty(tmp_path: Path) -> None:
    found = told(create(tmp_path / "journal.db"))
    assert (found.planned_hi, found.superseded, found.failure_classes, found.parked_keys) == (0, 0, 0, 0)
    assert (found.failures, found.parked, found.actions, found.sessions, found.runs) == ((), (), (), (), ())
