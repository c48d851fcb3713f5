"""The plan as it is claimed: chunk by chunk, each read once, checked against its hash, and kept while in use.

SQLite has no page checksums: a flipped bit in a row key passes its integrity check and would end as "vanished".
So what is claimed from a frontier is served from the very rows that the hash was computed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from journal.errors import RESTORE_BACKUP, JournalCorrupt
from journal.events import chunk_digest

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True)
class PlanSlice:
    """Consecutive rows of the plan, by column; `ordinals` says which."""

    ordinals: range
    row_keys: Sequence[str]
    created_at: Sequence[int | None]
    sizes: Sequence[int]

    def part(self, lo: int, hi: int) -> PlanSlice:
        """Return the rows of ordinals lo..hi that are in this slice."""
        first, last = max(lo, self.ordinals.start), min(hi, self.ordinals.stop - 1)
        start, stop = first - self.ordinals.start, last + 1 - self.ordinals.start
        return PlanSlice(
            range(first, last + 1),
            self.row_keys[start:stop],
            self.created_at[start:stop],
            self.sizes[start:stop],
        )


def is_sealed(rows: Sequence[tuple[Any, ...]], digest: str | None) -> bool:
    """Say whether these rows of the plan are those that an event sealed under this hash."""
    try:
        return bool(rows) and chunk_digest(*zip(*rows, strict=True)) == digest
    except (TypeError, ValueError, OverflowError):
        # No such value can have been hashed.
        return False


class PlanChunks:
    """Serves slices of the plan from one cached chunk (10,000 short keys take some 2 MB)."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._cached = PlanSlice(range(0), (), (), ())
        self._checked: set[int] = set()

    def forget(self) -> None:
        """Drop what is cached and checked."""
        self._cached = PlanSlice(range(0), (), (), ())
        self._checked.clear()

    def slices(self, lo: int, hi: int) -> Iterator[PlanSlice]:
        """Yield the plan's rows lo..hi, one slice per chunk that they lie in.

        Raises:
            JournalCorrupt: a chunk contradicts the hash in its event.
        """
        while lo <= hi:
            if lo not in self._cached.ordinals:
                self._cached = self._read(lo)
            part = self._cached.part(lo, hi)
            yield part
            lo = part.ordinals.stop

    def sizes(self, lo: int, hi: int) -> Sequence[int]:
        """Return the planned bytes of ordinals lo..hi; from the cache if they are there, else unchecked."""
        if lo in self._cached.ordinals and hi in self._cached.ordinals:
            return self._cached.part(lo, hi).sizes
        rows = self._connection.execute(
            "SELECT size FROM plan WHERE ordinal BETWEEN ? AND ?", (lo, hi)
        ).fetchall()
        if len(rows) != hi + 1 - lo:
            raise JournalCorrupt(f"read the plan of ordinals {lo} to {hi}: {len(rows)} rows are there")
        return [size for (size,) in rows]

    def check(self, ordinals: Sequence[int]) -> None:
        """Check the chunks that these ordinals lie in, each once per process.

        Raises:
            JournalCorrupt: as `slices`.
        """
        for ordinal in ordinals:
            (lo,) = self._connection.execute("SELECT max(lo) FROM chunk WHERE lo <= ?", (ordinal,)).fetchone()
            if lo not in self._checked:
                self._read(ordinal)

    def _read(self, ordinal: int) -> PlanSlice:
        lo, hi, digest = self._connection.execute(
            "SELECT lo, hi, digest FROM chunk WHERE lo <= ? ORDER BY lo DESC LIMIT 1", (ordinal,)
        ).fetchone() or (ordinal, ordinal, None)
        rows: list[tuple[Any, ...]] = self._connection.execute(
            "SELECT row_key, created_at, size, supersedes FROM plan WHERE ordinal BETWEEN ? AND ?", (lo, hi)
        ).fetchall()
        if len(rows) != hi + 1 - lo or not is_sealed(rows, digest):
            raise JournalCorrupt(
                f"read plan chunk {lo} to {hi}: its {len(rows)} rows contradict the hash in its event, {digest}",
                f"{RESTORE_BACKUP}; or plan anew with another journal",
            )
        row_keys, created_at, sizes, _ = zip(*rows, strict=True)
        self._checked.add(lo)
        return PlanSlice(range(lo, hi + 1), row_keys, created_at, sizes)
