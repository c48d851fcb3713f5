"""Look at the objects that an undo means, and delete those that are still ours.

For each batch: HEAD all; take back the outcomes of those that will go, in one commit; delete each; put on record
which are gone. So the journal never claims an object that is gone. What a crash leaves are keys
parked as undone whose object may still be there: the next undo of the same scope looks at them first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import trio

from daemon.errors import RefusedError
from daemon.layouts import object_key
from daemon.log_events import LogEvent, log_event
from daemon.objects import PreconditionFailed
from daemon.requesting import RequestPolicy, Requests
from daemon.retrying import Failure, FailureClass
from daemon.undoing import LeftObject, Reason, SourceTally, Step, UndoTally, Verdict, judge
from journal.entries import Revocation
from journal.events import Kind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from daemon.drain import Drain
    from daemon.layouts import Layout
    from daemon.objects import ListedObject, ObjectFacts
    from journal.created_objects import CreatedObject
    from journal.log import Journal

T = TypeVar("T")

FIRST_BATCH = 16
"""Objects of the first batch: where nothing may be deleted, few outcomes were taken back for nothing."""
BATCH = 500
"""Objects per batch after it: two commits each."""
CONDITION_REFUSED = frozenset({400, 501})
"""What servers answer that know no If-Match on DELETE."""


class Remover(Protocol):
    """The bucket, as an undo needs it; errors are classified `Failure`s."""

    async def head(self, bucket: str, key: str) -> ObjectFacts | None:
        """Return what is there, or None."""

    async def delete(
        self, bucket: str, key: str, *, version_id: str | None = None, if_match: str | None = None
    ) -> None:
        """Delete what is there, or one version, if it has that ETag; raises PreconditionFailed."""

    async def list_page(
        self, bucket: str, prefix: str, *, token: str | None
    ) -> tuple[list[ListedObject], str | None]:
        """Return a page of what is under `prefix`."""

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew."""


class Record(Protocol):
    """Writes to the journal; committed when it returns."""

    async def __call__(self, write: Callable[[Journal, int], T], /) -> T:
        """Return what `write(journal, now_us)` returns."""


@dataclass(frozen=True, slots=True)
class UndoneSource:
    """Where the objects of one source are."""

    id: int
    name: str
    bucket: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class DeletionPolicy:
    """How an undo goes about it.

    Attributes:
        migration_id: what objects of ours bear.
        concurrency: requests at once.
        tell_seconds: between two log lines about how far it is.
    """

    migration_id: str
    concurrency: int
    tell_seconds: float
    requests: RequestPolicy


@dataclass(frozen=True, slots=True)
class _Judged:
    created: CreatedObject
    source: UndoneSource
    key: str
    verdict: Verdict


class Deletion:
    """One undo, or one look at what it would do: `record` is None then, and nothing is changed."""

    def __init__(
        self,
        sources: Sequence[UndoneSource],
        bucket: Remover,
        policy: DeletionPolicy,
        *,
        record: Record | None,
        who: str,
        now_us: Callable[[], int],
        drain: Drain,
    ) -> None:
        """Prepare.

        Args:
            sources: those in scope.
            bucket: the target.
            policy: see there.
            record: writes to the journal; None: only look.
            who: the operator, for the record.
            now_us: wall clock.
            drain: once requested, no request is begun any more.
        """
        self._sources = {source.id: source for source in sources}
        self._bucket = bucket
        self._policy = policy
        self._record = record
        self._who = who
        self._now_us = now_us
        self._drain = drain
        self._requests = Requests(policy.requests, refresh=bucket.refresh_credentials)
        self._unconditional: set[str] = set()
        self._deleted_in: set[str] = set()
        self.tally = UndoTally({source.name: SourceTally() for source in sources})

    async def run(self, created: Iterable[CreatedObject]) -> None:
        """Go through the objects of the scope, each once; `tally` says what became of them, also midway.

        Raises:
            RefusedError: S3 lets us delete nothing, or look at nothing; MigrationHalted: no answer, no bucket.
            JournalError: from the journal.
        """
        for source in self._sources.values():
            # HEAD can't tell an object that is missing from a bucket that is: nothing may pass for gone by that.
            await self._requests.answer(
                partial(self._bucket.list_page, source.bucket, source.layout.prefix, token=None)
            )
        told = trio.current_time()
        for batch in _batches(created):
            if self._drain:
                return
            await self._undo(batch)
            if trio.current_time() - told >= self._policy.tell_seconds:
                told = trio.current_time()
                self._tell_progress()

    async def _undo(self, batch: Sequence[CreatedObject]) -> None:
        judged: list[_Judged] = []

        async def look(created: CreatedObject) -> None:
            judged.append(await self._judged(created))

        await self._each(batch, look)
        if self._drain:
            return
        self._refuse_if_all_are_refused(judged)
        for one in judged:
            if one.verdict.step is Step.LEAVE:
                self._leave(one, one.verdict)
        going = [one for one in judged if one.verdict.step is not Step.LEAVE]
        if self._record is None:
            for one in going:
                self._count(one)
            return
        await self._take_back([one.created.recorded.ordinal for one in going if not one.created.undone])
        await self._delete_all(going)

    async def _delete_all(self, going: Sequence[_Judged]) -> None:
        """Delete what goes; whatever ends this, what is gone by then is put on record."""
        gone = [one for one in going if one.verdict.step is Step.GONE]
        deleted: list[_Judged] = []
        refused: list[_Judged] = []

        async def delete(one: _Judged) -> None:
            verdict = await self._deleted(one)
            if verdict.step is not Step.LEAVE:
                deleted.append(one)
                return
            if verdict.reason is Reason.REFUSED:
                refused.append(one)
            self._leave(one, verdict)

        try:
            await self._each([one for one in going if one.verdict.step is Step.DELETE], delete)
        finally:
            with trio.CancelScope(shield=True):
                await self._put_on_record(deleted, already_gone=False)
                await self._put_on_record(gone, already_gone=True)
            for one in [*deleted, *gone]:
                self._count(one)
        self._deleted_in |= (going_in := {one.source.bucket for one in deleted})
        for bucket in {one.source.bucket for one in refused} - going_in:
            number = sum(one.source.bucket == bucket for one in refused)
            if bucket not in self._deleted_in or number >= FIRST_BATCH:
                raise RefusedError(
                    f"delete in bucket {bucket}: none of {number} objects may be deleted",
                    "undo needs s3:DeleteObject, on a versioned bucket s3:DeleteObjectVersion, and objects that no"
                    " retention keeps (s3:GetObjectRetention and s3:GetObjectLegalHold show them beforehand);"
                    " then the same command goes on",
                )

    async def _judged(self, created: CreatedObject) -> _Judged:
        recorded = created.recorded
        source = self._sources[recorded.source]
        key = object_key(source.layout, recorded.row_key)
        try:
            found = await self._requests.answer(lambda: self._bucket.head(source.bucket, key))
        except Failure as failure:
            return _Judged(created, source, key, _given_up(failure))
        verdict = judge(created, found, migration_id=self._policy.migration_id, now_us=self._now_us())
        return _Judged(created, source, key, verdict)

    async def _deleted(self, one: _Judged) -> Verdict:
        """Delete one object; return GONE, or why it is left. Before each further attempt it is looked at again."""
        recorded = one.created.recorded
        etag = recorded.md5 if recorded.etag is None else recorded.etag
        bucket, verdict, attempted = one.source.bucket, one.verdict, False

        async def attempt() -> Verdict:
            nonlocal verdict, attempted
            fixed = verdict.version_id not in {None, "null"}
            if attempted and not fixed:
                found = await self._bucket.head(bucket, one.key)
                verdict = judge(
                    one.created, found, migration_id=self._policy.migration_id, now_us=self._now_us()
                )
            attempted = True
            if verdict.step is not Step.DELETE:
                return verdict
            # A version never changes; what has none is protected against a writer beside us.
            condition = None if fixed or bucket in self._unconditional else etag
            try:
                await self._bucket.delete(bucket, one.key, version_id=verdict.version_id, if_match=condition)
            except PreconditionFailed as failed:
                raise Failure(
                    FailureClass.CONFLICT,
                    "DELETE",
                    f"DELETE s3://{bucket}/{one.key}: it changed since it was looked at",
                    http_status=412,
                    request_id=failed.request_id,
                    keys=(one.key,),
                ) from failed
            except Failure as failure:
                if condition is None or failure.http_status not in CONDITION_REFUSED:
                    raise
                self._unconditional.add(bucket)
                await self._bucket.delete(bucket, one.key, version_id=verdict.version_id)
            return Verdict(Step.GONE)

        try:
            return await self._requests.answer(attempt)
        except Failure as failure:
            return _given_up(failure)

    async def _each(self, items: Sequence[T], act: Callable[[T], Awaitable[None]]) -> None:
        """Act on each item, `concurrency` at once, until asked to stop."""
        waiting = iter(items)

        async def work() -> None:
            for item in waiting:
                if self._drain:
                    return
                await act(item)

        async with trio.open_nursery() as nursery:
            for _ in range(min(self._policy.concurrency, len(items))):
                nursery.start_soon(work)

    async def _take_back(self, ordinals: Sequence[int]) -> None:
        if not ordinals or self._record is None:
            return
        message = "taken back by `undo`; `backfillctl requeue --failure undone` and `run` copy it again"
        await self._record(
            lambda journal, now_us: journal.revoke(
                ordinals, Revocation.UNDO, message=message, who=self._who, now_us=now_us
            )
        )

    async def _put_on_record(self, judged: Sequence[_Judged], *, already_gone: bool) -> None:
        if self._record is None:
            return
        for source in self._sources.values():
            objects = [one for one in judged if one.source is source]
            if not objects:
                continue
            data: dict[str, Any] = {
                "ordinals": [one.created.recorded.ordinal for one in objects],
                "bytes": sum(one.created.recorded.size for one in objects),
                "already_gone": already_gone,
            }
            versions = [one.verdict.version_id for one in objects]
            if any(version is not None for version in versions) and not already_gone:
                data["versions"] = versions
            await self._record(
                lambda journal, now_us, data=data, at=source: journal.note(  # type: ignore[misc]
                    Kind.OBJECTS_DELETED, data, now_us=now_us, source=at.id
                )
            )

    def _refuse_if_all_are_refused(self, judged: Sequence[_Judged]) -> None:
        looked_at = [one for one in judged if one.verdict.reason is not Reason.PRESENT]
        refused = [one for one in looked_at if one.verdict.reason is Reason.REFUSED]
        if refused and len(refused) == len(looked_at) and not (self.tally.deleted or self.tally.gone):
            raise RefusedError(
                f"look at objects of bucket {refused[0].source.bucket}: {refused[0].verdict.detail}",
                "undo needs s3:GetObject and s3:ListBucket; `backfillctl check --iam` prints the rights of a migration",
                keys=(refused[0].key,),
            )

    def _count(self, one: _Judged) -> None:
        if one.verdict.step is Step.GONE:
            self.tally.sources[one.source.name].gone += 1
        else:
            self.tally.delete(one.source.name, one.created.recorded.size)

    def _leave(self, one: _Judged, verdict: Verdict) -> None:
        if verdict.reason is None:
            raise AssertionError(f"object of ordinal {one.created.recorded.ordinal} left without a reason")
        self.tally.leave(LeftObject(one.source.name, one.key, verdict.reason, verdict.detail))
        if verdict.reason is not Reason.PRESENT:
            log_event(
                LogEvent.OBJECT_LEFT,
                f"{one.source.name}: {one.key} is left: {verdict.reason.value}: {verdict.detail}",
                source=one.source.name,
                keys=(one.key, one.created.recorded.row_key),
                reason=verdict.reason.value,
            )

    def _tell_progress(self) -> None:
        word = "would delete" if self._record is None else "deleted"
        left = self.tally.left(*Reason)
        log_event(
            LogEvent.UNDO_PROGRESS,
            f"{word} {self.tally.deleted} objects so far; {self.tally.gone} were gone already, {left} are left",
            deleted=self.tally.deleted,
            gone=self.tally.gone,
            left=left,
        )


def _given_up(failure: Failure) -> Verdict:
    reason = Reason.REFUSED if failure.kind is FailureClass.FORBIDDEN else Reason.FAILED
    return Verdict(Step.LEAVE, reason, failure.message)


def _batches(created: Iterable[CreatedObject]) -> Iterator[list[CreatedObject]]:
    batch: list[CreatedObject] = []
    size = FIRST_BATCH
    for one in created:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch, size = [], BATCH
    if batch:
        yield batch
