"""How fast a migration goes, by its samples on record, and when it will be done; pure.

A lap is the time between two samples of one session. Time in which no session worked is in no lap: a dead hour
is no rate. Rates count every second of a lap. An ETA leaves out the seconds in which nothing new may begin (an
operator's pause, a throttle's hold) or nothing is copied (planning, closing), so that it holds still meanwhile;
a rate limit and a timetable slow the copying itself, and their time counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from daemon.causes import HOLDS, Cause
from daemon.rendering_rates import (
    ETA_AFTER_FRACTION,
    ETA_AFTER_SECONDS,
    NOTHING,
    SPAN_MIN_SECONDS,
    Amounts,
    eta,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from journal.control_status import Sample
    from journal.status import MigrationStatus, SourceStatus

SHORT_SECONDS, LONG_SECONDS = 60.0, 900.0
"""What the two rates look back over; sessions take a sample in 15 s."""
UNACCOUNTED_SECONDS_MAX = 5.0
"""What may lie between two samples beyond the time that the later one accounts for: more is the gap between two
sessions, or a clock that stepped."""
NOTHING_COPIED: frozenset[str] = frozenset({*HOLDS, Cause.OPERATOR, Cause.PLANNING, Cause.CLOSING})
"""Causes whose time is no evidence of how long the copying takes."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one source, or all, went of late; None where there is nothing to judge by.

    Attributes:
        rows_1m, rows_15m: keys settled per second, whatever their outcome.
        bytes_1m, bytes_15m: bytes uploaded per second.
        eta_seconds: of copying, until every key that is not parked is settled.
    """

    rows_1m: float | None = None
    bytes_1m: float | None = None
    rows_15m: float | None = None
    bytes_15m: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class _Lap:
    """What was done between two samples; outcomes taken back meanwhile (a repair, an undo) are no negative work."""

    end_us: int
    seconds: float
    copying_seconds: float
    rows: int
    settled_bytes: int
    stored_bytes: int


def speeds(status: MigrationStatus, *, now_us: int) -> tuple[dict[str, Speed], Speed]:
    """Return the speed of each source by name, and of all together.

    Nothing has a speed while no session works; what is done has an ETA of 0.
    """
    alive = at_work(status)
    laps = {source.name: _laps(status, source, now_us) for source in status.sources}
    wholes = {source.name: _whole(status, source) for source in status.sources}
    amounts = {source.name: amounts_of(source) for source in status.sources}
    by_name = {name: _speed(laps[name], wholes[name], amounts[name], now_us, alive=alive) for name in amounts}
    if not by_name:
        return {}, Speed()
    everything = sum(amounts.values(), NOTHING)
    (whole,) = _together([one] for one in wholes.values())
    return by_name, _speed(_together(laps.values()), whole, everything, now_us, alive=alive)


def amounts_of(source: SourceStatus) -> Amounts:
    """Return what there is to do for a source, and what is done of it."""
    counts = source.counts
    states = {one.state for one in source.passes}
    return Amounts(
        planned_rows=counts.planned_rows,
        planned_bytes=counts.planned_bytes,
        settled_rows=counts.settled,
        settled_bytes=counts.settled_bytes,
        left_out_rows=counts.parked,
        copied_bytes=counts.stored_bytes,
        plan_complete="sealed" in states and "open" not in states,
    )


def at_work(status: MigrationStatus) -> bool:
    """Say whether a session works on the migration, be it only that it waits."""
    return status.owner is not None and status.session is not None and status.session.ended_us is None


def _laps(status: MigrationStatus, source: SourceStatus, now_us: int) -> list[_Lap]:
    """Return the laps of one source, oldest first; the last one ends now."""
    samples = [sample for sample in status.samples if sample.source == source.id]
    laps = [
        _Lap(
            end_us=after.ts_us,
            seconds=spent,
            copying_seconds=_copying(after.spent_ms),
            rows=max(0, after.settled - before.settled),
            settled_bytes=max(0, after.settled_bytes - before.settled_bytes),
            stored_bytes=max(0, after.stored_bytes - before.stored_bytes),
        )
        for before, after in pairwise(samples)
        for spent in (sum(after.spent_ms.values()) / 1000,)
        if abs((after.ts_us - before.ts_us) / 1e6 - spent) <= UNACCOUNTED_SECONDS_MAX
    ]
    if samples and at_work(status):
        laps += _since(samples[-1], status, source, now_us)
    return laps


def _since(newest: Sample, status: MigrationStatus, source: SourceStatus, now_us: int) -> list[_Lap]:
    """Return the lap that is under way, unless the newest sample is an older session's, or the clock stepped."""
    seconds = (now_us - newest.ts_us) / 1e6
    if status.session is None or newest.ts_us < status.session.started_us or seconds <= 0:
        return []
    still = status.pause is not None or (
        status.throttle is not None and status.throttle.data["cause"] in NOTHING_COPIED
    )
    counts = source.counts
    return [
        _Lap(
            end_us=now_us,
            seconds=seconds,
            copying_seconds=0.0 if still else seconds,
            rows=max(0, counts.settled - newest.settled),
            settled_bytes=max(0, counts.settled_bytes - newest.settled_bytes),
            stored_bytes=max(0, counts.stored_bytes - newest.stored_bytes),
        )
    ]


def _copying(spent_ms: dict[str, int]) -> float:
    return sum(ms for cause, ms in spent_ms.items() if cause not in NOTHING_COPIED) / 1000


def _together(every: Iterable[Sequence[_Lap]]) -> list[_Lap]:
    """Return the laps of all sources as one row of laps; those of one moment end at the same time."""
    found: dict[int, _Lap] = {}
    for lap in (lap for laps in every for lap in laps):
        other = found.get(lap.end_us)
        found[lap.end_us] = (
            lap
            if other is None
            else replace(
                lap,
                rows=lap.rows + other.rows,
                settled_bytes=lap.settled_bytes + other.settled_bytes,
                stored_bytes=lap.stored_bytes + other.stored_bytes,
            )
        )
    return list(found.values())


def _speed(laps: Sequence[_Lap], whole: _Lap, amounts: Amounts, now_us: int, *, alive: bool) -> Speed:
    if not alive:
        done = amounts.plan_complete and amounts.settled_rows + amounts.left_out_rows >= amounts.planned_rows
        return Speed(eta_seconds=0.0 if done else None)
    short = _rates(laps, now_us, SHORT_SECONDS)
    long = _rates(laps, now_us, LONG_SECONDS)
    return Speed(*short, *long, eta_seconds=_eta(laps, whole, amounts))


def _rates(laps: Sequence[_Lap], now_us: int, window_seconds: float) -> tuple[float | None, float | None]:
    """Return rows settled and bytes uploaded per second over the laps that ended within the window."""
    oldest_us, later_us = now_us - round(window_seconds * 1e6), now_us
    seconds, rows, size = 0.0, 0, 0
    for lap in reversed(laps):
        if not oldest_us < lap.end_us <= later_us:
            break
        later_us = lap.end_us
        seconds += lap.seconds
        rows += lap.rows
        size += lap.stored_bytes
    if seconds < SPAN_MIN_SECONDS:
        return None, None
    return rows / seconds, size / seconds


def _eta(laps: Sequence[_Lap], whole: _Lap, amounts: Amounts) -> float | None:
    """Return the seconds of copying that are left, by the newest laps, else by the average of all sessions."""
    if not amounts.plan_complete:
        return None
    for evidence in (laps, [whole]):
        seconds = sum(lap.copying_seconds for lap in evidence)
        rows = sum(lap.rows for lap in evidence)
        size = sum(lap.settled_bytes for lap in evidence)
        enough = rows >= max(1, amounts.planned_rows * ETA_AFTER_FRACTION)
        if seconds >= ETA_AFTER_SECONDS or (enough and seconds >= SPAN_MIN_SECONDS):
            return eta(amounts, (rows / seconds, size / seconds))
    return eta(amounts, None)


def _whole(status: MigrationStatus, source: SourceStatus) -> _Lap:
    """Return all sessions as one lap, from the first sample to the newest outcome."""
    before = next((sample for sample in status.first_samples if sample.source == source.id), None)
    rows, settled_bytes = (0, 0) if before is None else (before.settled, before.settled_bytes)
    seconds = _copying(status.spent_ms)
    counts = source.counts
    return _Lap(
        0, seconds, seconds, max(0, counts.settled - rows), max(0, counts.settled_bytes - settled_bytes), 0
    )
