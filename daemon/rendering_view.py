"""Where a migration stands, in one structure that text, screen and page render alike; pure.

Everything in it derives from a `MigrationStatus` and the clock, wherever that status came from. Foreign text (names,
keys, messages) is as stored: whoever renders it escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from daemon.causes import HOLDS, Cause, cause_words, change_words
from daemon.rendering_advice import next_steps, reason
from daemon.rendering_pace import Speed, amounts_of, at_work, speeds
from daemon.rendering_verified import Verified, verified
from daemon.tunables import as_set
from journal.entries import SourceCounts
from journal.status import MigrationState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from journal.checkpoint import Checkpoint
    from journal.status import MigrationStatus, NoteStatus, SourceStatus

PARK = "PARK"
"""The operation of a fault that is a parked key: it waits for the operator."""


@dataclass(frozen=True, slots=True)
class Line:
    """One source, or the sum of all.

    Attributes:
        counts: where its keys stand.
        planned: the planned amounts are not growing.
        speed: rates and ETA.
        checkpoint: None for the sum.
    """

    name: str
    counts: SourceCounts
    planned: bool
    speed: Speed
    checkpoint: Checkpoint | None

    @property
    def permille(self) -> int:
        """Keys settled, of those planned, rounded down: 1000 means all; nothing planned is 0."""
        counts = self.counts
        return counts.settled * 1000 // counts.planned_rows if counts.planned_rows else 0

    @property
    def finished(self) -> bool:
        """Whether every key of a sealed plan is settled."""
        return self.planned and self.counts.settled >= self.counts.planned_rows


@dataclass(frozen=True, slots=True)
class Deed:
    """What an operator has done that is in force, by whom and since when; `words` say what, empty for a pause."""

    who: str
    since_us: int
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Throttle:
    """The slow-down in force: its cause, for people too, and what was found."""

    cause: str
    words: str
    detail: str
    since_us: int

    @property
    def holds(self) -> bool:
        """Whether nothing new may begin, rather than less."""
        return self.cause in HOLDS


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How many uploads may be under way at once, of how many at most, and what made that so, as last recorded.

    Attributes:
        cuts: how often trouble halved it by that; 0 where it grew.
    """

    limit: int
    ceiling: int
    cause: str
    words: str
    since_us: int
    cuts: int


@dataclass(frozen=True, slots=True)
class Spent:
    """What one cause took of all sessions' time.

    Attributes:
        episodes: slow-downs that have ended; 0 for the work itself.
        last_us, last_detail: of the newest slow-down that has ended.
    """

    cause: str
    words: str
    seconds: int
    episodes: int
    last_us: int | None
    last_detail: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A class of errors of one source, with an example; `operation` is PARK for keys that are parked now.

    Attributes:
        last_us: when it last happened; None for parked keys.
    """

    source: str
    operation: str
    failure: str
    count: int
    example_key: str
    message: str
    last_us: int | None


@dataclass(frozen=True, slots=True)
class View:
    """A migration at one moment.

    Attributes:
        state: one word, as `status --json` has it.
        reason: why, on one line; empty where the state says it all.
        working: a session works on it, be it only that it waits.
        sources: in the order of the configuration; `total` sums them up.
        pause, tunables: what an operator has set, in force; the latter outlives its session.
        throttle: in force now; a pause is none, though its time is on record like one.
        concurrency: as it has adapted in the session that works; None where it has not.
        spent: where all sessions' time went, the costliest first; `spent_seconds` is the sum.
        deadline_us: `migration.deadline` of the newest session; nothing depends on it but what people are told.
        faults: parked keys first, then the most frequent.
        verified: the newest verification of each tier, the newest first.
    """

    name: str
    state: str
    reason: str
    now_us: int
    last_event_us: int
    head_seq: int
    working: bool
    sources: tuple[Line, ...]
    total: Line
    pause: Deed | None
    tunables: Deed | None
    throttle: Throttle | None
    concurrency: Concurrency | None
    deadline_us: int | None
    spent: tuple[Spent, ...]
    spent_seconds: int
    faults: tuple[Fault, ...]
    verified: tuple[Verified, ...]
    next_steps: tuple[str, ...]

    @property
    def late_seconds(self) -> float | None:
        """By how much the deadline is missed, as things go, or has been; negative: time to spare.

        None without a deadline, when all is done, and where nobody can say.
        """
        if self.deadline_us is None or self.state == MigrationState.COMPLETE:
            return None
        passed = (self.now_us - self.deadline_us) / 1e6
        eta = self.total.speed.eta_seconds
        if eta is None:
            return passed if passed > 0 else None
        return passed + eta

    @property
    def standing(self) -> str:
        """Say in a word or two why nothing new begins; empty where it does, or where no session works."""
        if not self.working or self.state not in {MigrationState.RUNNING, MigrationState.PAUSED}:
            return ""
        if self.pause is not None:
            return "paused"
        return f"held by {self.throttle.words}" if self.throttle is not None and self.throttle.holds else ""


def view(status: MigrationStatus, *, now_us: int) -> View:
    """Return what there is to show of a migration at `now_us` (microseconds since 1970-01-01 UTC)."""
    by_name, together = speeds(status, now_us=now_us)
    lines = tuple(_line(source, by_name[source.name]) for source in status.sources)
    total = Line(
        "total",
        summed(line.counts for line in lines),
        all(line.planned for line in lines) and bool(lines),
        together,
        None,
    )
    return View(
        name=status.name,
        state=status.state.value,
        reason=reason(status, now_us),
        now_us=now_us,
        last_event_us=status.last_event_us,
        head_seq=status.head_seq,
        working=at_work(status),
        sources=lines,
        total=total,
        pause=None if status.pause is None else Deed(str(status.pause.data["who"]), status.pause.ts_us),
        tunables=_tunables(status.tunables),
        throttle=_throttle(status.throttle),
        concurrency=_concurrency(status.concurrency) if at_work(status) else None,
        deadline_us=_deadline_us(status.settings),
        spent=_spent(status),
        spent_seconds=sum(status.spent_ms.values()) // 1000,
        faults=_faults(status.sources),
        verified=tuple(verified(one.data, finished_us=one.ts_us) for one in status.verifications),
        next_steps=tuple(next_steps(status)),
    )


def summed(every: Iterable[SourceCounts]) -> SourceCounts:
    """Return the counts of all sources together; what is excluded stays with each source."""
    counts = list(every)
    numbers = ("planned_rows", "planned_bytes", "stored", "recovered", "present", "skipped", "vanished",
               "parked", "in_flight", "pending", "unclaimed", "stored_bytes", "present_bytes", "settled_bytes")  # fmt: skip
    return SourceCounts(**{field: sum(getattr(one, field) for one in counts) for field in numbers})


def _line(source: SourceStatus, speed: Speed) -> Line:
    return Line(source.name, source.counts, amounts_of(source).plan_complete, speed, source.checkpoint)


def _tunables(note: NoteStatus | None) -> Deed | None:
    if note is None or not note.data["overrides"]:
        return None
    return Deed(str(note.data["who"]), note.ts_us, as_set(note.data["overrides"]))


def _throttle(note: NoteStatus | None) -> Throttle | None:
    if note is None or note.data["cause"] == Cause.OPERATOR:
        return None
    cause = str(note.data["cause"])
    return Throttle(cause, cause_words(cause), str(note.data["detail"]), note.ts_us)


def _concurrency(note: NoteStatus | None) -> Concurrency | None:
    if note is None:
        return None
    data = note.data
    words = change_words(str(data["cause"]), data["cuts"])
    return Concurrency(data["to"], data["ceiling"], str(data["cause"]), words, note.ts_us, data["cuts"])


def _deadline_us(note: NoteStatus | None) -> int | None:
    text = None if note is None else note.data.get("deadline")
    if text is None:
        return None
    # Its patterns cost some 10 ms, which `status` of a migration without a deadline need not spend.
    from daemon.settings_values import timestamp_us

    try:
        return timestamp_us(text)
    except ValueError:
        # A later program may write it otherwise; it is shown, nothing more.
        return None


def _spent(status: MigrationStatus) -> tuple[Spent, ...]:
    slow = {one.cause: one for one in status.slow_downs}
    causes = {
        **status.spent_ms,
        **{one.cause: one.ms for one in slow.values() if one.cause not in status.spent_ms},
    }
    return tuple(
        Spent(
            cause,
            cause_words(cause),
            ms // 1000,
            slow[cause].episodes if cause in slow else 0,
            slow[cause].last_us if cause in slow else None,
            slow[cause].last_detail if cause in slow else "",
        )
        for cause, ms in sorted(causes.items(), key=lambda item: (-item[1], item[0]))
    )


def _faults(sources: Iterable[SourceStatus]) -> tuple[Fault, ...]:
    every = list(sources)
    parked = [
        Fault(source.name, PARK, one.failure, one.count, one.example_key, one.message, None)
        for source in every
        for one in source.parked
    ]
    failed = [
        Fault(source.name, one.operation, one.failure, one.count, one.example_key, one.message, one.last_us)
        for source in every
        for one in source.failures
    ]
    by_count = [sorted(faults, key=lambda fault: -fault.count) for faults in (parked, failed)]
    return (*by_count[0], *by_count[1])
