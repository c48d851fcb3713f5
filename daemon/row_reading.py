"""Read the digests of rows for a verification: kindly, in short statements, under the rates in force."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from daemon.comparing import Finding, FindingKind
from daemon.config import SourceConfig
from daemon.drain import Drain
from daemon.layouts import object_key
from daemon.pacing import Pacer
from daemon.planning import Change
from daemon.rows import RowDigest, TableFacts
from daemon.scanning import PlanSource, ScanLimits
from daemon.tiers import VerifiedSource
from daemon.unplanned import Latest, UncopiedRow, scan_for_uncopied
from journal.histories import ExpectedObject

STATEMENT_KEYS_MAX = 256
STATEMENT_BYTES_MAX = 64 * 1024 * 1024
"""What one statement digests at most, one larger value alone: about 0.3 s of MD5 and SHA-256 on the server."""
FINDINGS_PER_PAGE = 500


class DigestSource(PlanSource, Protocol):
    """PostgreSQL, as verification reads it."""

    async def row_digests(
        self, spec: SourceConfig, facts: TableFacts, row_keys: Sequence[str], *, with_sha256: bool
    ) -> dict[str, RowDigest]:
        """Return size and digests of those rows that exist, by row key."""


@dataclass(frozen=True, slots=True)
class VerifiedTable:
    """The table behind a source."""

    spec: SourceConfig
    facts: TableFacts


class RowReader:
    """The rows of some sources, by their digests; and what is in the tables besides.

    `drain` is never requested here: a verification that is stopped is cancelled.
    """

    def __init__(
        self,
        source: DigestSource,
        tables: Mapping[int, VerifiedTable],
        pacer: Pacer,
        *,
        latest: Latest,
        cutoff_us: int,
        limits: ScanLimits,
        random: Random,
    ) -> None:
        self._source = source
        self._tables = tables
        self._pacer = pacer
        self._drain = Drain()
        self._latest = latest
        self._cutoff_us = cutoff_us
        self._limits = limits
        self._random = random

    async def digests(
        self, source: VerifiedSource, rows: Sequence[ExpectedObject], *, with_sha256: bool
    ) -> dict[str, RowDigest]:
        """Return the digests of those rows that still exist, by row key; without SHA-256 unless asked for.

        Raises:
            SourceUnfitError, RefusedError, UnreachableError: as the source.
        """
        table = self._tables[source.id]
        found: dict[str, RowDigest] = {}
        for part in split(rows):
            await self._pacer.admit(self._drain, rows=len(part), size=sum(row.size for row in part))
            found |= await self._source.row_digests(
                table.spec, table.facts, [row.row_key for row in part], with_sha256=with_sha256
            )
        return found

    async def uncopied(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield rows in scope whose present bytes have no copy, after one scan of the table."""
        table = self._tables[source.id]
        scan = await scan_for_uncopied(
            self._source,
            table.spec,
            table.facts,
            source_id=source.id,
            latest=self._latest,
            cutoff_us=self._cutoff_us,
            limits=self._limits,
            random=self._random,
        )
        # Changed lengths have been found row by row already.
        rows = [row for row in scan.rows if row.change is not Change.CHANGED]
        for first in range(0, len(rows), FINDINGS_PER_PAGE):
            yield [_finding(source, row) for row in rows[first : first + FINDINGS_PER_PAGE]]
        unnamed = scan.uncopied.get(Change.NEW, 0) + scan.uncopied.get(Change.REAPPEARED, 0) - len(rows)
        if unnamed:
            detail = f"{unnamed} more rows, which are not named"
            yield [Finding(FindingKind.UNPLANNED, source.name, "", detail=detail, number=unnamed)]


def split(rows: Sequence[ExpectedObject]) -> list[list[ExpectedObject]]:
    """Return `rows` in parts that one statement digests."""
    parts: list[list[ExpectedObject]] = []
    size = 0
    for row in rows:
        if not parts or len(parts[-1]) >= STATEMENT_KEYS_MAX or size + row.size > STATEMENT_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += row.size
    return parts


def _finding(source: VerifiedSource, row: UncopiedRow) -> Finding:
    why = "not planned" if row.change is Change.NEW else "gone when it was to be copied, and back again"
    return Finding(
        FindingKind.UNPLANNED,
        source.name,
        object_key(source.layout, row.row_key),
        row.ordinal,
        row.row_key,
        f"{row.size} bytes, {why}",
    )
