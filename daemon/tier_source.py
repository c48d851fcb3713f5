"""Tier `source`: row, journal and listed object, three ways; PostgreSQL computes length and MD5 of every row.

It tells a row that has changed from an object that has, and finds rows that the journal does not know. No value
leaves the database; PostgreSQL reads every value, though.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from daemon.comparing import Finding, TierName
from daemon.judging import judge_row
from daemon.layouts import object_key
from daemon.row_reading import RowReader
from daemon.tier_list import ListTier
from daemon.tiers import Checked, VerifiedSource
from journal.histories import ExpectedObject


class SourceTier:
    """Rows against the journal, on top of the listing."""

    name = TierName.SOURCE
    batch_keys = 1000

    def __init__(self, listing: ListTier, rows: RowReader) -> None:
        self._listing = listing
        self._rows = rows

    @asynccontextmanager
    async def ready(self, run: int, sources: Sequence[VerifiedSource]) -> AsyncIterator[bool]:
        """List the bucket, as tier `list` does."""
        async with self._listing.ready(run, sources) as goes_on:
            yield goes_on

    async def check(self, source: VerifiedSource, rows: Sequence[ExpectedObject]) -> Checked:
        """Look the objects up in the listing, and compare the rows of those that are right there."""
        listed = await self._listing.look_up(source, rows)
        right = [row for row in rows if not isinstance(listed[row.ordinal], Finding)]
        digests = await self._rows.digests(source, right, with_sha256=False)
        checked = Checked()
        for row in rows:
            found = listed[row.ordinal]
            if isinstance(found, Finding):
                checked.findings.append(found)
                continue
            difference = judge_row(row, digests.get(row.row_key))
            if difference is None:
                # The row is compared by MD5; the object by what the listing tells.
                checked.right[found] += 1
                continue
            kind, detail = difference
            key = object_key(source.layout, row.row_key)
            checked.findings.append(Finding(kind, source.name, key, row.ordinal, row.row_key, detail))
        return checked

    async def others(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield objects that no row accounts for, and rows that the journal does not know."""
        for generator in (self._listing.others(source), self._rows.uncopied(source)):
            async with aclosing(generator) as pages:
                async for page in pages:
                    yield page
