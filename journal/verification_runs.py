"""What verifications there were, how much each covered, and what it found: read from their events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from journal.events import decode

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


def _run(connection: sqlite3.Connection, seq: int, ts_us: int, data: dict[str, Any]) -> VerificationRun:
    started = data.get("run", 0)
    sample = data.get("sample")
    sources = data.get("sources")
    return VerificationRun(
        seq=started,
        finished_seq=seq,
        tier=data["tier"],
        started_us=_event(connection, started)[1] if started else ts_us,
        finished_us=ts_us,
        until_seq=data.get("until_seq", seq),
        sources=None if sources is None else tuple(sources),
        sample=None if sample is None else SampledKeys(sample["keys"], sample["of"]),
        exit_code=data["exit_code"],
        data=data,
    )


def _event(connection: sqlite3.Connection, seq: int) -> tuple[int, int, dict[str, Any]]:
    ts_us, text = connection.execute("SELECT ts, data FROM event WHERE seq = ?", (seq,)).fetchone()
    return seq, ts_us, dict(decode(seq, text))
