"""What verifications there were, how much each covered, and what it found: read from their events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from journal.events import Kind, decode

if TYPE_CHECKING:
    import sqlite3


@dataclass(frozen=True, slots=True)
class SampledKeys:
    """A random sample: `keys` of the `of` that could have been drawn."""

    keys: int
    of: int


@dataclass(frozen=True, slots=True)
class VerificationRun:
    """One finished verification of one tier.

    Attributes:
        seq: of its `verification_started`; what its findings and progress name as "run". 0 where it is not told.
        finished_seq: of its `verification_finished`.
        until_seq: it looked at outcomes recorded up to this event.
        sources: ids of the sources it looked at; None: of all.
        sample: None where it looked at every key.
        exit_code: 0, or 4 for a mismatch.
        follows: `seq` of the run before it in the same command; None where it was the first.
        data: the rest of `verification_finished`: counts by what was found.
    """

    seq: int
    finished_seq: int
    tier: str
    started_us: int
    finished_us: int
    until_seq: int
    sources: tuple[int, ...] | None
    sample: SampledKeys | None
    exit_code: int
    follows: int | None = None
    data: dict[str, Any] = field(default_factory=dict)

    def covers(self, source: int, outcome_seq: int) -> bool:
        """Say whether it looked at every key of `source`, one with this outcome included."""
        return (
            self.sample is None
            and outcome_seq <= self.until_seq
            and (self.sources is None or source in self.sources)
        )


def verification_runs(connection: sqlite3.Connection) -> list[VerificationRun]:
    """Return every finished verification, the newest first."""
    return [
        _run(connection, *_event(connection, seq))
        for (seq,) in connection.execute("SELECT seq FROM verification ORDER BY seq DESC").fetchall()
    ]


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The newest verification, begun and not finished.

    Attributes:
        seq: of its `verification_started`.
        data: of that event.
        progress: data of its newest `verification_progressed`; None where it has none.
        outdated: keys may have changed since it was begun: it does not stand for the journal as it is.
    """

    seq: int
    data: dict[str, Any]
    progress: dict[str, Any] | None
    outdated: bool


def open_run(connection: sqlite3.Connection) -> OpenRun | None:
    """Return the newest verification if it was not finished."""
    newest: dict[str, int] = dict(
        connection.execute("SELECT kind, max(seq) FROM latest GROUP BY kind").fetchall()
    )
    seq = newest.get(Kind.VERIFICATION_STARTED.value, 0)
    if seq <= newest.get(Kind.VERIFICATION_FINISHED.value, 0):
        return None
    _, _, data = _event(connection, seq)
    progressed = newest.get(Kind.VERIFICATION_PROGRESSED.value, 0)
    (completed,) = connection.execute("SELECT coalesce(completed_seq, 0) FROM progress").fetchone()
    # A session on a migration that is complete adds no outcome; anything that does voids the completion.
    changed = max(newest.get(kind.value, 0) for kind in (Kind.SESSION_STARTED, Kind.OUTCOMES_REVOKED))
    return OpenRun(
        seq,
        data,
        _event(connection, progressed)[2] if progressed > seq else None,
        outdated=changed > seq and not 0 < completed < seq,
    )


def newest_of_each_tier(connection: sqlite3.Connection) -> list[int]:
    """Return the `verification_finished` of each tier that has one, the newest first."""
    return [
        row[0]
        for row in connection.execute("SELECT max(seq) FROM verification GROUP BY tier ORDER BY 1 DESC")
    ]


def _run(connection: sqlite3.Connection, seq: int, ts_us: int, data: dict[str, Any]) -> VerificationRun:
    started = data.get("run", 0)
    _, started_us, asked = _event(connection, started) if started else (0, ts_us, {})
    sample = data.get("sample")
    sources = data.get("sources")
    return VerificationRun(
        seq=started,
        finished_seq=seq,
        tier=str(data.get("tier", "")),
        started_us=started_us,
        finished_us=ts_us,
        until_seq=data.get("until_seq", seq),
        sources=None if sources is None else tuple(sources),
        sample=None if sample is None else SampledKeys(sample["keys"], sample["of"]),
        exit_code=int(data.get("exit_code", 0)),
        follows=asked.get("follows"),
        data=data,
    )


def _event(connection: sqlite3.Connection, seq: int) -> tuple[int, int, dict[str, Any]]:
    ts_us, text = connection.execute("SELECT ts, data FROM event WHERE seq = ?", (seq,)).fetchone()
    return seq, ts_us, dict(decode(seq, text))
