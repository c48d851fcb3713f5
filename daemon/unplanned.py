"""Look through a source for rows in scope that have no copy: unknown to the journal, back again, of another length.

One scan of keys and lengths in one REPEATABLE READ, READ ONLY snapshot, under the rules that planning has. No value
is read, and nothing is sorted on the server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from daemon.config import SourceConfig
from daemon.planning import Change, change_of
from daemon.rows import Exclusions, SweptRange, TableFacts
from daemon.scanning import OnProgress, PlanSource, ScanLimits, Scanner, no_progress
from journal.entries import Known

NAMED_MAX = 100_000
"""Rows without a copy that are kept by name, of each kind: beyond, they are counted only."""

Latest = Callable[[int, Sequence[str]], Mapping[str, Known]]
"""Tells the newest plan of some row keys of a source (`Journal.latest`; needs its index)."""


@dataclass(frozen=True, slots=True)
class UncopiedRow:
    """A row in scope whose present bytes have no copy.

    Attributes:
        created_at: microseconds since 1970-01-01 UTC, or None.
        size: bytes.
        change: NEW (the journal does not know it), REAPPEARED (it was gone when it was to be copied) or CHANGED
            (another length than what was copied).
        ordinal: its newest plan's; None for a new one.
    """

    row_key: str
    created_at: int | None
    size: int
    change: Change
    ordinal: int | None = None


@dataclass(slots=True)
class SourceScan:
    """What one scan of a source saw.

    Attributes:
        seen: rows of the table, excluded ones included.
        excluded: rows out of scope, by reason.
        uncopied: how many rows in scope have no copy, by what happened to them.
        rows: of each kind the first NAMED_MAX.
        excused: row keys that the caller excuses, of rows in scope.
        size: bytes of the other rows in scope.
    """

    seen: int = 0
    excluded: Exclusions = field(default_factory=Exclusions)
    uncopied: dict[Change, int] = field(default_factory=dict)
    rows: list[UncopiedRow] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    size: int = 0


async def scan_for_uncopied(
    source: PlanSource,
    spec: SourceConfig,
    facts: TableFacts,
    *,
    source_id: int,
    latest: Latest,
    cutoff_us: int,
    limits: ScanLimits,
    random: Random,
    excused: Collection[str] = (),
    on_progress: OnProgress = no_progress,
) -> SourceScan:
    """Scan `spec` in one snapshot; a lost one is taken again, from the beginning.

    Args:
        source: PostgreSQL.
        spec: the source.
        facts: of its table, just described.
        source_id: the source's id in the journal.
        latest: looks keys up in the journal.
        cutoff_us: of the migration.
        limits: how long the loss of snapshots is borne.
        random: source of jitter.
        excused: row keys that may be without a copy.
        on_progress: as for `Scanner`.

    Raises:
        UnreachableError: too many snapshots were lost, or the server is silent.
        RefusedError, SourceUnfitError: a right is missing; a key holds a NULL.
        JournalError: from `latest`.
    """
    lookup = _Lookup(source_id, latest, excused)
    scanner = Scanner(
        source, spec, cutoff_us=cutoff_us, limits=limits, random=random, on_progress=on_progress
    )
    await scanner.snapshot(facts, lookup)
    return lookup.found


class _Lookup:
    """Looks up what a scan reads, and keeps what has no copy."""

    def __init__(self, source_id: int, latest: Latest, excused: Collection[str]) -> None:
        self._source_id = source_id
        self._latest = latest
        self._excused = excused
        self.found = SourceScan()

    async def keep(self, swept: SweptRange) -> None:
        self.found.seen += swept.seen
        self.found.excluded.add(swept.excluded)
        known = self._latest(self._source_id, [row.row_key for row in swept.rows])
        self.found.size += sum(row.size for row in swept.rows if row.row_key not in self._excused)
        self.found.excused += [row.row_key for row in swept.rows if row.row_key in self._excused]
        for row in swept.rows:
            before = known.get(row.row_key)
            change = change_of(row.size, before)
            if change is Change.NOTHING:
                continue
            self.found.uncopied[change] = self.found.uncopied.get(change, 0) + 1
            if self.found.uncopied[change] <= NAMED_MAX:
                ordinal = None if before is None else before.ordinal
                self.found.rows.append(UncopiedRow(row.row_key, row.created_at, row.size, change, ordinal))

    async def restart(self, relation: int) -> None:
        del relation
        self.found = SourceScan()
