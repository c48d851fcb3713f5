from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from journal.checkpoint import (
    INFINITY_US,
    MINUS_INFINITY_US,
    Checkpoint,
    Order,
    Position,
    SegmentView,
    derive,
    in_order,
    sort_key,
)

KEYS = st.text(alphabet="aAzé界😀~", max_size=3)
TIMES = st.one_of(st.none(), st.integers(0, 5), st.sampled_from([MINUS_INFINITY_US, INFINITY_US]))
ROW = st.tuples(TIMES, KEYS)


@dataclass
class Planned:
    created_at: int | None
    row_key: str
    settled: bool


@st.composite
def plans(draw: st.DrawFn, order: Order) -> list[list[Planned]]:
    """Segments, each sorted, with a settled flag per key; times tie often."""
    segments = draw(st.lists(st.lists(ROW, unique=True, min_size=1, max_size=12), max_size=3))
    return [
        [
            Planned(*row, settled=draw(st.booleans()))
            for row in sorted(rows, key=lambda row: sort_key(order, *row))
        ]
        for rows in segments
    ]


def derived(order: Order, segments: list[list[Planned]], *, sealed: bool = True) -> Checkpoint:
    every = [key for segment in segments for key in segment]
    views = []
    lo = 1
    for segment in segments:
        unsettled = [lo + index for index, key in enumerate(segment) if not key.settled]
        views.append(SegmentView(lo, lo + len(segment) - 1, unsettled[0] if unsettled else None))
        lo += len(segment)
    return derive(
        order,
        views,
        lambda ordinal: Position(every[ordinal - 1].created_at, every[ordinal - 1].row_key),
        sealed=sealed,
        closed=False,
        parked=3,
        is_parked=lambda ordinal: ordinal % 2 == 0,
    )


@given(plans(Order.NEWEST_FIRST))
def test_the_ancestors_rule_restarted_from_the_printed_cutoff_sees_every_unsettled_dated_key(
    segments: list[list[Planned]],
) -> None:
    cutoff_us = derived(Order.NEWEST_FIRST, segments).cutoff_us
    unsettled = [
        key for segment in segments for key in segment if not key.settled and key.created_at is not None
    ]
    if cutoff_us is not None:
        assert all(key.created_at < cutoff_us for key in unsettled)  # type: ignore[operator]


@given(plans(Order.OLDEST_FIRST))
def test_the_mirror_rule_restarted_from_the_floor_sees_every_unsettled_dated_key(
    segments: list[list[Planned]],
) -> None:
    floor_us = derived(Order.OLDEST_FIRST, segments).floor_us
    unsettled = [
        key for segment in segments for key in segment if not key.settled and key.created_at is not None
    ]
    if floor_us is not None:
        assert all(key.created_at > floor_us for key in unsettled)  # type: ignore[operator]


@given(st.data(), st.sampled_from(Order))
def test_the_position_is_the_last_key_before_any_unsettled_one(data: st.DataObject, order: Order) -> None:
    segments = data.draw(plans(order))
    every = sorted(
        (key for segment in segments for key in segment),
        key=lambda key: sort_key(order, key.created_at, key.row_key),
    )
    unsettled = [sort_key(order, key.created_at, key.row_key) for key in every if not key.settled]
    before = [
        Position(key.created_at, key.row_key)
        for key in every
        if not unsettled or sort_key(order, key.created_at, key.row_key) < unsettled[0]
    ]
    found = derived(order, segments)
    assert found.position == (before[-1] if before else None)
    assert found.complete == (not unsettled)


@given(st.sampled_from(Order), st.lists(ROW, unique=True, max_size=8))
def test_in_order_agrees_with_sort_key(order: Order, rows: list[tuple[int | None, str]]) -> None:
    ascending = sorted(rows, key=lambda row: sort_key(order, *row))
    assert in_order(order, ascending)
    assert in_order(order, rows) == (rows == ascending)


@given(st.sampled_from(Order), ROW, ROW)
def test_sort_key_is_total_and_tells_every_two_rows_apart(
    order: Order, one: tuple[int | None, str], other: tuple[int | None, str]
) -> None:
    first, second = sort_key(order, *one), sort_key(order, *other)
    assert (first < second) + (second < first) + (one == other) == 1


def test_newest_first_descends_in_both_columns_and_puts_undated_rows_last_by_key() -> None:
    rows = [(5, "b"), (5, "ab"), (5, "a"), (4, "z"), (None, "a"), (None, "b")]
    assert sorted(set(rows), key=lambda row: sort_key(Order.NEWEST_FIRST, *row)) == rows


def test_oldest_first_ascends_in_both_columns_and_puts_undated_rows_last_by_key() -> None:
    rows = [(4, "z"), (5, "a"), (5, "ab"), (5, "b"), (None, "a"), (None, "b")]
    assert sorted(set(rows), key=lambda row: sort_key(Order.OLDEST_FIRST, *row)) == rows


def test_no_cutoff_is_given_while_the_plan_is_not_sealed() -> None:
    found = derived(Order.NEWEST_FIRST, [[Planned(5, "a", settled=True)]], sealed=False)
    assert (found.cutoff_us, found.complete, found.notes) == (None, False, ("the plan is not sealed yet",))


def test_the_cutoff_is_one_microsecond_after_the_position() -> None:
    found = derived(Order.NEWEST_FIRST, [[Planned(5, "b", settled=True), Planned(5, "a", settled=False)]])
    assert (found.position, found.cutoff_us) == (Position(5, "b"), 6)


def test_an_infinite_created_at_gives_no_cutoff() -> None:
    assert derived(Order.NEWEST_FIRST, [[Planned(INFINITY_US, "b", settled=True)]]).cutoff_us is None


def test_an_undated_position_gives_no_cutoff_and_says_so() -> None:
    found = derived(Order.NEWEST_FIRST, [[Planned(1, "b", settled=True), Planned(None, "a", settled=True)]])
    assert found.cutoff_us is None
    assert found.notes == ("the position is among rows without created_at",)


def test_parked_keys_are_named_when_one_of_them_is_the_first_unsettled_key() -> None:
    settled, unsettled = Planned(9, "z", settled=True), Planned(1, "a", settled=False)
    assert derived(Order.NEWEST_FIRST, [[settled, unsettled]]).held_by_parked == 3
    assert derived(Order.NEWEST_FIRST, [[unsettled]]).held_by_parked == 0


def test_what_no_checkpoint_covers_is_noted() -> None:
    row = Planned(5, "b", settled=True)
    undated = "rows without created_at are not covered"
    late = "rows that appear until the source is closed are not covered"
    assert derived(Order.NEWEST_FIRST, [[row]]).notes == (undated, late)
    found = derived(Order.OLDEST_FIRST, [[row, Planned(5, "c", settled=False)]])
    assert (found.cutoff_us, found.floor_us, found.notes) == (None, 4, (undated, late))
    infinite = derived(Order.NEWEST_FIRST, [[Planned(INFINITY_US, "b", settled=True)]])
    assert infinite.notes == ("the position's created_at is infinite",)
    assert derived(Order.NEWEST_FIRST, []).notes == ("nothing is planned",)
    first = derived(Order.NEWEST_FIRST, [[Planned(5, "b", settled=False)]])
    assert first.notes == ("no key at the beginning of the order is settled yet",)


def test_parked_keys_are_counted_only_where_one_of_them_holds_the_checkpoint() -> None:
    rows = [Planned(5, "b", settled=True), Planned(5, "a", settled=False)]
    assert derived(Order.NEWEST_FIRST, [rows]).held_by_parked == 3
    assert derived(Order.NEWEST_FIRST, [rows[1:]]).held_by_parked == 0
    assert derived(Order.NEWEST_FIRST, [rows[:1]]).held_by_parked == 0
