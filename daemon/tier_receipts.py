"""Tier `receipts`: what the journal says holds together; neither end is asked.

S3 took every object under a signed Content-MD5 and most answered with that MD5 as the ETag, so a sound journal is
a receipt for each key. What it is worth rests on the journal: chain, plan hashes and projections are looked at too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from daemon.comparing import Finding, FindingKind, Means, TierName
from daemon.layouts import object_key
from daemon.runtime import RunSync
from daemon.tiers import Checked, VerifiedSource
from journal.checking import problems
from journal.histories import ExpectedObject
from journal.reader import Reader

_MD5 = re.compile(r"[0-9a-f]{32}")


class ReceiptsTier:
    """The journal against itself."""

    name = TierName.RECEIPTS
    batch_keys = 20_000

    def __init__(self, reader: Reader, in_thread: RunSync) -> None:
        self._reader = reader
        self._in_thread = in_thread
        self._problems: list[Finding] = []

    @asynccontextmanager
    async def ready(self, run: int, sources: Sequence[VerifiedSource]) -> AsyncIterator[bool]:
        """Check the whole journal, as `journal check` does.

        Raises:
            JournalError: it can't be read.
        """
        del run, sources
        found = await self._in_thread(lambda: problems(self._reader))
        self._problems = [Finding(FindingKind.RECEIPT, "journal", "", detail=problem) for problem in found]
        yield True

    async def check(self, source: VerifiedSource, rows: Sequence[ExpectedObject]) -> Checked:
        """Look whether each receipt can be one."""
        await trio.lowlevel.checkpoint()
        checked = Checked()
        for row in rows:
            if _MD5.fullmatch(row.md5) and row.size >= 0:
                checked.right[Means.RECEIPT] += 1
                continue
            detail = f"MD5 {row.md5!r} and {row.size} bytes on record; expected 32 hex digits and a size"
            key = object_key(source.layout, row.row_key)
            checked.findings.append(
                Finding(FindingKind.RECEIPT, source.name, key, row.ordinal, row.row_key, detail)
            )
        return checked

    async def others(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield what is wrong with the journal as a whole, once, and counts of this source that don't add up."""
        await trio.lowlevel.checkpoint()
        found, self._problems = self._problems, []
        counts = source.counts
        told = counts.settled + counts.parked + counts.in_flight + counts.pending + counts.unclaimed
        if told != counts.planned_rows:
            detail = f"{counts.planned_rows} keys planned, {told} accounted for"
            found.append(Finding(FindingKind.RECEIPT, source.name, "", detail=detail))
        yield found
