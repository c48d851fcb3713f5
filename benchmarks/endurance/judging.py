"""Whether a soak's samples show that something grows, and whether its deaths were as they had to be; pure.

Flat means: within a stretch, which is the calm and the faults that one daemon process lived through without its first
SETTLING_SECONDS, the median of the last third is at most a twentieth, and a constant, above that of the first third.
"""

from __future__ import annotations

import signal
import statistics
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from benchmarks.endurance.migration import claim_window
from benchmarks.endurance.sampling import Usage
from benchmarks.endurance.schedule import Phase
from journal.connection import CACHE_KIB, WAL_BYTES_KEPT, WAL_PAGES_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.endurance.journal_facts import Facts
    from benchmarks.endurance.sampling import Sample

SETTLING_SECONDS = 15.0
"""Of a stretch: pools fill, and after a start so do caches."""
STRETCH_SECONDS_MIN = 60.0
"""A shorter stretch is not judged."""
JUDGED_SECONDS_MIN = 300.0
"""A soak that lasts has to have such a stretch; a shorter one only tries whether all works."""
GROWTH_MAX = 0.05
BEYOND_DAEMON = Usage(rss=CACHE_KIB * 1024, fds=4, threads=2)
"""Added to that: SQLite's page cache fills up as the plan is read, and a few descriptors come and go."""
BEYOND_UPLOADER = Usage(rss=4 * 2**20, fds=4, threads=2)
"""The same for each upload process."""
WAL_CHECKPOINTED = WAL_PAGES_MAX * (4096 + 24)
"""Bytes of WAL after which the writer checkpoints, and which it grows to. A reader at that moment puts it off."""
UNREACHABLE = 5
STOPPED = 143


@dataclass(frozen=True, slots=True)
class Death:
    """How a daemon ended in mid-soak.

    Attributes:
        code: negative for a signal.
        sent: signals that it was sent.
        met_outage: a server or the network was out in its life.
    """

    at: float
    code: int
    sent: frozenset[int]
    met_outage: bool

    @property
    def is_expected(self) -> bool:
        """Say whether it ended as its signals, or an end that did not answer, let it."""
        return (
            (self.code == -signal.SIGKILL and signal.SIGKILL in self.sent)
            or (self.code == STOPPED and signal.SIGTERM in self.sent)
            or (self.code == UNREACHABLE and self.met_outage)
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples of one daemon process."""

    samples: Sequence[Sample]

    @property
    def name(self) -> str:
        """From when to when."""
        return f"{self.begin:,.0f} to {self.samples[-1].at:,.0f} s"

    @property
    def begin(self) -> float:
        return self.samples[0].at

    @property
    def seconds(self) -> float:
        return self.samples[-1].at - self.begin

    @property
    def settled(self) -> int:
        """Keys that were settled in it."""
        return self.samples[-1].progress.settled - self.samples[0].progress.settled


@dataclass(frozen=True, slots=True)
class Verdict:
    """One rule, applied."""

    rule: str
    is_met: bool
    said: str


def stretches(samples: Sequence[Sample]) -> list[Stretch]:
    """Return the stretches that are long enough to be judged, without the time that they need to settle."""
    found = []
    copying = [
        sample
        for sample in samples
        if sample.pid and sample.is_copying and sample.phase in {Phase.CALM, Phase.FAULTS}
    ]
    for _, group in groupby(copying, lambda sample: sample.pid):
        whole = list(group)
        settled = [sample for sample in whole if sample.at >= whole[0].at + SETTLING_SECONDS]
        if settled and settled[-1].at - settled[0].at >= STRETCH_SECONDS_MIN:
            found.append(Stretch(settled))
    return found


def grown(values: Sequence[float], beyond: float) -> str | None:
    """Return how `values` grew, in words, where they did not stay flat."""
    third = len(values) // 3
    first, last = statistics.median(values[:third]), statistics.median(values[-third:])
    if last <= first * (1 + GROWTH_MAX) + beyond:
        return None
    return f"from {first:,.0f} to {last:,.0f}"


def flatness(stretch: Stretch) -> list[Verdict]:
    """Judge what the daemon and its upload processes took in a stretch."""
    most = max(sample.count for sample in stretch.samples)
    complete = [sample for sample in stretch.samples if sample.count == most]
    parties: list[tuple[str, list[Usage], Usage, int]] = [
        ("daemon", [sample.daemon for sample in stretch.samples], BEYOND_DAEMON, 1),
        ("upload processes", [sample.uploaders for sample in complete], BEYOND_UPLOADER, most),
    ]
    verdicts = []
    for party, usages, beyond, processes in parties[: 2 if most else 1]:
        for what in Usage._fields:
            values = [float(getattr(usage, what)) for usage in usages]
            told = grown(values, processes * getattr(beyond, what))
            rule = f"{what} of the {party}, {stretch.name}"
            verdicts.append(Verdict(rule, told is None, told or _range(what, values)))
    return verdicts


def _range(what: str, values: Sequence[float]) -> str:
    unit, divisor = (" MB", 1e6) if what == "rss" else ("", 1.0)
    return f"{min(values) / divisor:,.0f} to {max(values) / divisor:,.0f}{unit}"


def wal_bounded(samples: Sequence[Sample]) -> Verdict:
    """Judge the write-ahead log by what the journal says that it is cut to."""
    peak = max((sample.wal for sample in samples), default=0)
    return Verdict(
        f"the journal's WAL is at most {WAL_BYTES_KEPT / 1e6:,.0f} MB",
        peak <= WAL_BYTES_KEPT,
        f"at most {peak / 1e6:,.1f} MB",
    )


def wal_reused(stretch: Stretch) -> Verdict:
    """Judge whether checkpoints keep the log from growing: one that is never done, or held up by a reader, does not."""
    third = len(stretch.samples) // 3
    first, last = (
        max(sample.wal for sample in part) for part in (stretch.samples[:third], stretch.samples[-third:])
    )
    most = max(first, 2 * WAL_CHECKPOINTED) * (1 + GROWTH_MAX)
    rule = f"the WAL is used again after a checkpoint, {stretch.name}"
    return Verdict(rule, last <= most, f"{first / 1e6:,.1f} MB at first, {last / 1e6:,.1f} MB at last")


def deaths_expected(deaths: Sequence[Death]) -> Verdict:
    """Judge how daemons ended."""
    odd = [f"code {death.code} at {death.at:,.0f} s" for death in deaths if not death.is_expected]
    return Verdict(
        "no daemon ended but by what was done to it", not odd, ", ".join(odd) or f"{len(deaths)} deaths"
    )


def uploaders_killed(facts: Facts) -> Verdict:
    """Judge how upload processes ended in mid-session."""
    ended = [taken.process for taken in facts.taken_back if taken.process is not None]
    odd = [process for process in ended if not process.endswith("killed by SIGKILL")]
    return Verdict(
        "no upload process ended but by SIGKILL", not odd, ", ".join(odd) or f"{len(ended)} deaths"
    )


def log_sound(log: str) -> Verdict:
    """Judge what the daemons printed: what nobody expected has a traceback."""
    count = log.count("Traceback")
    return Verdict("no traceback in the daemons' log", not count, f"{count} of them")


def repeats_bounded(facts: Facts, concurrency: int) -> Verdict:
    """Judge what each death left in flight, which is the most that it could repeat."""
    window = claim_window(concurrency)
    most = max((len(taken.ordinals) for taken in facts.taken_back), default=0)
    return Verdict(
        f"at most {window} keys are in flight when a process dies",
        most <= window,
        f"at most {most} in {len(facts.taken_back)} deaths",
    )


def moving(stretch: Stretch) -> Verdict:
    """Judge whether keys were settled at all."""
    rule = f"keys are settled, {stretch.name}"
    return Verdict(rule, stretch.settled > 0, f"{stretch.settled / stretch.seconds:,.0f} keys/s")


def verdicts(
    samples: Sequence[Sample], deaths: Sequence[Death], facts: Facts, log: str, concurrency: int
) -> list[Verdict]:
    """Apply every rule."""
    lasting = stretches(samples)
    found = [
        wal_bounded(samples),
        deaths_expected(deaths),
        uploaders_killed(facts),
        log_sound(log),
        repeats_bounded(facts, concurrency),
    ]
    if samples and samples[-1].at >= JUDGED_SECONDS_MIN:
        found.append(
            Verdict("some daemon lived long enough to be judged", bool(lasting), f"{len(lasting)} did")
        )
    for stretch in lasting:
        found += [moving(stretch), wal_reused(stretch), *flatness(stretch)]
    return found
