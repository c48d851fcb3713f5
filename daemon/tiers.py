"""What a tier of verification is: how it looks at keys that the journal answers for, and at what else there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from daemon.comparing import Finding, Means, TierName
from daemon.layouts import Layout
from journal.entries import SourceCounts
from journal.histories import ExpectedObject


@dataclass(frozen=True, slots=True)
class VerifiedSource:
    """Where the objects of one source are; no two sources have the same or nested (bucket, prefix)."""

    id: int
    name: str
    bucket: str
    layout: Layout
    counts: SourceCounts

    @property
    def expected(self) -> int:
        """How many keys have an object that the journal answers for."""
        return self.counts.stored + self.counts.recovered + self.counts.present


@dataclass(slots=True)
class Checked:
    """What became of one batch: each of its keys is either among `right` or in exactly one finding with its ordinal.

    Attributes:
        right: keys found right, by means.
    """

    right: Counter[Means] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class Tier(Protocol):
    """One way of looking.

    Attributes:
        name: as events have it.
        batch_keys: most keys that `check` is given at once.
    """

    name: TierName
    batch_keys: int

    def ready(self, run: int, sources: Sequence[VerifiedSource]) -> AbstractAsyncContextManager[bool]:
        """Prepare for the run of this id, for as long as the block lasts; a run taken up again has the same id.

        Yields whether a run that is taken up goes on where it was: False if what this tier kept for it is lost.
        """

    async def check(self, source: VerifiedSource, rows: Sequence[ExpectedObject]) -> Checked:
        """Look at some keys of one source.

        Raises:
            RefusedError, UnreachableError, BackfillError: nothing can be told of any key.
        """

    def others(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield, after every key was checked, findings that concern no expected key; a sample is not asked for them."""
