"""The safe checkpoint: how far everything is settled, derived anew each time; pure.

Processing order is a total order over (created_at, row_key) in which rows without created_at come last, by row
key. The position is the greatest planned key such that every planned key at or before it, in every segment, is
settled. Newest first, the ancestor's rule `created_at < cutoff` restarted with `cutoff_us` sees every planned,
dated key that is not settled, ties included: each has a created_at no later than the position's. Oldest first,
the mirror rule `created_at > floor_us` does the same. Neither sees rows without created_at.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INFINITY_US = 2**63 - 1
"""created_at = 'infinity' (the same constant as in the sources' rows)."""
MINUS_INFINITY_US = -(2**63)
"""created_at = '-infinity'."""

_INVERTED = bytes(255 - byte for byte in range(256))


class Order(StrEnum):
    """In which order keys are driven; never part of correctness."""

    NEWEST_FIRST = "newest-first"
    OLDEST_FIRST = "oldest-first"


@dataclass(frozen=True, slots=True)
class Position:
    """A planned key's place in processing order; created_at in microseconds since 1970-01-01 UTC."""

    created_at: int | None
    row_key: str


@dataclass(frozen=True, slots=True)
class SegmentView:
    """What the derivation needs of a segment; its keys lie sorted in processing order.

    Attributes:
        lo, hi: first and last ordinal, inclusive.
        first_unsettled: the least ordinal not settled; None if all are.
    """

    lo: int
    hi: int
    first_unsettled: int | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a source is settled without a gap.

    Attributes:
        position: the last key of the settled stretch; None while its first key is not settled.
        cutoff_us: value for `--cutoff-timestamp` (newest first, sealed plan, finite created_at only).
        floor_us: the mirror for oldest first: everything unsettled is later than this.
        held_by_parked: the source's parked keys, if one of them is the first unsettled key; else 0.
        complete: every planned key is settled.
        notes: what the printed value does not cover, and why there is none.
    """

    position: Position | None = None
    cutoff_us: int | None = None
    floor_us: int | None = None
    held_by_parked: int = 0
    complete: bool = False
    notes: tuple[str, ...] = ()


def sort_key(order: Order, created_at: int | None, row_key: str) -> tuple[Any, ...]:
    """Return what a key sorts by in processing order.

    Newest first: created_at and row key descending; oldest first: both ascending; rows without created_at last
    in both, by row key ascending. Row keys compare as UTF-8 bytes, as SQLite's BINARY collation has it.
    """
    raw = row_key.encode()
    if created_at is None:
        return (1, 0, raw)
    if order is Order.OLDEST_FIRST:
        return (0, created_at, raw)
    # 0xff ends the inverted bytes: no byte of UTF-8 text inverts to it (NUL, which PostgreSQL refuses, would).
    return (0, -created_at, raw.translate(_INVERTED) + b"\xff")


def in_order(order: Order, rows: Sequence[tuple[int | None, str]]) -> bool:
    """Tell whether (created_at, row_key) pairs ascend strictly in processing order.

    Comparing Python strings is comparing UTF-8 bytes (UTF-8 keeps code point order), and one pass over tuples
    costs a tenth of building `sort_key` for each.
    """
    dated = [row for row in rows if row[0] is not None]
    undated = [row[1] for row in rows[len(dated) :]]
    if any(row[0] is not None for row in rows[len(dated) :]):
        return False
    return _strictly_ascending(dated[::-1] if order is Order.NEWEST_FIRST else dated) and _strictly_ascending(
        undated
    )


def _strictly_ascending(values: Sequence[Any]) -> bool:
    return all(map(operator.lt, values, values[1:]))


def last_before(
    view: SegmentView, bound: tuple[Any, ...], key_at: Callable[[int], tuple[Any, ...]]
) -> int | None:
    """Return the greatest ordinal of `view` whose key sorts before `bound`, by bisection; None if none does."""
    low, high = view.lo, view.hi + 1
    while low < high:
        middle = (low + high) // 2
        if key_at(middle) < bound:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low > view.lo else None


def derive(
    order: Order,
    segments: Sequence[SegmentView],
    position_of: Callable[[int], Position],
    *,
    sealed: bool,
    closed: bool,
    parked: int,
    is_parked: Callable[[int], bool],
) -> Checkpoint:
    """Return the safe checkpoint of one source.

    Args:
        order: the migration's processing order.
        segments: every segment that holds keys, also one that is being sealed.
        position_of: looks up the plan; called O(segments * log keys) times.
        sealed: the plan is whole: a pass was sealed and none is half sealed.
        closed: the source is closed.
        parked: parked keys of the source.
        is_parked: tells whether an unsettled ordinal is parked; called once.
    """

    def key_at(ordinal: int) -> tuple[Any, ...]:
        place = position_of(ordinal)
        return sort_key(order, place.created_at, place.row_key)

    unsettled = [view.first_unsettled for view in segments if view.first_unsettled is not None]
    first = min(unsettled, key=key_at) if unsettled else None
    bound: tuple[Any, ...] = (2,) if first is None else key_at(first)
    ends = [last for view in segments if (last := last_before(view, bound, key_at)) is not None]
    position = position_of(max(ends, key=key_at)) if ends else None
    notes: list[str] = []
    cutoff_us = floor_us = None
    if not sealed:
        notes.append("the plan is not sealed yet")
    elif position is None:
        notes.append(
            "no key at the beginning of the order is settled yet" if segments else "nothing is planned"
        )
    elif position.created_at is None:
        notes.append("the position is among rows without created_at")
    elif position.created_at in {INFINITY_US, MINUS_INFINITY_US}:
        notes.append("the position's created_at is infinite")
    elif order is Order.NEWEST_FIRST:
        cutoff_us = position.created_at + 1
    else:
        floor_us = position.created_at - 1
    if cutoff_us is not None or floor_us is not None:
        notes.append("rows without created_at are not covered")
        if not closed:
            notes.append("rows that appear until the source is closed are not covered")
    return Checkpoint(
        position=position,
        cutoff_us=cutoff_us,
        floor_us=floor_us,
        held_by_parked=parked if first is not None and is_parked(first) else 0,
        complete=sealed and first is None,
        notes=tuple(notes),
    )
