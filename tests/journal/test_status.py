from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from daemon.rendering_advice import reason
from journal.as_of import status_as_of
from journal.checkpoint import Position
from journal.entries import AttemptFailed, PlannedRow, SourceCounts
from journal.reader import Reader
from journal.status import MigrationState, derive_state
from tests.journal.journals import NOW_US, abandon, create, park, plan, planned, reopen, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.status import MigrationStatus

BUSY = SourceCounts(in_flight=1)
IDLE = SourceCounts(unclaimed=1)
PARKED = SourceCounts(parked=1)


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        (MigrationState.RUNNING, {"alive": True, "session_open": True, "counts": [BUSY]}),
        (MigrationState.RUNNING, {"alive": True, "session_open": True, "pass_open": True, "counts": [BUSY]}),
        (MigrationState.PLANNING, {"alive": True, "session_open": True, "pass_open": True, "counts": [IDLE]}),
        (MigrationState.DRAINING, {"alive": True, "session_open": True, "draining": True, "counts": [BUSY]}),
        (
            MigrationState.DRAINING,
            {"alive": True, "session_open": True, "draining": True, "paused": True, "counts": []},
        ),
        (MigrationState.PAUSED, {"alive": True, "session_open": True, "paused": True, "counts": [BUSY]}),
        (MigrationState.STOPPED, {"paused": True, "counts": [IDLE]}),
        (MigrationState.KILLED, {"session_open": True, "counts": [BUSY]}),
        (MigrationState.KILLED, {"session_open": True, "draining": True, "counts": [BUSY]}),
        (MigrationState.STOPPED, {"counts": [IDLE]}),
        (MigrationState.STOPPED, {"alive": True, "counts": [IDLE]}),
        (MigrationState.STOPPED, {"counts": [PARKED, IDLE]}),
        (MigrationState.STOPPED, {"counts": [PARKED], "pass_open": True}),
        (MigrationState.STOPPED, {"counts": []}),
        (MigrationState.HALTED, {"halted": True, "counts": [PARKED]}),
        (MigrationState.COMPLETE_WITH_PARKED, {"counts": [PARKED]}),
        (MigrationState.COMPLETE, {"completed": True, "counts": []}),
        (MigrationState.COMPLETE, {"completed": True, "alive": True, "session_open": True, "counts": []}),
    ],
)
def test_state_in_one_word(expected: MigrationState, facts: dict[str, object]) -> None:
    quiet = dict.fromkeys(
        ("alive", "session_open", "completed", "draining", "halted", "paused", "pass_open"), False
    )
    assert derive_state(**(quiet | facts)) is expected  # type: ignore[arg-type]


def read(path: Path) -> MigrationStatus:
    with Reader.open(path) as reader:
        return reader.status(now_us=NOW_US)


def test_a_session_is_told_from_start_to_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 2)
    assert read(path).state is MigrationState.RUNNING
    journal.note("drain_requested", {"signal": "SIGTERM"}, now_us=NOW_US)
    assert read(path).state is MigrationState.DRAINING
    journal.release([1, 2], now_us=NOW_US)
    journal.end_session(now_us=NOW_US + 9, reason="drained", exit_code=143, message="8 keys left")
    journal.close()
    found = read(path)
    assert (found.state, found.owner) == (MigrationState.STOPPED, None)
    assert found.session is not None
    assert (found.session.number, found.session.facts) == (1, {"pid": os.getpid()})
    assert (found.session.ended_us, found.session.reason, found.session.exit_code) == (
        NOW_US + 9,
        "drained",
        143,
    )
    assert found.last_event_us == NOW_US + 9


def test_a_killed_session_has_no_end_and_the_next_one_forgets_its_drain_and_halt(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 2)
    journal.note("drain_requested", {}, now_us=NOW_US)
    journal.note("halted", {"message": "bucket is gone"}, now_us=NOW_US)
    abandon(journal)
    found = read(path)
    assert found.state is MigrationState.KILLED
    assert found.halt is not None
    assert found.halt.data == {"message": "bucket is gone"}
    with reopen(path) as journal:
        journal.start_session(now_us=NOW_US, facts={"pid": os.getpid()})
        found = read(path)
        assert (found.state, found.halt) == (MigrationState.RUNNING, None)


@pytest.mark.parametrize("dead", [{"pid": 1}, {"pid": os.getpid(), "host": "another"}])
def test_a_session_stays_killed_while_another_process_holds_the_journal_and_has_begun_none(
    tmp_path: Path, dead: dict[str, object]
) -> None:
    path = tmp_path / "journal.db"
    journal = create(path)
    journal.start_session(now_us=NOW_US, facts=dead)
    abandon(journal)
    with reopen(path) as journal:
        found = read(path)
        with Reader.open(path) as reader:
            then = status_as_of(reader, NOW_US)
        assert found.owner is not None
        assert (found.state, then and then.state) == (MigrationState.KILLED, MigrationState.KILLED)
        assert reason(found, NOW_US).endswith(
            f"; {found.owner} holds the journal and has begun no session yet"
        )
        journal.start_session(now_us=NOW_US, facts={"pid": os.getpid(), "host": socket.gethostname()})
        assert read(path).state is MigrationState.RUNNING


def test_a_halted_session_says_why(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, _ = planned(path)
    journal.note("halted", {"message": "403 on PUT"}, now_us=NOW_US)
    journal.end_session(now_us=NOW_US, reason="halted", exit_code=6)
    journal.close()
    found = read(path)
    assert found.state is MigrationState.HALTED
    assert found.halt is not None
    assert found.halt.data["message"] == "403 on PUT"


def test_the_end_is_complete_or_complete_with_parked(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    take(journal, source)
    settle(journal, [1])
    park(journal, 2)
    journal.end_session(now_us=NOW_US, reason="parked keys", exit_code=3)
    journal.close()
    assert read(path).state is MigrationState.COMPLETE_WITH_PARKED
    with reopen(path) as journal:
        journal.start_session(now_us=NOW_US, facts={})
        journal.requeue(who="op", now_us=NOW_US)
        settle(journal, [key.ordinal for key in take(journal, source).keys])
        assert journal.complete(now_us=NOW_US + 5)
        journal.end_session(now_us=NOW_US, reason="done", exit_code=0)
    found = read(path)
    assert (found.state, found.completed_us) == (MigrationState.COMPLETE, NOW_US + 5)


def test_failures_are_counted_by_class_with_the_newest_example(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source)
    journal.record(
        [
            AttemptFailed(1, "PUT", "server", "answered 500", 500),
            AttemptFailed(2, "PUT", "timeout", "no answer in 60 s"),
            AttemptFailed(3, "PUT", "server", "answered 503", 503),
        ],
        now_us=NOW_US,
    )
    found = read(path).sources[0].failures
    assert [(f.operation, f.failure, f.count, f.example_key, f.message) for f in found] == [
        ("PUT", "server", 2, "k00002", "answered 503"),
        ("PUT", "timeout", 1, "k00001", "no answer in 60 s"),
    ]
    journal.close()


def test_the_checkpoint_moves_with_the_settled_stretch_and_back_with_a_requeue(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path)
    take(journal, source, 6)

    def position() -> Position | None:
        assert journal.checkpoints()["source-1"] == read(path).sources[0].checkpoint
        return journal.checkpoints()["source-1"].position

    def place(index: int) -> Position:
        row = rows(10)[index]
        return Position(row.created_at, row.row_key)

    assert position() is None
    settle(journal, [2, 3])
    assert position() is None
    settle(journal, [1])
    assert position() == place(2)
    park(journal, 4)
    settle(journal, [5, 6])
    assert position() == place(2)
    assert journal.checkpoints()["source-1"].held_by_parked == 1
    journal.requeue(who="op", now_us=NOW_US)
    settle(journal, [key.ordinal for key in take(journal, source, 1).keys])
    assert position() == place(5)
    plan(journal, [rows(1, first=2)[0]._replace(row_key="k00002-late")], source=source)
    assert position() == place(1), "k00002-late sorts before k00002"
    journal.close()


def test_the_cutoff_says_what_it_does_not_cover_until_the_source_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    open_source = journal.checkpoints()["source-1"]
    assert open_source.cutoff_us == rows(2)[-1].created_at + 1  # type: ignore[operator]
    assert "rows that appear until the source is closed are not covered" in open_source.notes
    journal.close_source(source, proof="p", proven=True, now_us=NOW_US)
    assert journal.checkpoints()["source-1"].notes == ("rows without created_at are not covered",)
    journal.close()


@pytest.mark.parametrize("settled", [range(1, 5), [1, 2, 3, 6], [1, 2, 5, 6], [2, 3, 4, 5, 6]])
def test_the_ancestors_rule_restarted_without_the_journal_misses_nothing_even_among_ties(
    tmp_path: Path, settled: list[int]
) -> None:
    """D1: the ancestor printed the newest unfinished timestamp, which its own strict rule then left out."""
    table = [("f", 9), ("e", 7), ("d", 7), ("c", 7), ("b", 5), ("a", None)]
    path = tmp_path / "journal.db"
    journal = create(path)
    source = plan(journal, [PlannedRow(row_key, created_at, 1) for row_key, created_at in table])
    take(journal, source)
    settle(journal, list(settled))
    journal.close()
    cutoff_us = read(path).sources[0].checkpoint.cutoff_us
    path.unlink()
    unfinished = {row_key for ordinal, (row_key, _) in enumerate(table, 1) if ordinal not in settled}
    selected = {row_key for row_key, at in table if at is not None and (cutoff_us is None or at < cutoff_us)}
    assert unfinished - selected <= {"a"}, "rows without created_at are named as not covered"


def test_passes_closing_probe_and_notes_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    journal.seal_segment(source, excluded={}, unusable=1, unusable_example="a//b", now_us=NOW_US)
    journal.close_source(source, proof="no older transaction", proven=False, now_us=NOW_US)
    journal.note("probe_recorded", {"finding": "atomic"}, source=source, now_us=NOW_US)
    journal.note("server_recorded", {"version": 18}, now_us=NOW_US)
    for data in ({"tier": "list", "n": 1}, {"tier": "content"}, {"tier": "list", "n": 2}):
        journal.note("verification_finished", data, now_us=NOW_US)
    found = read(path)
    shown = found.sources[0]
    assert [(item.number, item.kind, item.state, item.rows) for item in shown.passes] == [
        (1, "sweep", "sealed", 2),
        (2, "snapshot", "sealed", 0),
    ]
    assert (shown.closed, shown.closing_proof, shown.proven) == (True, "no older transaction", False)
    assert (shown.probe, shown.unusable_example) == ({"finding": "atomic"}, "a//b")
    assert found.server is not None
    assert found.server.data == {"version": 18}
    assert [one.data for one in found.verifications] == [{"tier": "list", "n": 2}, {"tier": "content"}]
    journal.close()


@pytest.mark.parametrize("addition", ["a source", "a pass"])
def test_a_finished_migration_to_which_something_is_added_is_finished_no_more(
    tmp_path: Path, addition: str
) -> None:
    path = tmp_path / "journal.db"
    journal, source = planned(path, 2)
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    assert journal.complete(now_us=NOW_US)
    assert read(path).state is MigrationState.COMPLETE
    if addition == "a source":
        added = journal.add_source("added", {}, now_us=NOW_US)
        assert (read(path).state, read(path).completed_us) == (MigrationState.RUNNING, None)
        journal.begin_pass(added, kind="sweep", now_us=NOW_US)
    else:
        added = source
        journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    assert (read(path).state, read(path).completed_us) == (MigrationState.PLANNING, None)
    journal.seal_segment(added, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    assert journal.complete(now_us=NOW_US + 9)
    assert (read(path).state, read(path).completed_us) == (MigrationState.COMPLETE, NOW_US + 9)
    journal.close()
