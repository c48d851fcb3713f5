"""A running session in one line per source; pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.rendering_rates import NOTHING, Amounts, Meter, Pace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.checkpoint import Checkpoint
    from journal.entries import SourceCounts

TOTAL = "total"
"""The name of the line that sums all sources."""
SEPARATOR = " · "


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One source of a running session, out of the journal's counts.

    Attributes:
        planned: its plan is sealed, so the planned amounts are final until the closing pass.
        scanned_rows: rows read so far by the planning pass that is running; None when none is.
    """

    name: str
    counts: SourceCounts
    checkpoint: Checkpoint
    planned: bool
    scanned_rows: int | None = None

    @property
    def amounts(self) -> Amounts:
        """What its meter is fed with."""
        counts = self.counts
        return Amounts(
            planned_rows=counts.planned_rows,
            planned_bytes=counts.planned_bytes,
            settled_rows=counts.settled,
            settled_bytes=counts.settled_bytes,
            left_out_rows=counts.parked,
            copied_bytes=counts.stored_bytes,
            plan_complete=self.planned,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """A snapshot of a running session.

    Attributes:
        state: "planning", "running", "draining": the word that `status` uses.
    """

    state: str
    sources: tuple[SourceProgress, ...]

    @property
    def amounts(self) -> Amounts:
        """The sum over all sources."""
        return reduce(Amounts.__add__, (source.amounts for source in self.sources), NOTHING)


@dataclass(frozen=True, slots=True)
class Reading:
    """One line's numbers; `checkpoint` is None on the line that sums all sources."""

    name: str
    amounts: Amounts
    pace: Pace
    in_flight: int
    checkpoint: Checkpoint | None
    scanned_rows: int | None


class Meters:
    """One meter per source and one for the sum, through one session."""

    def __init__(self) -> None:
        self._meters: dict[str | None, Meter] = {}

    def read(self, at: float, progress: Progress) -> list[Reading]:
        """Note `progress` at the monotonic time `at` (seconds); return a reading per source, then the total.

        There is no total over a single source, nor over none: the journal may not know any yet.
        """
        readings = [
            Reading(
                source.name,
                source.amounts,
                self._meter(source.name).read(at, source.amounts),
                source.counts.in_flight,
                source.checkpoint,
                source.scanned_rows,
            )
            for source in progress.sources
        ]
        total = self._meter(None).read(at, progress.amounts)
        if len(readings) < 2:
            return readings
        scans = [reading.scanned_rows for reading in readings if reading.scanned_rows is not None]
        in_flight = sum(reading.in_flight for reading in readings)
        return [
            *readings,
            Reading(TOTAL, progress.amounts, total, in_flight, None, sum(scans) if scans else None),
        ]

    def _meter(self, name: str | None) -> Meter:
        return self._meters.setdefault(name, Meter())


def progress_line(reading: Reading, *, state: str = "running") -> str:
    """Return one line: name, share of rows settled, pace, ETA, parked, in flight, safe checkpoint.

    For example: "cas 41.2 % · 812 obj/s · 3.09 MiB/s · ETA 3h12m · parked 0 · in flight 64 · checkpoint
    2026-01-14T15:30:45.123456Z". The checkpoint is the value for `--cutoff-timestamp`, as `status` has it.
    """
    share = done(reading)
    words = [units.shown(reading.name), *([share] if share else []), *([state] if state != "running" else [])]
    parts = [" ".join(words)]
    if reading.scanned_rows is not None:
        parts.append(f"scanned {units.plural(reading.scanned_rows, 'row')}")
    pace = reading.pace
    parts += [
        units.rate(pace.rows_per_second, "obj"),
        units.byte_rate(pace.bytes_per_second),
        eta(reading),
        f"parked {units.count(reading.amounts.left_out_rows)}",
        f"in flight {units.count(reading.in_flight)}",
    ]
    if reading.checkpoint is not None:
        parts.append(f"checkpoint {checkpoint_word(reading.checkpoint)}")
    return SEPARATOR.join(parts)


def progress_fields(reading: Reading) -> dict[str, int | float | str | None]:
    """Return the numbers of `progress_line` for programs: rows, bytes, seconds; the checkpoint as its word."""
    amounts, pace = reading.amounts, reading.pace
    return {
        "planned_rows": amounts.planned_rows,
        "planned_bytes": amounts.planned_bytes,
        "settled_rows": amounts.settled_rows,
        "settled_bytes": amounts.settled_bytes,
        "parked": amounts.left_out_rows,
        "in_flight": reading.in_flight,
        "plan_complete": amounts.plan_complete,
        "scanned_rows": reading.scanned_rows,
        "rows_per_second": pace.rows_per_second,
        "bytes_per_second": pace.bytes_per_second,
        "eta_seconds": pace.eta_seconds,
        "checkpoint": None if reading.checkpoint is None else checkpoint_word(reading.checkpoint),
    }


def done(reading: Reading) -> str:
    """Return the share of rows settled; empty before there is a plan to take a share of."""
    amounts = reading.amounts
    if amounts.planned_rows == 0:
        return "nothing to do" if amounts.plan_complete else ""
    share = units.percent(amounts.settled_rows, amounts.planned_rows)
    return share if amounts.plan_complete else f"{share} so far"


def eta(reading: Reading) -> str:
    """Return "ETA 3h12m", or "ETA -" where nobody can honestly say."""
    seconds = reading.pace.eta_seconds
    return "ETA -" if seconds is None else f"ETA {units.duration(seconds)}"


def checkpoint_word(checkpoint: Checkpoint) -> str:
    """Return the safe checkpoint as `--cutoff-timestamp` takes it (newest first), its mirror, or "none"."""
    if checkpoint.cutoff_us is not None:
        word = units.moment(checkpoint.cutoff_us)
    elif checkpoint.floor_us is not None:
        word = f"after {units.moment(checkpoint.floor_us)}"
    else:
        word = "none"
    if checkpoint.held_by_parked:
        return f"{word} (held by {units.plural(checkpoint.held_by_parked, 'parked key')})"
    return word


def totals(counts: Iterable[SourceCounts]) -> dict[str, int]:
    """Return state to number of keys over all sources, recovered ones among the stored."""
    every = list(counts)
    return {
        "stored": sum(each.stored + each.recovered for each in every),
        "present": sum(each.present for each in every),
        "skipped": sum(each.skipped for each in every),
        "vanished": sum(each.vanished for each in every),
        "parked": sum(each.parked for each in every),
        "in flight": sum(each.in_flight for each in every),
        "waiting": sum(each.pending + each.unclaimed for each in every),
    }


def final_line(
    outcome: str, counts: Iterable[SourceCounts] | None, *, uploaded: int, seconds: float, exit_code: int
) -> str:
    """Return the last line of a command: outcome, every count, bytes, duration, exit code.

    Args:
        outcome: "every key is settled", "halted", …; one line.
        counts: the migration's, not only this session's; None where no journal tells any.
        uploaded: bytes that were uploaded in this session.
        seconds: how long the command lasted.
        exit_code: what the process will exit with.
    """
    told = "no keys on record"
    if counts is not None:
        told = ", ".join(f"{units.count(number)} {word}" for word, number in totals(counts).items())
    amount = f"{units.size(uploaded)} uploaded in {units.duration(seconds)}"
    return f"{units.shown(outcome)}: {told}; {amount}; exit code {exit_code}"
