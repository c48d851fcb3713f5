"""What a report tells of a migration's course, read page by page: its rare events, and its samples in few bins."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from journal.events import Kind, StoredEvent, decode

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterator, Sequence

    from journal.reader import Reader

BINS_MAX = 360
"""Points of a timeline: about two pixels of a screen for each."""
SAMPLES_PER_PAGE = 5000
"""Samples read in one transaction."""
BIN_US_MIN = 15_000_000
"""A sample is taken each 15 s: narrower bins would show nothing more."""

SESSION_KINDS: frozenset[Kind] = frozenset({Kind.SESSION_STARTED, Kind.SESSION_ENDED})
ACTION_KINDS: frozenset[Kind] = frozenset(
    {
        Kind.PAUSED,
        Kind.RESUMED,
        Kind.TUNABLES_SET,
        Kind.KEYS_REQUEUED,
        Kind.SERVER_ACCEPTED,
        Kind.SOURCE_REOPENED,
        Kind.OUTCOMES_REVOKED,
        Kind.UNDO_STARTED,
        Kind.UNDO_FINISHED,
        Kind.ROWS_RESTORED,
        Kind.DRAIN_REQUESTED,
        Kind.ATTESTED,
    }
)
"""What people did to a migration."""


@dataclass(frozen=True, slots=True)
class SessionSpan:
    """One session: when, under what facts, and how it ended; `reason` is None where it has no end on record.

    Attributes:
        ended_us: of its end; where it has none, of the last event that is known to be its.
    """

    number: int
    started_us: int
    ended_us: int
    facts: dict[str, object]
    reason: str | None = None
    exit_code: int | None = None
    message: str | None = None


@dataclass(slots=True)
class Bin:
    """A stretch of one session.

    Attributes:
        seconds: of it that samples tell of.
        settled, stored_bytes: in these seconds.
        spent_ms: where they went, by cause.
    """

    begin_us: int
    end_us: int
    seconds: float = 0.0
    settled: float = 0.0
    stored_bytes: float = 0.0
    spent_ms: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Course:
    """The samples of all sessions, in at most BINS_MAX bins and one more for each session.

    Attributes:
        put_counts: PUTs by the upper bound of how long they took, as recorded; None where no sample tells.
    """

    bins: tuple[Bin, ...]
    samples: int
    put_counts: dict[str, int] | None


def rare_events(reader: Reader, kinds: Collection[Kind], *, head_seq: int) -> Iterator[StoredEvent]:
    """Yield the events of some kinds up to `head_seq`, oldest first."""
    return reader.events(kinds=[kind.value for kind in kinds], until_seq=head_seq)


def session_spans(events: Sequence[StoredEvent], *, last_event_us: int) -> list[SessionSpan]:
    """Return the sessions that `events` begin and end; others among them are passed over."""
    spans: list[SessionSpan] = []
    open_since: StoredEvent | None = None
    previous_us = 0
    for event in events:
        if event.kind == Kind.SESSION_STARTED:
            if open_since is not None:
                spans.append(_unended(open_since, previous_us))
            open_since = event
        elif event.kind == Kind.SESSION_ENDED and open_since is not None:
            spans.append(
                SessionSpan(
                    open_since.data["session"],
                    open_since.ts_us,
                    max(event.ts_us, open_since.ts_us),
                    dict(open_since.data["facts"]),
                    event.data["reason"],
                    event.data["exit_code"],
                    event.data["message"],
                )
            )
            open_since = None
        previous_us = max(previous_us, event.ts_us)
    if open_since is not None:
        spans.append(_unended(open_since, last_event_us))
    return spans


def _unended(started: StoredEvent, until_us: int) -> SessionSpan:
    return SessionSpan(
        started.data["session"], started.ts_us, max(until_us, started.ts_us), dict(started.data["facts"])
    )


def course(reader: Reader, spans: Sequence[SessionSpan], *, head_seq: int) -> Course:
    """Return how fast things went, in few bins, whatever the number of samples.

    Args:
        reader: of the journal.
        spans: its sessions, oldest first.
        head_seq: the newest event to be told of.
    """
    lasted = sum(span.ended_us - span.started_us for span in spans)
    width = max(BIN_US_MIN, -(-lasted // BINS_MAX))
    starts = [span.started_us for span in spans]
    bins: dict[tuple[int, int], Bin] = {}
    put_counts: Counter[str] = Counter()
    told, number = False, 0
    before: tuple[int, int, int, int] | None = None
    for ts_us, settled, stored_bytes, data in _samples(reader, head_seq):
        number += 1
        at = bisect_right(starts, ts_us) - 1
        if "put_counts" in data:
            told = True
            put_counts.update(data["put_counts"])
        if before is not None and before[0] == at >= 0 and ts_us > before[1]:
            _spread(
                bins,
                starts[at],
                (at, width),
                (before[1], ts_us),
                # Outcomes that were taken back make a sum go down; work was done nevertheless.
                (max(0, settled - before[2]), max(0, stored_bytes - before[3])),
                data["spent_ms"],
            )
        before = (at, ts_us, settled, stored_bytes)
    return Course(tuple(bins[key] for key in sorted(bins)), number, dict(put_counts) if told else None)


def _samples(reader: Reader, head_seq: int) -> Iterator[tuple[int, int, int, dict[str, dict[str, int]]]]:
    after = 0

    def page(connection: sqlite3.Connection) -> list[tuple[int, int, int, int, str]]:
        return connection.execute(
            "SELECT s.seq, s.ts, s.settled, s.stored, e.data FROM (SELECT seq, max(ts) AS ts, sum(settled) AS settled,"
            " sum(stored_bytes) AS stored FROM sample WHERE seq > ? AND seq <= ? GROUP BY seq ORDER BY seq LIMIT ?) s"
            " JOIN event e ON e.seq = s.seq ORDER BY s.seq",
            (after, head_seq, SAMPLES_PER_PAGE),
        ).fetchall()

    while rows := reader.read(page):
        for seq, ts_us, settled, stored_bytes, text in rows:
            yield ts_us, settled, stored_bytes, decode(seq, text)
        after = rows[-1][0]


def _spread(
    bins: dict[tuple[int, int], Bin],
    start_us: int,
    place: tuple[int, int],
    between: tuple[int, int],
    done: tuple[int, int],
    spent_ms: dict[str, int],
) -> None:
    """Add what was done between two samples to the bins that they lie in, by their share of the time."""
    span, width = place
    begin_us, end_us = between
    whole = end_us - begin_us
    for number in range((begin_us - start_us) // width, (end_us - 1 - start_us) // width + 1):
        low = start_us + number * width
        share = (min(end_us, low + width) - max(begin_us, low)) / whole
        one = bins.setdefault((span, number), Bin(low, low + width))
        one.seconds += share * whole / 1e6
        one.settled += share * done[0]
        one.stored_bytes += share * done[1]
        for cause, ms in spent_ms.items():
            one.spent_ms[cause] += round(share * ms)
