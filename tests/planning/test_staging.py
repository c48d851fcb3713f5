from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.layouts import Layout, object_key, suspect_row_keys_longer_than, unusable_reason
from daemon.objects import PROBE_KEY_NAME
from journal.checkpoint import Order, sort_key
from journal.errors import JournalFailed
from journal.stage_file import StageLost, crc_of, crc_of_key, discard_stage, stage_path
from journal.staging import RelationProgress, Stage, StageIdentity
from tests.planning.stages import IDENTITY, add

if TYPE_CHECKING:
    from pathlib import Path

    from journal.staging import StagedRow

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "ab", "é", "z", "日", "0", "B", ""]),
        st.one_of(st.none(), st.integers(0, 3), st.sampled_from([-(2**63), 2**63 - 1])),
        st.integers(0, 9),
    ),
    max_size=20,
)


def everything(stage: Stage, limit: int = 3) -> list[StagedRow]:
    rows: list[StagedRow] = []
    while page := stage.page(len(rows), limit):
        rows += page
    return rows


@given(rows=ROWS)
def test_both_ways_to_the_checksum_of_a_key_agree(rows: list[StagedRow]) -> None:
    assert [crc_of_key(*row) for row in rows] == [crc_of(*row) for row in rows]


@pytest.mark.parametrize("order", list(Order))
@given(rows=ROWS)
@settings(max_examples=60)
def test_rows_come_out_once_each_in_the_journals_processing_order(
    order: Order, rows: list[StagedRow], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("stage")
    with closing(Stage.create(directory / "j", StageIdentity(1, 1, "", order), memo="")) as stage:
        add(stage, rows)
        stage.sort()
        handed_out = everything(stage)
        repeated = stage.totals().repeated
    last_read = {row[0]: row for row in rows}
    assert handed_out == sorted(last_read.values(), key=lambda row: sort_key(order, row[1], row[0]))
    assert repeated == len(rows) - len(last_read)


def test_a_key_read_again_in_another_relation_keeps_the_last_read(stage: Stage) -> None:
    add(stage, [("a", 1, 10), ("b", 1, 1)], relation=7)
    add(stage, [("a", 2, 20)], relation=8)
    stage.sort()
    assert everything(stage) == [("a", 2, 20), ("b", 1, 1)]
    assert stage.totals().repeated_key == "a"


def test_a_stage_resumes_with_its_rows_progress_and_memo(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1)], 0, 64)
    add(stage, [("c", 1, 1)], relation=8, filenode=80)
    stage.close()
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        assert resumed.progress() == {7: RelationProgress(70, 64), 8: RelationProgress(80, None)}
        assert resumed.memo == "why"
        add(resumed, [("b", 1, 1)], 64)
        resumed.sort()
        assert [row[0] for row in everything(resumed)] == ["c", "b", "a"]


def test_a_killed_transaction_leaves_neither_rows_nor_progress(stage: Stage) -> None:

    def dies() -> object:
        yield ("a", 1, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.add(dies(), relation=7, filenode=70, first_block=0, next_block=64, seen=1, excluded={})
    assert stage.progress() == {}
    stage.sort()
    assert everything(stage) == []


def test_totals_add_up_rows_seen_and_exclusions_by_reason(stage: Stage) -> None:
    add(stage, [("a", 1, 5)], 0, 64)
    add(stage, [("b", 1, 7)], 64)
    totals = stage.totals()
    assert totals.seen == 4
    assert totals.excluded == {"where": 2, "null_value": 0}


@pytest.mark.parametrize("hole", [{"first": 65}, {"first": 0}, {"first": 64, "filenode": 71}])
def test_a_range_that_leaves_a_hole_is_refused(stage: Stage, hole: dict[str, int]) -> None:
    add(stage, [("a", 1, 1)], 0, 64)
    with pytest.raises(ValueError, match="does not follow"):
        add(stage, [("b", 1, 1)], **hole)
    stage.sort()
    assert everything(stage) == [("a", 1, 1)]


def test_nothing_is_added_behind_the_last_range_of_a_relation(stage: Stage) -> None:
    add(stage, [("a", 1, 1)])
    with pytest.raises(ValueError, match="does not follow"):
        add(stage, [("b", 1, 1)], 0)


def test_a_rewritten_relation_loses_its_rows_and_no_other(stage: Stage) -> None:
    add(stage, [("a", 1, 1)], relation=7)
    add(stage, [("b", 1, 1)], relation=8)
    stage.restart_relation(7)
    assert set(stage.progress()) == {8}
    add(stage, [("c", 1, 1)], relation=7, filenode=99)
    stage.sort()
    assert [row[0] for row in everything(stage)] == ["c", "b"]


@pytest.mark.parametrize(
    "other",
    [
        StageIdentity(2, 1, "scope", Order.NEWEST_FIRST),
        StageIdentity(1, 2, "scope", Order.NEWEST_FIRST),
        StageIdentity(1, 1, "another", Order.NEWEST_FIRST),
        StageIdentity(1, 1, "scope", Order.OLDEST_FIRST),
    ],
)
def test_a_stage_of_something_else_is_not_resumed(journal: Path, other: StageIdentity) -> None:
    Stage.create(journal, IDENTITY, memo="").close()
    with pytest.raises(StageLost, match="belongs to"):
        Stage.resume(journal, other)


def test_creating_a_stage_discards_an_older_one(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1)])
    stage.close()
    with closing(Stage.create(journal, IDENTITY, memo="")) as newer:
        assert (newer.progress(), newer.totals().seen) == ({}, 0)


def test_a_missing_or_half_created_stage_or_one_of_another_release_is_lost(journal: Path) -> None:
    with pytest.raises(StageLost, match="gone"):
        Stage.resume(journal, IDENTITY)
    stage_path(journal).touch()
    with pytest.raises(StageLost, match="format 0, expected"):
        Stage.resume(journal, IDENTITY)


def test_a_stage_of_garbage_is_lost(journal: Path) -> None:
    stage_path(journal).write_bytes(b"garbage" * 1000)
    with pytest.raises(StageLost):
        Stage.resume(journal, IDENTITY)


def test_a_damaged_page_is_found_when_it_is_read(stage: Stage, journal: Path) -> None:
    add(stage, [(f"{n:08}", n, 1) for n in range(5000)])
    stage.close()
    content = bytearray(stage_path(journal).read_bytes())
    content[8 * 4096 : 12 * 4096] = b"\xff" * 4 * 4096
    stage_path(journal).write_bytes(content)
    with pytest.raises(StageLost), closing(Stage.resume(journal, IDENTITY)) as resumed:
        resumed.sort()


def test_rows_that_went_missing_are_found_before_sealing(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1), ("b", 1, 1)])
    stage.close()
    with closing(sqlite3.connect(stage_path(journal))) as other, other:
        other.execute("delete from staged where row_key = 'a'")
    resumed = Stage.resume(journal, IDENTITY)
    with closing(resumed), pytest.raises(StageLost, match="1 rows, expected 2"):
        resumed.sort()


def test_a_directory_that_is_not_there_is_a_journal_failure(tmp_path: Path) -> None:
    with pytest.raises(JournalFailed, match="create"):
        Stage.create(tmp_path / "missing" / "journal.db", IDENTITY, memo="")


def test_the_stage_is_readable_by_its_owner_only_and_leaves_nothing_behind(
    stage: Stage, journal: Path
) -> None:
    add(stage, [("a", 1, 1)])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in journal.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    stage.discard()
    assert list(journal.parent.iterdir()) == []


def test_discarding_a_stage_that_does_not_exist_is_no_error(journal: Path) -> None:
    discard_stage(journal)
    assert not stage_path(journal).exists()


def test_sorting_spills_beside_the_journal(stage: Stage, journal: Path) -> None:
    assert stage._db.execute("pragma temp_store_directory").fetchone() == (str(journal.parent.resolve()),)
    assert stage._db.execute("pragma temp_store").fetchone() == (1,)


def test_a_sorted_stage_resumes_at_the_last_sealed_key(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1), ("b", 2, 1), ("c", None, 1)])
    stage.sort()
    stage.close()
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        assert resumed.is_sorted
        assert resumed.page(resumed.position_of("a")) == [("c", None, 1)]
        with pytest.raises(StageLost, match="not in it"):
            resumed.position_of("x")


LAYOUTS = st.builds(
    Layout,
    prefix=st.sampled_from(["", "p/", "é", "p/.back"]),
    kind=st.sampled_from(["flat", "tiered"]),
    reverse=st.booleans(),
)
PROBE_LIKE = st.sampled_from(
    [spelt for end in (PROBE_KEY_NAME, f"a/{PROBE_KEY_NAME}", "fill-probe") for spelt in (end, end[::-1])]
)
TRICKY = st.text(st.sampled_from('./\\a"é\n\x01\x7f\x85*[]'), max_size=8)


@given(
    layout=LAYOUTS,
    keys=st.lists(
        st.one_of(TRICKY, TRICKY.map(lambda key: key + "é" * 511), PROBE_LIKE), max_size=12, unique=True
    ),
)
@example(layout=Layout(), keys=[PROBE_KEY_NAME])
@example(layout=Layout(kind="tiered"), keys=[PROBE_KEY_NAME])
@example(layout=Layout(reverse=True), keys=[PROBE_KEY_NAME[::-1]])
@example(layout=Layout(prefix="p/.back"), keys=["fill-probe"])
@example(layout=Layout(prefix="p/.back", reverse=True), keys=["eborp-llif"])
@example(layout=Layout(composite=True), keys=['["a",".backfill-probe"]'])
@example(layout=Layout(composite=True, reverse=True), keys=['["eborp-llifkcab.","a"]'])
@settings(max_examples=60)
def test_every_unusable_key_is_among_the_suspects(
    layout: Layout, keys: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with closing(Stage.create(tmp_path_factory.mktemp("stage") / "j", IDENTITY, memo="")) as stage:
        add(stage, [(key, 0, 0) for key in keys])
        stage.sort()
        suspects = {
            key
            for _, key in stage.suspects(
                longer_than=suspect_row_keys_longer_than(layout), reserved=PROBE_KEY_NAME, after=0
            )
        }
    assert {key for key in keys if unusable_reason(object_key(layout, key))} <= suspects


def test_plain_keys_are_no_suspects_and_pages_of_suspects_follow_each_other(stage: Stage) -> None:
    add(stage, [(key, 0, 0) for key in ("plain", "a.b-c_d", "日本", "x/y", "a\\b", "..")])
    stage.sort()
    first = stage.suspects(longer_than=900, reserved="~", after=0, limit=2)
    rest = stage.suspects(longer_than=900, reserved="~", after=first[-1][0], limit=2)
    assert {key for _, key in first + rest} == {"x/y", "a\\b", ".."}


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.NEWEST_FIRST, ["c", "é", "b", "a", "B", "z"]),
        (Order.OLDEST_FIRST, ["a", "b", "é", "c", "B", "z"]),
    ],
)
def test_rows_without_a_time_come_last_and_ties_go_by_the_bytes_of_their_keys(
    journal: Path, order: Order, expected: list[str]
) -> None:
    with closing(Stage.create(journal, StageIdentity(1, 1, "", order), memo="")) as stage:
        add(stage, [("é", 2, 1), ("z", None, 1), ("a", -1, 1), ("c", 3, 1), ("B", None, 1), ("b", 2, 1)])
        stage.sort()
        assert [row[0] for row in everything(stage)] == expected


def test_repeated_reads_are_counted_once_sorted_and_after_a_resumption(stage: Stage, journal: Path) -> None:
    add(stage, [("a", 1, 1), ("b", 1, 1), ("a", 2, 2)], 0, 64)
    add(stage, [("a", 3, 3)], 64)
    assert (stage.totals().repeated, stage.is_sorted) == (0, False)
    stage.sort()
    assert (stage.totals().repeated, stage.is_sorted) == (2, True)
    stage.close()
    with closing(Stage.resume(journal, IDENTITY)) as resumed:
        assert (resumed.totals().repeated, everything(resumed)) == (2, [("a", 3, 3), ("b", 1, 1)])


def test_nothing_is_added_to_a_sorted_stage(stage: Stage) -> None:
    add(stage, [("a", 1, 1)], 0, 64)
    stage.sort()
    with pytest.raises(ValueError, match="does not follow"):
        add(stage, [("b", 1, 1)], 64)


def test_pages_follow_each_other_up_to_the_end(stage: Stage) -> None:
    add(stage, [(str(n), 9 - n, n) for n in range(5)])
    assert stage.page(0) == []
    stage.sort()
    assert [row[0] for row in stage.page(0, 2)] == ["0", "1"]
    assert stage.page(3, 2) == [("3", 6, 3), ("4", 5, 4)]
    assert stage.page(4, 9) == [("4", 5, 4)]
    assert stage.page(5, 1) == []
    assert [stage.position_of(key) for key in "024"] == [1, 3, 5]


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "a..b",
        'a""b',
        "a/b",
        "a\\b",
        "a\x01",
        "a\x1f",
        "\x7f",
        "\x9f",
        "é" * 5,
        "x.end",
        "dne.x",
        ".e",
        "d",
    ],
)
def test_each_thing_that_may_make_a_key_unusable_makes_it_a_suspect(stage: Stage, key: str) -> None:
    add(stage, [("plain", 2, 0), (key, 1, 0), ("a-b", 0, 0)])
    stage.sort()
    assert stage.suspects(longer_than=9, reserved=".end", after=0) == [(2, key)]
    assert stage.suspects(longer_than=9, reserved=".end", after=2) == []


def test_a_key_as_long_as_may_be_is_no_suspect(stage: Stage) -> None:
    add(stage, [("é" * 5, 0, 0)])
    stage.sort()
    assert stage.suspects(longer_than=10, reserved="~", after=0) == []
