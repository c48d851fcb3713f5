from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal.checkpoint import INFINITY_US, MINUS_INFINITY_US, Order
from journal.entries import OpenPass, PlannedRow
from journal.errors import IllegalTransition, JournalError
from journal.lifecycle import KeyState, Outcome
from journal.plan_log import CHUNK_KEYS_MAX
from tests.journal.journals import NOW_US, abandon, create, park, plan, planned, reopen, rows, settle, take

if TYPE_CHECKING:
    from pathlib import Path

    from journal.log import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return create(tmp_path / "journal.db")


def begun(journal: Journal, name: str = "a") -> int:
    source = journal.add_source(name, {"table": "t"}, now_us=NOW_US)
    journal.begin_pass(source, kind="sweep", now_us=NOW_US)
    return source


def test_every_value_of_a_planned_row_comes_back_as_it_was(journal: Journal) -> None:
    odd = [
        PlannedRow('ключ/é 😀 "quoted\\" \n', INFINITY_US, 2**62, None),
        PlannedRow("", 0, 0, None),
        PlannedRow('["a","1"]', MINUS_INFINITY_US, 5, None),
        PlannedRow("undated", None, 1, None),
    ]
    source = plan(journal, odd)
    assert [PlannedRow(*key[1:4]) for key in take(journal, source).keys] == odd


@pytest.mark.parametrize(
    ("order", "wrong"),
    [
        (Order.NEWEST_FIRST, [PlannedRow("a", 1, 0), PlannedRow("b", 2, 0)]),
        (Order.NEWEST_FIRST, [PlannedRow("a", 2, 0), PlannedRow("b", 2, 0)]),
        (Order.NEWEST_FIRST, [PlannedRow("a", None, 0), PlannedRow("b", 2, 0)]),
        (Order.NEWEST_FIRST, [PlannedRow("b", None, 0), PlannedRow("a", None, 0)]),
        (Order.NEWEST_FIRST, [PlannedRow("a", 2, 0), PlannedRow("a", 2, 0)]),
        (Order.OLDEST_FIRST, [PlannedRow("b", 2, 0), PlannedRow("a", 1, 0)]),
        (Order.OLDEST_FIRST, [PlannedRow("b", 2, 0), PlannedRow("a", 2, 0)]),
    ],
)
@pytest.mark.parametrize("in_one_chunk", [True, False])
def test_rows_out_of_processing_order_are_refused(
    tmp_path: Path, order: Order, wrong: list[PlannedRow], in_one_chunk: bool
) -> None:
    with create(tmp_path / "journal.db", order=order) as journal:
        source = begun(journal)
        if not in_one_chunk:
            journal.seal_chunk(source, wrong[:1], now_us=NOW_US)
        with pytest.raises(IllegalTransition, match="order"):
            journal.seal_chunk(source, wrong if in_one_chunk else wrong[1:], now_us=NOW_US)
        assert journal.sealed_rows_of_open_segment(source)[0] == (0 if in_one_chunk else 1)


@pytest.mark.parametrize(
    "row",
    [
        ("nul\0inside", 1, 1, None),
        ("lone \ud800 surrogate", 1, 1, None),
        ("a", 2**63, 1, None),
        ("a", 1.5, 1, None),
    ],
)
def test_a_row_that_can_not_be_written_down_is_refused(
    journal: Journal, row: tuple[str, int, int, None]
) -> None:
    source = begun(journal)
    with pytest.raises(IllegalTransition, match="can't be written down"):
        journal.seal_chunk(source, [row], now_us=NOW_US)


def test_a_chunk_has_an_upper_bound(journal: Journal) -> None:
    source = begun(journal)
    with pytest.raises(IllegalTransition, match=f"1 to {CHUNK_KEYS_MAX} rows"):
        journal.seal_chunk(source, rows(CHUNK_KEYS_MAX + 1), now_us=NOW_US)
    with pytest.raises(IllegalTransition, match="found 0"):
        journal.seal_chunk(source, [], now_us=NOW_US)


def test_sealing_goes_on_after_a_crash_where_it_stopped(tmp_path: Path) -> None:
    journal = create(tmp_path / "journal.db")
    source = begun(journal)
    journal.seal_chunk(source, rows(300), now_us=NOW_US)
    abandon(journal)
    with reopen(tmp_path / "journal.db") as journal:
        assert journal.open_pass(source) == OpenPass(1, "sweep", 300)
        count, last = journal.sealed_rows_of_open_segment(source)
        assert (count, last) == (300, rows(300)[-1])
        journal.seal_chunk(source, rows(50, first=300), now_us=NOW_US)
        journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        assert journal.open_pass(source) is None
        assert len(take(journal, source).keys) == 350


def test_keys_can_not_be_claimed_before_their_segment_is_sealed(journal: Journal) -> None:
    source = begun(journal)
    journal.seal_chunk(source, rows(3), now_us=NOW_US)
    assert not journal.has_unclaimed(source)
    assert journal.claim(source, limit=9, window=9, now_us=NOW_US) is None
    journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    assert journal.has_unclaimed(source)


def test_only_one_source_is_half_sealed_at_a_time(journal: Journal) -> None:
    first, second = begun(journal, "a"), begun(journal, "b")
    journal.seal_chunk(first, rows(3), now_us=NOW_US)
    with pytest.raises(IllegalTransition, match="source a is half sealed"):
        journal.seal_chunk(second, rows(3), now_us=NOW_US)
    journal.seal_segment(first, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
    journal.seal_chunk(second, rows(3), now_us=NOW_US)


def test_an_abandoned_pass_keeps_what_it_sealed(journal: Journal) -> None:
    source = begun(journal)
    journal.seal_chunk(source, rows(3), now_us=NOW_US)
    journal.abandon_pass(source, reason="the stage is gone", now_us=NOW_US)
    assert journal.begin_pass(source, kind="sweep", now_us=NOW_US) == 2
    assert len(take(journal, source).keys) == 3


def test_a_pass_that_adds_nothing_replaces_the_exclusions(journal: Journal) -> None:
    source = plan(journal, rows(3))
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    journal.seal_segment(source, excluded={"where": 9}, unusable=4, unusable_example="a//b", now_us=NOW_US)
    counts = journal.counts()["source-1"]
    assert (counts.excluded, counts.unusable, counts.planned_rows) == ({"where": 9}, 4, 3)


@pytest.mark.parametrize("unready", ["never planned", "pass open", "abandoned only"])
def test_a_source_closes_only_after_a_sealed_pass_and_with_none_open(journal: Journal, unready: str) -> None:
    source = journal.add_source("a", {}, now_us=NOW_US)
    if unready == "pass open":
        plan(journal, rows(1), source=source)
    if unready != "never planned":
        journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    if unready == "abandoned only":
        journal.abandon_pass(source, reason="", now_us=NOW_US)
    with pytest.raises(IllegalTransition, match="close source a"):
        journal.close_source(source, proof="p", proven=True, now_us=NOW_US)


def test_a_closed_source_is_planned_again_only_after_it_is_opened(journal: Journal) -> None:
    source = plan(journal, rows(1))
    journal.close_source(source, proof="no writer is left", proven=True, now_us=NOW_US)
    record = journal.sources["source-1"]
    assert (record.closed, record.closing_proof, record.proven) == (True, "no writer is left", True)
    with pytest.raises(IllegalTransition, match="closed"):
        journal.begin_pass(source, kind="sweep", now_us=NOW_US)
    journal.reopen_source(source, who="op", reason="reconcile", now_us=NOW_US)
    assert journal.begin_pass(source, kind="snapshot", now_us=NOW_US) == 2


def test_latest_tells_the_newest_plan_and_its_state(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db", 7)
    other = plan(journal, rows(7))
    take(journal, source, 5)
    settle(journal, [1], size=77)
    settle(journal, [2], Outcome.VANISHED, size=0)
    park(journal, 3)
    journal.release([4], now_us=NOW_US)
    journal.build_key_index()
    known = journal.latest(source, [f"k{i:05}" for i in range(7)] + ["unknown"])
    assert {key: (found.ordinal, found.state, found.size) for key, found in known.items()} == {
        "k00000": (1, KeyState.STORED, 77),
        "k00001": (2, KeyState.VANISHED, 0),
        "k00002": (3, KeyState.PARKED, 100),
        "k00003": (4, KeyState.PLANNED, 100),
        "k00004": (5, KeyState.IN_FLIGHT, 100),
        "k00005": (6, KeyState.PLANNED, 100),
        "k00006": (7, KeyState.PLANNED, 100),
    }
    assert journal.latest(other, ["k00000"])["k00000"].ordinal == 8


def test_latest_follows_a_key_to_the_plan_that_supersedes_it(tmp_path: Path) -> None:
    journal, source = planned(tmp_path / "journal.db", 2)
    journal.build_key_index()
    settle(journal, [key.ordinal for key in take(journal, source).keys])
    plan(journal, [rows(2)[1]._replace(size=500, supersedes=2)], source=source)
    known = journal.latest(source, ["k00000", "k00001"])
    assert (known["k00000"].ordinal, known["k00001"].ordinal) == (1, 3)
    assert known["k00001"].state is KeyState.PLANNED


def test_latest_refuses_to_scan(journal: Journal) -> None:
    with pytest.raises(JournalError, match="not indexed by key"):
        journal.latest(1, ["a"])


@pytest.mark.parametrize("supersedes", [1, 99])
def test_a_row_supersedes_an_earlier_plan_of_its_own_key_only(journal: Journal, supersedes: int) -> None:
    source = plan(journal, rows(2))
    journal.begin_pass(source, kind="snapshot", now_us=NOW_US)
    with pytest.raises(IllegalTransition, match="supersede"):
        journal.seal_chunk(source, [rows(2)[1]._replace(supersedes=supersedes)], now_us=NOW_US)


def test_differences_name_source_field_and_both_values(journal: Journal) -> None:
    journal.add_source("a", {"table": "public.a", "key": ("id", "part"), "where": None}, now_us=NOW_US)
    journal.add_source("b", {"table": "public.b"}, now_us=NOW_US)
    same = {"table": "public.a", "key": ["id", "part"], "where": None}
    assert journal.differences({"a": same, "b": {"table": "public.b"}, "new": {}}) == []
    found = journal.differences({"a": same | {"where": "x", "bucket": "c"}})
    assert [str(difference) for difference in found] == [
        'a.bucket: journal has null, config has "c"',
        'a.where: journal has null, config has "x"',
        "b.source: journal has present, config has missing",
    ]


def test_a_source_name_is_given_once(journal: Journal) -> None:
    journal.add_source("a", {}, now_us=NOW_US)
    with pytest.raises(IllegalTransition, match="has it already"):
        journal.add_source("a", {}, now_us=NOW_US)


def test_the_cutoff_is_fixed_once(tmp_path: Path) -> None:
    with create(tmp_path / "journal.db", cutoff_us=None) as journal:
        journal.set_cutoff(5, now_us=NOW_US)
        with pytest.raises(IllegalTransition, match="it is 5 already"):
            journal.set_cutoff(6, now_us=NOW_US)
    with reopen(tmp_path / "journal.db") as journal:
        assert journal.cutoff_us == 5


def test_a_note_of_an_undeclared_kind_is_refused(journal: Journal) -> None:
    for kind in ("outcomes_recorded", "made_up"):
        with pytest.raises(IllegalTransition, match=kind):
            journal.note(kind, {}, now_us=NOW_US)


def test_the_newest_note_of_a_kind_is_found_by_source(journal: Journal) -> None:
    source = plan(journal, rows(1))
    journal.note("probe_recorded", {"finding": "ignored"}, source=source, now_us=NOW_US)
    journal.note("probe_recorded", {"finding": "atomic"}, source=source, now_us=NOW_US)
    journal.accept_server({"system_identifier": "7"}, who="op", now_us=NOW_US)
    assert journal.latest_note("probe_recorded", source=source) == {"finding": "atomic"}
    assert journal.latest_note("probe_recorded") is None
    assert journal.latest_note("server_accepted") == {"facts": {"system_identifier": "7"}, "who": "op"}
