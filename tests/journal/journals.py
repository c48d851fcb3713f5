"""Small journals in every state, for the tests of this directory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from journal.checkpoint import Order
from journal.entries import Claim, Parked, PlannedRow, Settled
from journal.lifecycle import Outcome
from journal.log import Journal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NOW_US = 1_760_000_000_000_000
MD5 = "0cc175b9c0f1b6a831c399e269772661"


OPENED: list[Journal] = []
"""What `create` and `reopen` have returned; closed after each test."""


def create(path: Path, *, order: Order = Order.NEWEST_FIRST, cutoff_us: int | None = NOW_US) -> Journal:
    journal = Journal.create(path, name="layer-cache", cutoff_us=cutoff_us, order=order, now_us=NOW_US)
    OPENED.append(journal)
    return journal


def reopen(path: Path) -> Journal:
    journal = Journal.open(path, now_us=NOW_US, wait_seconds=0)
    OPENED.append(journal)
    return journal


def rows(count: int, *, first: int = 0, size: int = 100) -> list[PlannedRow]:
    """Rows k00000, k00001, ... newest first."""
    return [PlannedRow(f"k{i:05}", NOW_US - 1000 - i, size) for i in range(first, first + count)]


def plan(
    journal: Journal, planned: Sequence[PlannedRow], *, source: int | None = None, chunk: int = 10_000
) -> int:
    """Seal one whole pass over a source, made if it is not given; return its id."""
    if source is None:
        name = f"source-{len(journal.sources) + 1}"
        source = journal.add_source(name, {"table": f"public.{name}", "key": ["id"]}, now_us=NOW_US)
    journal.begin_pass(source, kind="sweep", now_us=NOW_US)
    for first in range(0, len(planned), chunk):
        journal.seal_chunk(source, planned[first : first + chunk], now_us=NOW_US)
    journal.seal_segment(source, excluded={"where": 2}, unusable=0, unusable_example=None, now_us=NOW_US)
    return source


def planned(path: Path, count: int = 10) -> tuple[Journal, int]:
    """A new journal with a session and one source of `count` keys."""
    journal = create(path)
    journal.start_session(now_us=NOW_US, facts={"pid": os.getpid()})
    return journal, plan(journal, rows(count))


def take(journal: Journal, source: int, limit: int = 1000, window: int = 1000) -> Claim:
    claim = journal.claim(source, limit=limit, window=window, now_us=NOW_US)
    assert claim is not None
    return claim


def two_in_flight(path: Path) -> Journal:
    """Two sources of ten and three keys, all in flight."""
    journal, first = planned(path)
    second = plan(journal, rows(3, first=50))
    for source in (first, second):
        take(journal, source)
    return journal


def settle(
    journal: Journal, ordinals: Sequence[int], outcome: Outcome = Outcome.STORED, size: int = 100
) -> None:
    journal.record([Settled(ordinal, outcome, size, MD5) for ordinal in ordinals], now_us=NOW_US)


def park(journal: Journal, ordinal: int, failure: str = "rejected") -> None:
    journal.record([Parked(ordinal, failure, "the server refuses this key")], now_us=NOW_US)


def abandon(journal: Journal) -> None:
    """Let go of a journal as SIGKILL would, so that the same process can open it again."""
    journal._closed = True
    journal._connection.close()
    journal._lock.release()
