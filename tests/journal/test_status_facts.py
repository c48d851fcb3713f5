"""What a status tells beside the one word: each fact from its own event, the newest of its kind."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from journal.checkpoint import Order
from journal.entries import AttemptFailed, Parked
from journal.events import Kind
from journal.lock import Owner
from journal.reader import Reader
from journal.status import FailureStatus, NoteStatus, ParkedStatus, PassStatus, works_in
from tests.journal.journals import (
    NOW_US,
    abandon,
    create,
    park,
    reopen,
    settle,
    two_in_flight,
)

if TYPE_CHECKING:
    from pathlib import Path

    from journal.log import Journal
    from journal.status import MigrationStatus


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return two_in_flight(tmp_path / "journal.db")


def status(journal: Journal) -> MigrationStatus:
    with Reader.open(journal.path) as reader:
        return reader.status(now_us=NOW_US)


@pytest.mark.parametrize(("order", "cutoff_us"), [(Order.NEWEST_FIRST, None), (Order.OLDEST_FIRST, 5)])
def test_a_migration_is_told_with_what_it_was_created_with(
    tmp_path: Path, order: Order, cutoff_us: int | None
) -> None:
    found = status(create(tmp_path / "journal.db", order=order, cutoff_us=cutoff_us))
    assert (found.name, found.order, found.cutoff_us, found.created_us) == (
        "layer-cache",
        order,
        cutoff_us,
        NOW_US,
    )
    assert (found.session, found.completed_us, found.sources, found.head_seq) == (None, None, (), 1)


def test_a_session_that_has_ended_is_told_with_its_last_words(journal: Journal) -> None:
    began = status(journal).session
    assert began is not None
    assert (began.number, began.started_us, began.ended_us, began.message) == (1, NOW_US, None, None)
    journal.end_session(now_us=NOW_US + 9, reason="drained", exit_code=143, message="8 keys left")
    ended = status(journal).session
    assert ended is not None
    assert (ended.started_us, ended.ended_us, ended.message) == (NOW_US, NOW_US + 9, "8 keys left")


def test_each_source_is_told_with_its_own_probes_passes_and_closing(journal: Journal) -> None:
    for source, number in ((1, 10), (2, 20), (1, 11)):
        journal.note(Kind.PROBE_RECORDED, {"n": number}, source=source, now_us=NOW_US)
        journal.note(Kind.ENDPOINT_PROBED, {"n": number + 100}, source=source, now_us=NOW_US)
    journal.note(Kind.PROBE_RECORDED, {"n": 0}, now_us=NOW_US + 3)
    journal.begin_pass(2, kind="snapshot", now_us=NOW_US)
    journal.seal_segment(2, excluded={}, unusable=1, unusable_example="a//b", now_us=NOW_US)
    journal.close_source(2, proof="seen", proven=True, now_us=NOW_US)
    journal.begin_pass(1, kind="snapshot", now_us=NOW_US)
    found = status(journal)
    first, second = found.sources
    assert [(one.id, one.name, one.identity["table"]) for one in found.sources] == [
        (1, "source-1", "public.source-1"),
        (2, "source-2", "public.source-2"),
    ]
    assert [(one.probe, one.endpoint) for one in found.sources] == [
        ({"n": 11}, {"n": 111}),
        ({"n": 20}, {"n": 120}),
    ]
    assert found.probe == NoteStatus(NOW_US + 3, {"n": 0})
    assert first.passes == (PassStatus(1, "sweep", "sealed", 10), PassStatus(2, "snapshot", "open", 0))
    assert second.passes == (PassStatus(1, "sweep", "sealed", 3), PassStatus(2, "snapshot", "sealed", 0))
    assert (first.closed, first.closing_proof, first.proven, first.unusable_example) == (
        False,
        None,
        False,
        None,
    )
    assert (second.closed, second.closing_proof, second.proven, second.unusable_example) == (
        True,
        "seen",
        True,
        "a//b",
    )
    assert [one.counts.in_flight for one in found.sources] == [10, 3]


def test_a_source_that_nothing_has_probed_is_told_so(journal: Journal) -> None:
    journal.note(Kind.PROBE_RECORDED, {}, source=2, now_us=NOW_US)
    found = status(journal)
    assert [(one.probe, one.endpoint) for one in found.sources] == [(None, None), ({}, None)]
    assert found.probe is None


def test_the_last_outcome_is_each_sources_own(journal: Journal) -> None:
    journal.record([Parked(11, "rejected", "no")], now_us=NOW_US + 1)
    settle(journal, [1])
    first, second = status(journal).sources
    assert (first.last_outcome_us, second.last_outcome_us) == (NOW_US, None)


def test_the_server_is_the_newest_that_was_recorded_or_accepted(journal: Journal) -> None:
    assert status(journal).server is None
    journal.note(Kind.SERVER_RECORDED, {"n": 1}, now_us=NOW_US + 1)
    assert status(journal).server == NoteStatus(NOW_US + 1, {"n": 1})
    journal.accept_server({"n": 2}, who="op", now_us=NOW_US + 2)
    assert status(journal).server == NoteStatus(NOW_US + 2, {"facts": {"n": 2}, "who": "op"})
    journal.note(Kind.SERVER_RECORDED, {"n": 3}, now_us=NOW_US + 3)
    assert status(journal).server == NoteStatus(NOW_US + 3, {"n": 3})


def test_settings_last_and_what_a_session_adapted_or_was_halted_for_ends_with_it(journal: Journal) -> None:
    journal.note(Kind.SETTINGS_CHANGED, {"n": 1}, now_us=NOW_US)
    journal.note(Kind.CONCURRENCY_CHANGED, {"n": 2}, now_us=NOW_US)
    journal.note(Kind.HALTED, {"n": 3}, now_us=NOW_US)
    found = status(journal)
    assert found.settings == NoteStatus(NOW_US, {"n": 1})
    assert found.concurrency == NoteStatus(NOW_US, {"n": 2})
    assert found.halt == NoteStatus(NOW_US, {"n": 3})
    abandon(journal)
    with reopen(journal.path) as again:
        again.start_session(now_us=NOW_US, facts={"pid": os.getpid()})
        found = status(again)
        assert (found.settings, found.concurrency, found.halt) == (NoteStatus(NOW_US, {"n": 1}), None, None)


def test_a_cancelled_session_is_draining(journal: Journal) -> None:
    journal.note(Kind.CANCELLED, {}, now_us=NOW_US)
    assert status(journal).state == "draining"


def test_a_status_is_of_one_head_with_its_time(journal: Journal) -> None:
    seq = journal.note(Kind.SETTINGS_CHANGED, {}, now_us=NOW_US + 7)
    found = status(journal)
    assert (found.head_seq, found.last_event_us) == (seq, NOW_US + 7)


def test_at_most_five_failures_of_a_source_are_told_and_of_equals_the_newest_first(journal: Journal) -> None:
    for number in range(6):
        failed = AttemptFailed(1 + number, "PUT", f"class-{number}", f"of {number}")
        journal.record([failed], now_us=NOW_US + number)
    journal.record([AttemptFailed(11, "PUT", "server", "of another")], now_us=NOW_US + 9)
    park(journal, 9)
    first, second = status(journal).sources
    assert [one.failure for one in first.failures] == [f"class-{number}" for number in (5, 4, 3, 2, 1)]
    assert first.failures[0] == FailureStatus("PUT", "class-5", 1, "k00005", NOW_US + 5, "of 5")
    assert second.failures == (FailureStatus("PUT", "server", 1, "k00050", NOW_US + 9, "of another"),)


def test_parked_keys_are_told_by_reason_with_the_newest_of_each_and_of_their_source_only(
    journal: Journal,
) -> None:
    for ordinal, failure in (
        (4, "rejected"),
        (3, "forbidden"),
        (5, "forbidden"),
        (2, "forbidden"),
        (12, "x"),
    ):
        journal.record([Parked(ordinal, failure, f"of {ordinal}")], now_us=NOW_US)
    park(journal, 1)
    journal.requeue(row_keys=["k00000"], who="op", now_us=NOW_US)
    assert [one.parked for one in status(journal).sources] == [
        (
            ParkedStatus("forbidden", 3, "k00001", "of 2"),
            ParkedStatus("rejected", 1, "k00003", "of 4"),
        ),
        (ParkedStatus("x", 1, "k00051", "of 12"),),
    ]


OWNER = Owner(7, "h1", NOW_US)


@pytest.mark.parametrize(
    ("owner", "facts", "expected"),
    [
        (None, {"pid": 7, "host": "h1"}, False),
        (OWNER, {"pid": 7, "host": "h1"}, True),
        (OWNER, {"pid": 8, "host": "h1"}, False),
        (OWNER, {"pid": 7, "host": "h2"}, False),
        (OWNER, {"pid": 7}, True),
        (OWNER, {"host": "h1"}, True),
        (OWNER, {}, True),
        (Owner(0, "", 0), {"pid": 7, "host": "h1"}, True),
    ],
)
def test_a_session_is_alive_in_the_process_that_holds_the_journal(
    owner: Owner | None, facts: dict[str, object], expected: bool
) -> None:
    assert works_in(owner, facts) is expected
