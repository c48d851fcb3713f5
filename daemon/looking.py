"""Look at many objects, so many at once: what each answers, or why it can't be looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import trio

from daemon.comparing import Finding, FindingKind, Means
from daemon.errors import RefusedError
from daemon.layouts import object_key
from daemon.requesting import RequestPolicy, Requests
from daemon.retrying import Failure, FailureClass
from daemon.tiers import Checked, VerifiedSource
from journal.histories import ExpectedObject

T = TypeVar("T")

REFUSED_MAX = 20
"""Refusals in one bucket before anything in it was seen, after which a right is missing: it is not one object's."""


class Looker(Generic[T]):
    """Asks about objects, at most `concurrency` at once."""

    def __init__(
        self, policy: RequestPolicy, *, refresh: Callable[[], Awaitable[None]], concurrency: int
    ) -> None:
        self._requests = Requests(policy, refresh=refresh)
        self._limit = concurrency
        self._seen: set[str] = set()
        self._refused: Counter[str] = Counter()

    async def look(
        self, bucket: str, rows: Sequence[ExpectedObject], ask: Callable[[ExpectedObject], Awaitable[T]]
    ) -> dict[int, T | Failure]:
        """Return what was answered about each row, or the failure that is this object's own, by ordinal.

        Args:
            bucket: where all of these objects are: rights are granted by bucket.
            rows: whose objects.
            ask: asks about one; raises a classified Failure.

        Raises:
            ExceptionGroup: of RefusedError (nothing may be read) or MigrationHalted (nothing can be).
        """
        found: dict[int, T | Failure] = {}
        waiting = iter(rows)

        async def one_after_another() -> None:
            for row in waiting:
                try:
                    found[row.ordinal] = await self._requests.answer(lambda row=row: ask(row))  # type: ignore[misc]
                    self._seen.add(bucket)
                except Failure as failure:
                    found[row.ordinal] = failure
                    self._count_refusal(bucket, failure)

        async with trio.open_nursery() as nursery:
            for _ in range(min(self._limit, len(rows))):
                nursery.start_soon(one_after_another)
        return found

    def _count_refusal(self, bucket: str, failure: Failure) -> None:
        if failure.kind is not FailureClass.FORBIDDEN or is_archived(failure):
            return
        self._refused[bucket] += 1
        if bucket not in self._seen and self._refused[bucket] >= REFUSED_MAX:
            raise RefusedError(
                f"{failure.operation} refused for the first {self._refused[bucket]} objects: {failure.message}",
                "`backfillctl check --iam` prints the rights needed (s3:GetObject)",
                keys=failure.keys,
            )


def is_archived(failure: Failure) -> bool:
    """Say whether the object is in a storage class that must be restored first (S3 API, InvalidObjectState)."""
    return failure.code == "InvalidObjectState"


def why_unreadable(failure: Failure) -> str:
    """Return why an object could not be looked at, in one line."""
    if is_archived(failure):
        return "in an archive class; restore it to read it"
    return failure.message


def judged(
    source: VerifiedSource,
    rows: Sequence[ExpectedObject],
    answers: Mapping[int, T | Failure],
    judge: Callable[[ExpectedObject, T], Means | tuple[FindingKind, str]],
) -> Checked:
    """Return what a batch comes to: each key right by some means, or in one finding.

    Args:
        source: whose keys.
        rows: as they were looked at.
        answers: by ordinal, what was answered or why not.
        judge: tells by what means an answer is right, or what is wrong with it.
    """
    checked = Checked()
    for row in rows:
        answer = answers[row.ordinal]
        verdict = (
            (FindingKind.UNREADABLE, why_unreadable(answer))
            if isinstance(answer, Failure)
            else judge(row, answer)
        )
        if isinstance(verdict, Means):
            checked.right[verdict] += 1
            continue
        kind, detail = verdict
        key = object_key(source.layout, row.row_key)
        checked.findings.append(Finding(kind, source.name, key, row.ordinal, row.row_key, detail))
    return checked


async def no_others(source: VerifiedSource) -> AsyncGenerator[list[Finding], None]:
    """Yield nothing: what a tier says that looks at expected objects only."""
    del source
    await trio.lowlevel.checkpoint()
    yield []
