"""Which findings of verifications stand: of a key that was not copied anew since, and that nobody has found right since.

A finding is about one key. It stands whether or not its run was ever finished, whatever other keys were copied
meanwhile, and beside any later sample that did not draw the key.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.events import Kind, decode
from journal.histories import replaced

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

    from journal.verification_runs import VerificationRun

UNREADABLE = "unreadable"
"""The kind of finding that says nothing of a key: it takes no other back."""
EVENTS_KEPT = 64
"""Events that are kept in memory, of some hundred findings each."""


@dataclass(frozen=True, slots=True)
class StandingFinding:
    """Keys of one source of which one run found the same.

    Attributes:
        run: as in `VerificationRun.seq`, also of one that was never finished; 0 where it is not told.
        kind: as events have it.
        keys: how many; `row_key` is the first of them.
    """

    run: int
    tier: str
    source: int
    kind: str
    keys: int
    row_key: str


def standing_findings(
    connection: sqlite3.Connection, runs: Sequence[VerificationRun]
) -> tuple[StandingFinding, ...]:
    """Return them in the order in which they were first recorded; what concerns no key in the bucket is left out.

    Args:
        connection: to a journal whose projections are up.
        runs: every finished one.
    """
    looks = _Looks(connection)
    keys: Counter[tuple[int, str, int, str]] = Counter()
    first: dict[tuple[int, str, int, str], str] = {}
    for seq, source, text in connection.execute(
        "SELECT seq, source, data FROM event WHERE kind = :kind"
        " AND EXISTS (SELECT 1 FROM latest WHERE kind = :kind) ORDER BY seq",
        {"kind": Kind.FINDING_RECORDED.value},
    ):
        data = decode(seq, text)
        for kind, ordinal, outcome_seq, row_key in connection.execute(
            "SELECT f.value ->> 0, o.ordinal, o.seq, p.row_key FROM json_each(?, '$.findings') f"
            " CROSS JOIN outcome o ON o.ordinal = f.value ->> 1 CROSS JOIN plan p ON p.ordinal = o.ordinal"
            " WHERE o.seq < ? AND o.code IN ('S', 'R', 'P') ORDER BY f.key",
            (text, seq),
        ).fetchall():
            found = (data.get("run", 0), data.get("tier", ""), source or 0, kind)
            if _taken_back(connection, runs, looks, found, seq, ordinal, outcome_seq):
                continue
            keys[found] += 1
            first.setdefault(found, row_key)
    return tuple(
        StandingFinding(run, tier, source, kind, number, first[run, tier, source, kind])
        for (run, tier, source, kind), number in keys.items()
    )


class _Looks:
    """What verifications have recorded of keys, read from their events: neighbours share one, so some are kept."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._read: dict[int, tuple[str, int, dict[int, set[str]]]] = {}

    def behind(self, seq: int, ordinal: int, tier: str) -> Iterator[tuple[int, set[str]]]:
        """Yield run and kinds of each later look of a tier at a key, oldest first; no kind where it was right."""
        for (later,) in self._connection.execute(
            "SELECT k.seq FROM key_event k CROSS JOIN event v ON v.seq = k.seq"
            " WHERE k.ordinal = ? AND k.seq > ? AND v.kind IN (?, ?) ORDER BY k.seq",
            (ordinal, seq, Kind.FINDING_RECORDED.value, Kind.VERIFICATION_PROGRESSED.value),
        ):
            by, run, kinds = self._event(later)
            if by == tier:
                yield run, kinds.get(ordinal, set())

    def _event(self, seq: int) -> tuple[str, int, dict[int, set[str]]]:
        if seq not in self._read:
            if len(self._read) >= EVENTS_KEPT:
                self._read.clear()
            (text,) = self._connection.execute("SELECT data FROM event WHERE seq = ?", (seq,)).fetchone()
            data = decode(seq, text)
            kinds: dict[int, set[str]] = {}
            for kind, ordinal, *_ in data.get("findings", ()):
                if ordinal is not None:
                    kinds.setdefault(ordinal, set()).add(kind)
            self._read[seq] = data.get("tier", ""), data.get("run", 0), kinds
        return self._read[seq]


def _taken_back(
    connection: sqlite3.Connection,
    runs: Sequence[VerificationRun],
    looks: _Looks,
    found: tuple[int, str, int, str],
    seq: int,
    ordinal: int,
    outcome_seq: int,
) -> bool:
    """Say whether what the event `seq` has of a key was told anew or refuted since, or concerns its object no more."""
    run, tier, source, kind = found
    unread = set()
    for by, kinds in looks.behind(seq, ordinal, tier):
        if kind in kinds or kinds != {UNREADABLE}:
            return True
        unread.add(by)
    return replaced(connection, ordinal) or any(
        # It was looked at once more, since it had died before it noted its progress.
        (each.seq == run and not each.data.get("counts", {kind: 1}).get(kind, 0))
        or (
            each.tier == tier
            and each.seq > seq
            and each.seq not in unread
            and each.covers(source, outcome_seq)
        )
        for each in runs
    )
