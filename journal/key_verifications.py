"""Which verifications found one key's object right: those of all keys that name it in no finding, and samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.events import Kind
from journal.lifecycle import Outcome
from journal.verification_runs import verification_runs

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from journal.events import StoredEvent
    from journal.verification_runs import VerificationRun

_COPIES = {Outcome.STORED.value, Outcome.RECOVERED.value, Outcome.PRESENT.value}
_NEVER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class KeyVerification:
    """A verification that looked at a key and found nothing wrong with it.

    Attributes:
        seq: of the event that says so: the run's end, or of a sample the batch that names the key.
        time_us: of that event, microseconds since 1970-01-01 UTC.
        tier: what was compared with what.
        run: seq of the run's start; 0 where it is not told.
        sampled: the key was drawn; else every key was looked at.
        outcome_seq: the event of the outcome that it looked at.
    """

    seq: int
    time_us: int
    tier: str
    run: int
    sampled: bool
    outcome_seq: int


def key_verifications(
    connection: sqlite3.Connection, *, source: int, events: Sequence[StoredEvent], replaced_seq: int | None
) -> tuple[KeyVerification, ...]:
    """Return what has found the object of a key right, each time while an outcome said that it is there.

    Args:
        connection: to the journal.
        source: the key's.
        events: those on record that name it, narrowed to it, oldest first.
        replaced_seq: the event by which a later plan of the same key was stored; None if there is none.

    Returns:
        Oldest first.
    """
    runs = verification_runs(connection)
    found = []
    for begun, ended in _periods(events, replaced_seq):
        found += [
            KeyVerification(
                run.finished_seq, run.finished_us, run.tier, run.seq, sampled=False, outcome_seq=begun
            )
            for number, run in enumerate(runs)
            if run.covers(source, begun)
            and run.until_seq < ended
            and not _named(run, events, after=runs[number + 1].finished_seq if number + 1 < len(runs) else 0)
        ]
        found += [
            KeyVerification(
                event.seq, event.ts_us, event.data["tier"], event.data["run"], sampled=True, outcome_seq=begun
            )
            for event in events
            if event.kind == Kind.VERIFICATION_PROGRESSED and begun < event.seq < ended
        ]
    return tuple(sorted(found, key=lambda verification: verification.seq))


def _periods(events: Sequence[StoredEvent], replaced_seq: int | None) -> list[tuple[int, int]]:
    """Return from which event on, and until before which, the key's object was to be there."""
    found = []
    begun = None
    for event in events:
        if event.kind == Kind.OUTCOMES_RECORDED and event.data["outcome"] in _COPIES:
            begun = event.seq
        elif event.kind == Kind.OUTCOMES_REVOKED and begun is not None:
            found.append((begun, event.seq))
            begun = None
    if begun is not None:
        found.append((begun, _NEVER if replaced_seq is None else replaced_seq))
    return found


def _named(run: VerificationRun, events: Sequence[StoredEvent], *, after: int) -> bool:
    """Say whether a finding of `run` names the key.

    Findings of an earlier program don't name their run: theirs lie behind the end of the one before, at `after`.
    """
    return any(
        event.data["run"] == run.seq if "run" in event.data else after < event.seq < run.finished_seq
        for event in events
        if event.kind == Kind.FINDING_RECORDED
    )
