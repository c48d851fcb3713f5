"""Bring one row into the bucket: one conditional PUT, and every branch after a 412."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import Random
from typing import Literal, NamedTuple, Protocol
from urllib.parse import quote

import trio

from daemon.activity import Activity
from daemon.budget import Silence
from daemon.causes import Cause
from daemon.halting import halted
from daemon.judging import MD5_FIELD, MIGRATION_FIELD, migration_mark
from daemon.layouts import unusable_reason
from daemon.objects import (
    IF_ABSENT,
    UNCONDITIONAL,
    Condition,
    ObjectFacts,
    PreconditionFailed,
    PutReceipt,
    if_match,
)
from daemon.retrying import Disposition, Failure, FailureClass, decide
from daemon.rows import FetchedRow
from daemon.runtime import RunSync
from journal.entries import AttemptFailed, Parked, Settled
from journal.lifecycle import Outcome

INLINE_DIGEST_MAX = 64 * 1024
"""Values up to this many bytes are digested in the loop: a thread hop costs more (MD5 runs at ~750 MB/s)."""


class Conditional(StrEnum):
    """What the endpoint makes of `If-None-Match: *`, as the probe found it."""

    ATOMIC = "atomic"
    IGNORED = "ignored"
    REFUSED = "refused"


class Target(Protocol):
    """The bucket, as the uploader needs it; errors are classified `Failure`s, a 412 is `PreconditionFailed`."""

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        md5: bytes,
        headers: Mapping[str, str],
        condition: Condition,
        sha256_hex: str | None = None,
    ) -> PutReceipt:
        """Store `body`, whose digests these are, under `key` if `condition` holds; idempotent for equal bytes."""

    async def head(self, bucket: str, key: str) -> ObjectFacts | None:
        """Return what is there, or None."""

    async def get_digest(self, bucket: str, key: str, *, size_max: int) -> tuple[str, int]:
        """Return MD5 (hex) and size of what is there, reading at most a little over `size_max` bytes."""

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the rows of one source go.

    Attributes:
        conditional: the probe's finding for this bucket.
    """

    bucket: str
    content_type: str
    conditional: Conditional


@dataclass(frozen=True, slots=True)
class UploadPolicy:
    """What the configuration says of uploads, for every source alike.

    Attributes:
        migration_id: written to each object, so that a later 412 can be known for our own.
        etag_is_md5: False under SSE-KMS and SSE-C, where ETag says nothing about the bytes.
        give_up_after: seconds of silence of the endpoint after which the migration halts.
    """

    migration_id: str
    existing: Literal["compare", "overwrite", "skip"]
    max_attempts: int
    give_up_after: float
    etag_is_md5: bool = True


_MD5_HEX_DIGITS = 32
_NOT_MD5 = ("aws:kms", "aws:kms:dsse")


def comparable(etag: str, encryption: str | None) -> bool:
    """Say whether `etag` is the MD5 of the object (S3 API, "ETag": single PUT, neither SSE-KMS nor SSE-C)."""
    return len(etag) == _MD5_HEX_DIGITS and encryption not in _NOT_MD5


def metadata_headers(
    row: FetchedRow, *, md5_hex: str, migration_id: str, content_type: str
) -> dict[str, str]:
    """Return the headers that make the object tell where it came from; values percent-encoded UTF-8.

    Blanks of a column's value are encoded too: at its ends HTTP takes them for padding and drops them.
    """
    headers = {
        "content-type": content_type,
        f"x-amz-meta-{MD5_FIELD}": md5_hex,
        f"x-amz-meta-{MIGRATION_FIELD}": migration_mark(migration_id),
    }
    if row.created_at_text is not None:
        headers["x-amz-meta-created-at"] = quote(row.created_at_text, safe=":+ ")
    for column, value in row.metadata.items():
        headers[f"x-amz-meta-{column.lower()}"] = quote(value, safe="/:+@,;=")
    return headers


def waited_for(failure: Failure) -> Cause:
    """Return what the backoff after `failure` is spent on."""
    if failure.kind is FailureClass.THROTTLED:
        return Cause.S3_SLOW_DOWN
    return Cause.NETWORK if failure.answered else Cause.UNREACHABLE


class Uploader:
    """Drives single rows to an outcome; holds no state of any key between calls."""

    def __init__(
        self,
        target: Target,
        policy: UploadPolicy,
        *,
        record: Callable[[AttemptFailed], Awaitable[None]],
        random: Random,
        digest_runner: RunSync,
        activity: Activity,
    ) -> None:
        self._target = target
        self._policy = policy
        self._record = record
        self._random = random
        self._digest_runner = digest_runner
        self._activity = activity
        self._silence = Silence()

    async def copy(
        self, ordinal: int, destination: Destination, key: str, row: FetchedRow, *, replacing: bool = False
    ) -> Settled | Parked:
        """Copy `row` to `key`, retrying as the policy says; every failed attempt is recorded.

        With `replacing`, what was recorded of this key before was taken back, so no word of HEAD is believed: an
        object of ours is overwritten, and a foreign one is read and compared even where the policy is to skip.

        Raises:
            MigrationHalted: nothing more can succeed, for this key or any other.
        """
        unusable = unusable_reason(key)
        if unusable is not None:
            return Parked(ordinal, FailureClass.UNUSABLE_KEY, unusable)
        value = row.value
        if value is None:
            raise AssertionError(f"upload of ordinal {ordinal} without its value")
        md5, sha256_hex = await self._digested(value)
        copied = _Copy(
            ordinal,
            destination,
            key,
            value,
            md5,
            sha256_hex,
            metadata_headers(
                row,
                md5_hex=md5.hex(),
                migration_id=self._policy.migration_id,
                content_type=destination.content_type,
            ),
            replacing=replacing,
        )
        answers = failures = 0
        refreshed = False
        while True:
            begun = trio.current_time()
            try:
                with self._activity.at(Cause.NETWORK):
                    settled = await self._attempt(copied)
            except Failure as failure:
                failures += 1
                answers += failure.counted
                now = trio.current_time()
                silent = 0.0 if failure.counted else self._silence.unanswered(now)
                if failure.counted:
                    self._silence.broken()
                decision = decide(
                    failure,
                    answers=answers,
                    failures=failures,
                    max_attempts=self._policy.max_attempts,
                    silent_seconds=silent,
                    give_up_after=self._policy.give_up_after,
                    jitter=self._random.random(),
                    refreshed=refreshed,
                )
                retried = decision.disposition is Disposition.RETRY
                await self._record(_attempt_failed(ordinal, failure, failures, now - begun, retried=retried))
                if decision.disposition is Disposition.PARK:
                    return Parked(ordinal, failure.kind, _why_parked(failure))
                if decision.disposition is Disposition.HALT:
                    raise halted(failure, decision.exit_code) from failure
                if failure.kind in {FailureClass.FORBIDDEN, FailureClass.EXPIRED_CREDENTIALS}:
                    await self._target.refresh_credentials()
                    refreshed = True
                with self._activity.at(waited_for(failure)):
                    await trio.sleep(decision.delay)
            else:
                self._silence.broken()
                return settled

    async def _digested(self, value: bytes) -> tuple[bytes, str]:
        if len(value) <= INLINE_DIGEST_MAX:
            return _digests(value)
        return await self._digest_runner(partial(_digests, value))

    async def _attempt(self, copied: _Copy) -> Settled | Parked:
        """Make one attempt; raises Failure."""
        if copied.destination.conditional is Conditional.ATOMIC:
            try:
                return await self._put(copied, IF_ABSENT, Outcome.STORED)
            except PreconditionFailed:
                return await self._resolve(copied, await self._head(copied))
        there = await self._head(copied)
        if there is None:
            return await self._put(copied, UNCONDITIONAL, Outcome.STORED)
        return await self._resolve(copied, there)

    async def _head(self, copied: _Copy) -> ObjectFacts | None:
        return await self._target.head(copied.destination.bucket, copied.key)

    async def _put(self, copied: _Copy, condition: Condition, outcome: Outcome) -> Settled:
        receipt = await self._target.put(
            copied.destination.bucket,
            copied.key,
            copied.value,
            md5=copied.md5,
            headers=copied.headers,
            condition=condition,
            sha256_hex=copied.sha256_hex,
        )
        md5_hex = copied.md5.hex()
        if self._is_md5(receipt.etag, receipt.encryption) and receipt.etag != md5_hex:
            raise Failure(
                FailureClass.CORRUPTED,
                "PUT",
                f"stored bytes differ: ETag {receipt.etag}, expected {md5_hex}",
                request_id=receipt.request_id,
            )
        return _settled(copied, outcome, receipt.etag, receipt.version_id)

    async def _resolve(self, copied: _Copy, there: ObjectFacts | None) -> Settled | Parked:
        """Decide about an object that is there already (design: every branch after a 412)."""
        if there is None:
            raise Failure(
                FailureClass.CONFLICT, "HEAD", "412 on PUT, then 404 on HEAD: it went away meanwhile"
            )
        if there.metadata.get(MIGRATION_FIELD) == migration_mark(self._policy.migration_id):
            if not copied.replacing and self._holds(copied, there):
                return _settled(copied, Outcome.RECOVERED, there.etag, there.version_id)
            return await self._overwrite(copied, there)
        if self._policy.existing == "skip" and not copied.replacing:
            return Settled(copied.ordinal, Outcome.SKIPPED, there.size, "", there.etag, there.version_id)
        if self._policy.existing == "overwrite":
            return await self._overwrite(copied, there)
        return await self._compare(copied, there)

    async def _overwrite(self, copied: _Copy, there: ObjectFacts) -> Settled:
        condition = (
            UNCONDITIONAL if copied.destination.conditional is Conditional.REFUSED else if_match(there.etag)
        )
        try:
            return await self._put(copied, condition, Outcome.STORED)
        except PreconditionFailed as failed:
            raise Failure(
                FailureClass.CONFLICT,
                "PUT",
                "the object changed between HEAD and overwrite",
                http_status=412,
                request_id=failed.request_id,
            ) from failed

    async def _compare(self, copied: _Copy, there: ObjectFacts) -> Settled | Parked:
        """Compare a foreign object by digest, never by size alone."""
        md5_hex = copied.md5.hex()
        if there.size != len(copied.value):
            return _conflict(copied, f"{there.size} bytes, the row has {len(copied.value)}")
        if self._is_md5(there.etag, there.encryption) and not copied.replacing:
            found = there.etag
        else:
            found, _ = await self._target.get_digest(
                copied.destination.bucket, copied.key, size_max=len(copied.value)
            )
        if found == md5_hex:
            return _settled(copied, Outcome.PRESENT, there.etag, there.version_id)
        return _conflict(copied, f"MD5 {found}, the row has {md5_hex}")

    def _is_md5(self, etag: str, encryption: str | None) -> bool:
        return self._policy.etag_is_md5 and comparable(etag, encryption)

    def _holds(self, copied: _Copy, there: ObjectFacts) -> bool:
        if there.size != len(copied.value):
            return False
        md5_hex = copied.md5.hex()
        if self._is_md5(there.etag, there.encryption):
            return there.etag == md5_hex
        return there.metadata.get(MD5_FIELD) == md5_hex


def _digests(value: bytes) -> tuple[bytes, str]:
    """Return MD5 and SHA-256 (hex) of a value: once for all attempts, and in one hop to a thread where it is large."""
    return hashlib.md5(value, usedforsecurity=False).digest(), hashlib.sha256(value).hexdigest()


class _Copy(NamedTuple):
    ordinal: int
    destination: Destination
    key: str
    value: bytes
    md5: bytes
    sha256_hex: str
    headers: Mapping[str, str]
    replacing: bool


def _settled(copied: _Copy, outcome: Outcome, etag: str, version_id: str | None) -> Settled:
    md5_hex = copied.md5.hex()
    return Settled(
        copied.ordinal, outcome, len(copied.value), md5_hex, None if etag == md5_hex else etag, version_id
    )


def _conflict(copied: _Copy, found: str) -> Parked:
    return Parked(
        copied.ordinal,
        FailureClass.FOREIGN_OBJECT,
        f"another object is under {copied.key!r}: {found}",
    )


def _attempt_failed(
    ordinal: int, failure: Failure, attempt: int, seconds: float, *, retried: bool
) -> AttemptFailed:
    return AttemptFailed(
        ordinal=ordinal,
        operation=failure.operation,
        failure=failure.kind,
        message=failure.message,
        http_status=failure.http_status,
        code=failure.code,
        request_id=failure.request_id,
        milliseconds=round(seconds * 1000),
        attempt=attempt,
        retried=retried,
    )


def _why_parked(failure: Failure) -> str:
    if failure.kind is FailureClass.FORBIDDEN:
        return f"cannot compare with what is there: {failure.message}"
    return failure.message
