"""Tier `content`: every byte of an object against its row: GET here, SHA-256 by PostgreSQL there.

Nothing else sees bytes that rotted under an unchanged ETag. It reads every object and every value that it looks
at, so for most migrations a sample is enough.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from daemon.comparing import Finding, TierName
from daemon.judging import judge_content
from daemon.layouts import object_key
from daemon.looking import Looker, judged, no_others
from daemon.objects import ObjectDigests
from daemon.requesting import RequestPolicy
from daemon.row_reading import RowReader
from daemon.tiers import Checked, VerifiedSource
from journal.histories import ExpectedObject


class Contents(Protocol):
    """The bucket, as this tier needs it."""

    async def get_digests(self, bucket: str, key: str, *, size_max: int) -> ObjectDigests | None:
        """Return size and digests of what is there, or None; reads at most a little over `size_max` bytes."""

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew."""


class ContentTier:
    """Objects by their bytes."""

    name = TierName.CONTENT
    batch_keys = 256

    def __init__(self, bucket: Contents, rows: RowReader, policy: RequestPolicy, *, concurrency: int) -> None:
        self._bucket = bucket
        self._rows = rows
        self._looker: Looker[ObjectDigests | None] = Looker(
            policy, refresh=bucket.refresh_credentials, concurrency=concurrency
        )

    @asynccontextmanager
    async def ready(self, run: int, sources: Sequence[VerifiedSource]) -> AsyncIterator[bool]:
        """Prepare nothing."""
        del run, sources
        yield True

    async def check(self, source: VerifiedSource, rows: Sequence[ExpectedObject]) -> Checked:
        """Read each object and let PostgreSQL digest its row."""
        keys = {row.ordinal: object_key(source.layout, row.row_key) for row in rows}
        answers = await self._looker.look(
            source.bucket,
            rows,
            lambda row: self._bucket.get_digests(source.bucket, keys[row.ordinal], size_max=row.size),
        )
        digests = await self._rows.digests(source, rows, with_sha256=True)
        return judged(
            source, rows, answers, lambda row, answer: judge_content(row, answer, digests.get(row.row_key))
        )

    def others(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield nothing: it looks at expected objects only."""
        return no_others(source)
