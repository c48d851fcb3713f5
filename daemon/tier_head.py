"""Tier `head`: every object's headers: size, ETag, version, and our digest and migration in its metadata.

One request a key. What it adds to a listing: whose object it is, and a digest where the ETag is none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from daemon.comparing import Finding, TierName
from daemon.judging import judge_headers
from daemon.layouts import object_key
from daemon.looking import Looker, judged, no_others
from daemon.objects import ObjectFacts
from daemon.requesting import RequestPolicy
from daemon.tiers import Checked, VerifiedSource
from journal.histories import ExpectedObject


class Headers(Protocol):
    """The bucket, as this tier needs it."""

    async def head(self, bucket: str, key: str) -> ObjectFacts | None:
        """Return what is there, or None."""

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew."""


class HeadTier:
    """Objects by their headers."""

    name = TierName.HEAD
    batch_keys = 1000

    def __init__(
        self, bucket: Headers, policy: RequestPolicy, *, migration_id: str, concurrency: int
    ) -> None:
        self._bucket = bucket
        self._migration_id = migration_id
        self._looker: Looker[ObjectFacts | None] = Looker(
            policy, refresh=bucket.refresh_credentials, concurrency=concurrency
        )

    @asynccontextmanager
    async def ready(self, run: int, sources: Sequence[VerifiedSource]) -> AsyncIterator[bool]:
        """Prepare nothing."""
        del run, sources
        yield True

    async def check(self, source: VerifiedSource, rows: Sequence[ExpectedObject]) -> Checked:
        """Ask for the headers of each object."""
        keys = {row.ordinal: object_key(source.layout, row.row_key) for row in rows}
        answers = await self._looker.look(
            source.bucket, rows, lambda row: self._bucket.head(source.bucket, keys[row.ordinal])
        )
        return judged(
            source,
            rows,
            answers,
            lambda row, answer: judge_headers(row, answer, migration_id=self._migration_id),
        )

    def others(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield nothing: it looks at expected objects only."""
        return no_others(source)
