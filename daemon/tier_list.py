"""Tier `list`: every key is in the bucket's listing with its size and, where the ETag tells it, its MD5.

1000 keys a request. Memory is bounded: the listing goes to a file (`daemon.verification_stage`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import trio

from daemon.comparing import Finding, FindingKind, Means, TierName, compare
from daemon.errors import BackfillError
from daemon.layouts import object_key, row_key_of
from daemon.log_events import LogEvent, log_event
from daemon.objects import PROBE_KEY_NAME, ListedObject
from daemon.requesting import RequestPolicy, Requests
from daemon.retrying import Failure
from daemon.tiers import Checked, VerifiedSource
from daemon.verification_stage import ListingStage
from journal.entries import Known
from journal.histories import ExpectedObject
from journal.lifecycle import KeyState

LISTED_PER_LINE = 100_000
"""A log line each time so many objects were listed."""
_OF_A_PLANNED_KEY = frozenset({KeyState.PLANNED, KeyState.IN_FLIGHT, KeyState.PARKED, KeyState.SKIPPED})
"""States in which an object under the key is accounted for, although nobody compared it."""


class Lister(Protocol):
    """The bucket, as listing needs it."""

    async def list_page(
        self, bucket: str, prefix: str, *, token: str | None
    ) -> tuple[list[ListedObject], str | None]:
        """Return a page of the objects under `prefix` and the next token, None on the last; raises Failure."""

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew."""


Latest = Callable[[int, Sequence[str]], Mapping[str, Known]]
"""Tells the newest plan of some row keys of a source (`Journal.latest`; needs its index)."""


class ListTier:
    """The bucket's listing, staged beside the journal."""

    name = TierName.LIST
    batch_keys = 5000

    def __init__(self, journal: Path, lister: Lister, latest: Latest, policy: RequestPolicy) -> None:
        self._journal = journal
        self._lister = lister
        self._latest = latest
        self._requests = Requests(policy, refresh=lister.refresh_credentials)
        self._stage: ListingStage

    @asynccontextmanager
    async def ready(self, run: int, sources: Sequence[VerifiedSource]) -> AsyncIterator[bool]:
        """List every source, unless this run had done so before it was interrupted.

        Raises:
            RefusedError: the bucket may not be listed, or is not there.
            UnreachableError: the endpoint did not answer.
            BackfillError: it answered nothing of use, however often it was asked.
        """
        with ListingStage(self._journal, run) as self._stage:
            for source in sources:
                await self._list(source)
            yield self._stage.kept

    async def check(self, source: VerifiedSource, rows: Sequence[ExpectedObject]) -> Checked:
        """Look the keys up in the listing."""
        checked = Checked()
        for found in (await self.look_up(source, rows)).values():
            if isinstance(found, Finding):
                checked.findings.append(found)
            else:
                checked.right[found] += 1
        return checked

    async def look_up(
        self, source: VerifiedSource, rows: Sequence[ExpectedObject]
    ) -> dict[int, Means | Finding]:
        """Return by what means each object is right in the listing, or what is wrong with it, by ordinal."""
        await trio.lowlevel.checkpoint()
        keys = {row.ordinal: object_key(source.layout, row.row_key) for row in rows}
        listed = self._stage.find(source.id, keys.values())
        self._stage.mark(source.id, listed)
        found: dict[int, Means | Finding] = {}
        for row in rows:
            key = keys[row.ordinal]
            if key not in listed:
                found[row.ordinal] = Finding(FindingKind.MISSING, source.name, key, row.ordinal, row.row_key)
                continue
            means, difference = compare(listed[key], size=row.size, md5=row.md5, etag=row.etag)
            found[row.ordinal] = (
                Finding(FindingKind.DIFFERING, source.name, key, row.ordinal, row.row_key, difference)
                if difference
                else means
            )
        return found

    async def others(self, source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
        """Yield objects that no row accounts for, not those under keys that are planned but were not compared."""
        for page in self._stage.leftovers(source.id):
            row_keys = {item.key: row_key for item in page if (row_key := _row_key(source, item)) is not None}
            planned = self._latest(source.id, list(row_keys.values()))
            accounted = {row_key for row_key, known in planned.items() if known.state in _OF_A_PLANNED_KEY}
            yield [
                Finding(FindingKind.EXTRA, source.name, item.key, detail=f"{item.size} bytes")
                for item in page
                if row_keys.get(item.key) not in accounted
            ]
            await trio.lowlevel.checkpoint()

    async def _list(self, source: VerifiedSource) -> None:
        listed, token, complete = self._stage.reached(source.id)
        while not complete:
            subject = f"list bucket {source.bucket} for source {source.name}"
            try:
                objects, token = await self._requests.answer(
                    partial(self._lister.list_page, source.bucket, source.layout.prefix, token=token),
                    subject=subject,
                )
            except Failure as failure:
                raise BackfillError(
                    f"{subject}: {failure.message}",
                    "run `backfillctl check`; the listing answered nothing of use",
                    keys=failure.keys,
                ) from failure
            complete = token is None
            self._stage.add(source.id, objects, token=token)
            before, listed = listed, listed + len(objects)
            if complete or listed // LISTED_PER_LINE > before // LISTED_PER_LINE:
                where = f"of bucket {source.bucket}" if complete else "so far"
                log_event(
                    LogEvent.BUCKET_LISTED,
                    f"{source.name}: listed {listed} objects {where}",
                    source=source.name,
                    bucket=source.bucket,
                    objects=listed,
                    complete=complete,
                )
        self._stage.mark_beginning(source.id, source.layout.prefix + PROBE_KEY_NAME)


def _row_key(source: VerifiedSource, item: ListedObject) -> str | None:
    try:
        return row_key_of(source.layout, item.key)
    except ValueError:
        return None
