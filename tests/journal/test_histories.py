from __future__ import annotations

from typing import TYPE_CHECKING

from journal import histories
from journal.entries import AttemptFailed, Settled
from journal.lifecycle import KeyState, Outcome
from journal.reader import Reader
from tests.journal.journals import MD5, NOW_US, abandon, park, plan, planned, reopen, rows, settle, take

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    import pytest


def test_the_whole_life_of_one_key_is_told_in_order(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 5)
    journal.record([AttemptFailed(3, "PUT", "server", "answered 503", 503, request_id="r1")], now_us=NOW_US)
    abandon(journal)
    journal = reopen(path)
    journal.start_session(now_us=NOW_US, facts={})
    journal.recover(now_us=NOW_US)
    take(journal, source)
    park(journal, 3)
    journal.requeue(who="op", now_us=NOW_US)
    take(journal, source, 1)
    journal.record([Settled(3, Outcome.RECOVERED, 100, MD5, "etag", "v1")], now_us=NOW_US)
    journal.note(
        "finding_recorded", {"findings": [["missing", 3], ["missing", 4]], "ordinals": [3, 4]}, now_us=NOW_US
    )
    with Reader.open(path) as reader:
        (history,) = reader.explain("k00002")
    assert [event.kind for event in history.events] == [
        "chunk_sealed",
        "keys_claimed",
        "attempt_failed",
        "keys_recovered",
        "keys_reclaimed",
        "key_parked",
        "keys_requeued",
        "keys_reclaimed",
        "outcomes_recorded",
        "finding_recorded",
    ]
    assert history.events[2].data["request_id"] == "r1"
    assert history.events[3].data == {"session": 1, "ordinal": 3}
    assert history.events[-2].data["outcome"] == "recovered"
    assert history.events[-1].data == {"findings": [["missing", 3]], "ordinal": 3}
    assert (history.ordinal, history.source, history.state) == (3, "source-1", KeyState.STORED)
    assert (history.outcome, history.size, history.md5, history.etag, history.version_id) == (
        Outcome.RECOVERED,
        100,
        MD5,
        "etag",
        "v1",
    )
    journal.close()


def test_a_key_is_explained_in_each_state_and_source(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 3)
    plan(journal, rows(1))
    take(journal, source, 2)
    park(journal, 2)
    with Reader.open(path) as reader:
        found = [
            (h.source, h.ordinal, h.state)
            for key in ("k00000", "k00001", "k00002")
            for h in reader.explain(key)
        ]
        assert reader.explain("k99999") == []
    assert found == [
        ("source-1", 1, KeyState.IN_FLIGHT),
        ("source-2", 4, KeyState.PLANNED),
        ("source-1", 2, KeyState.PARKED),
        ("source-1", 3, KeyState.PLANNED),
    ]
    journal.close()


def test_the_key_index_answers_as_the_scan_does(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 3)
    with Reader.open(path) as reader:
        scanned = reader.explain("k00001")
        journal.build_key_index()
        assert reader.explain("k00001") == scanned
        plans = reader.read(
            lambda connection: connection.execute(
                "EXPLAIN QUERY PLAN SELECT ordinal FROM plan WHERE row_key = 'a' ORDER BY 1"
            ).fetchall()
        )
    assert "plan_by_key" in plans[0][3]
    journal.close()


def test_objects_are_the_stored_and_present_keys_with_what_they_must_be(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source)
    journal.record(
        [
            Settled(1, Outcome.STORED, 150, MD5),
            Settled(2, Outcome.SKIPPED, 100),
            Settled(3, Outcome.PRESENT, 100, MD5, "other-etag"),
            Settled(4, Outcome.VANISHED, 0),
            Settled(5, Outcome.RECOVERED, 100, MD5),
        ],
        now_us=NOW_US,
    )
    park(journal, 6)
    with Reader.open(path) as reader:
        page = reader.objects()
    assert [(o.ordinal, o.source, o.row_key, o.size, o.md5, o.etag, o.outcome) for o in page.objects] == [
        (1, source, "k00000", 150, MD5, None, Outcome.STORED),
        (3, source, "k00002", 100, MD5, "other-etag", Outcome.PRESENT),
        (5, source, "k00004", 100, MD5, None, Outcome.RECOVERED),
    ]
    assert page.next_after_seq is None
    journal.close()


def test_objects_come_in_pages_that_miss_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 10)
    while claim := journal.claim(source, limit=3, window=9, now_us=NOW_US):
        settle(journal, [key.ordinal for key in claim.keys])
    found: list[int] = []
    pages = 0
    with Reader.open(path) as reader:
        after: int | None = 0
        while after is not None:
            page = reader.objects(after_seq=after, limit=5)
            found += [item.ordinal for item in page.objects]
            after = page.next_after_seq
            pages += 1
    assert (found, pages) == (list(range(1, 11)), 2)
    journal.close()


def test_a_page_of_objects_ends_among_many_keys_that_have_none(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 10)
    while claim := journal.claim(source, limit=2, window=9, now_us=NOW_US):
        last = claim.keys[0].ordinal == 9
        outcome = Outcome.STORED if last else Outcome.SKIPPED
        settle(journal, [key.ordinal for key in claim.keys], outcome)
    with Reader.open(path) as reader:
        first = reader.objects(limit=4)
        assert (first.objects, first.next_after_seq is None) == ((), False)
        second = reader.objects(after_seq=first.next_after_seq or 0, limit=10)
    assert [item.ordinal for item in second.objects] == [9, 10]
    journal.close()


def test_an_object_gives_way_to_the_later_plan_of_its_key_once_that_is_stored(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    first, second = rows(2)
    plan(
        journal, [first._replace(size=5, supersedes=1), second._replace(size=5, supersedes=2)], source=source
    )

    def expected() -> list[int]:
        with Reader.open(path) as reader:
            return [item.ordinal for item in reader.objects().objects]

    assert expected() == [1, 2], "nothing has replaced them yet"
    take(journal, source)
    settle(journal, [3])
    assert expected() == [2, 3]
    settle(journal, [4], Outcome.VANISHED, size=0)
    assert expected() == [2, 3], "the row is gone, the object is not"
    plan(journal, [second._replace(size=6, supersedes=4)], source=source)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    assert expected() == [3, 5], "a plan is superseded through a vanished one in between"
    with Reader.open(path) as reader:
        assert [(h.ordinal, h.supersedes, h.superseded_by) for h in reader.explain("k00001")] == [
            (2, None, 4),
            (4, 2, 5),
            (5, 4, None),
        ]
    journal.close()


def test_no_query_of_a_keys_life_walks_a_table_of_keys(tmp_path: Path) -> None:
    """The claim alone is sought by a walk, over part of the log; claims and segments are small tables."""
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    journal.build_key_index()
    take(journal, source)
    settle(journal, range(1, 11))
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    journal.seal_chunk(source, [("k00000", None, 7, 1)], now_us=NOW_US)
    journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    statements: list[str] = []

    def told(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statements.append)
        for ordinal in histories.ordinals_of(connection, "k00000"):
            histories.key_history(connection, ordinal)
        connection.set_trace_callback(None)

    with Reader.open(path) as reader:
        reader.read(told)
        plans = {
            statement: reader.read(
                lambda connection, statement=statement: [
                    row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
                ]
            )
            for statement in set(statements)
        }
    assert len(plans) > 8
    walks = {
        line
        for lines in plans.values()
        for line in lines
        if line.startswith("SCAN") and "CONSTANT" not in line
    }
    assert walks <= {"SCAN claim", "SCAN l", "SCAN verification"}
    journal.close()


def test_the_claim_of_a_key_is_sought_no_further_back_than_its_plan_and_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source)
    for _ in range(5):
        journal.record([AttemptFailed(2, "PUT", "server", "answered 503", 503)], now_us=NOW_US)
    settle(journal, range(1, 11))
    with Reader.open(path) as reader:
        assert [event.kind for event in reader.explain("k00000")[0].events] == [
            "chunk_sealed",
            "keys_claimed",
            "outcomes_recorded",
        ]
        monkeypatch.setattr(histories, "EVENTS_WALKED_MAX", 5)
        assert len(reader.explain("k00000")[0].events) == 2
    journal.close()


def test_a_key_is_told_with_what_was_planned_and_found_of_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    take(journal, source)
    abandon(journal)
    journal = reopen(path)
    journal.start_session(now_us=NOW_US, facts={})
    journal.recover(now_us=NOW_US)
    take(journal, source)
    settle(journal, [1], size=7)
    outcome_seq = journal.statistics().head_seq
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    journal.seal_chunk(source, [("k00000", None, 9, 1)], now_us=NOW_US)
    journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    with Reader.open(path) as reader:
        (settled, again), (waiting,) = reader.explain("k00000"), reader.explain("k00001")
    assert [
        (h.created_at, h.planned_size, h.pass_number, h.pass_kind) for h in (settled, waiting, again)
    ] == [
        (NOW_US - 1000, 100, 1, "sweep"),
        (NOW_US - 1001, 100, 1, "sweep"),
        (None, 9, 2, "snapshot"),
    ]
    assert [(h.outcome, h.size, h.md5, h.etag, h.version_id, h.outcome_seq) for h in (settled, waiting)] == [
        (Outcome.STORED, 7, MD5, None, None, outcome_seq),
        (None, None, None, None, None, None),
    ]
    assert [(h.state, h.recoveries) for h in (settled, waiting, again)] == [
        (KeyState.STORED, 0),
        (KeyState.IN_FLIGHT, 1),
        (KeyState.PLANNED, 0),
    ]
    assert (waiting.source_id, waiting.identity["table"]) == (source, "public.source-1")
    journal.close()


def test_a_key_is_replaced_by_the_first_later_plan_that_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 1)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    ends = []
    for earlier in (1, 2):
        plan(journal, [rows(1)[0]._replace(supersedes=earlier)], source=source)
        settle(journal, [key.ordinal for key in take(journal, source).keys])
        ends.append(journal.statistics().head_seq)
    with Reader.open(path) as reader:
        assert [history.replaced_seq for history in reader.explain("k00000")] == [ends[0], ends[1], None]
    journal.close()


def test_batches_are_told_with_what_concerns_the_key_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 3)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    deleted = {"ordinals": [1, 2], "bytes": [5, 6], "versions": ["a", "b"], "who": "op"}
    journal.note("objects_deleted", deleted, now_us=NOW_US)
    journal.note("hook_ran", {"bytes": 1}, ordinal=2, now_us=NOW_US)
    with Reader.open(path) as reader:
        *_, outcome, deletion, hook = (event.data for event in reader.explain("k00001")[0].events)
    assert outcome == {
        "ordinal": 2,
        "outcome": "stored",
        "size": 100,
        "md5": MD5,
        "etag": None,
        "version_id": None,
    }
    assert (deletion, hook) == ({"who": "op", "ordinal": 2}, {"bytes": 1, "ordinal": 2})
    journal.close()


def test_an_object_is_told_with_its_version_and_the_event_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    take(journal, source)
    journal.record([Settled(2, Outcome.STORED, 5, MD5, "etag", "v1")], now_us=NOW_US)
    seq = journal.statistics().head_seq
    with Reader.open(path) as reader:
        expected = histories.ExpectedObject(
            2, source, "k00001", NOW_US - 1001, 5, MD5, "etag", Outcome.STORED, seq, "v1"
        )
        assert reader.objects().objects == (expected,)
        assert reader.objects_of([2]) == [expected]
        assert reader.objects(limit=1) == histories.ObjectPage((expected,), seq)
        assert reader.objects(limit=2).next_after_seq is None
        assert reader.objects(after_seq=seq).objects == reader.objects(until_seq=seq - 1).objects == ()
        assert reader.objects(after_seq=seq - 1, until_seq=seq).objects == (expected,)
    journal.close()
