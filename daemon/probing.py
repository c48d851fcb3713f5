"""Find out what conditional PUTs are worth at an endpoint, before the first upload relies on them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import md5
from typing import TYPE_CHECKING, Literal, Protocol

from daemon.objects import (
    IF_ABSENT,
    PROBE_KEY_NAME,
    UNCONDITIONAL,
    Condition,
    ObjectFacts,
    PreconditionFailed,
    PutReceipt,
)
from daemon.retrying import RETRIED, Failure, FailureClass

if TYPE_CHECKING:
    from collections.abc import Mapping

BODY = b"backfillctl asks whether conditional writes work here; safe to delete\n"
"""What a probe stores, always: by these bytes it knows an object that an earlier one left."""
_MD5 = md5(BODY, usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """What the endpoint makes of `If-None-Match: *`, and whether the probe could clean up.

    Attributes:
        conditional: "atomic" (a PUT was refused because something was there), "ignored" (it overwrote) or
            "refused" (the header itself is not accepted).
        deletable: the probe object could be deleted; if not, an object remains under `key`.
        key: the probe's object key.
    """

    conditional: Literal["atomic", "ignored", "refused"]
    deletable: bool
    key: str


class Probed(Protocol):
    """A bucket, as the probe needs it."""

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        md5: bytes,
        headers: Mapping[str, str],
        condition: Condition,
    ) -> PutReceipt:
        """Store `body` under `key` if `condition` holds, else raise PreconditionFailed."""

    async def head(self, bucket: str, key: str) -> ObjectFacts | None:
        """Return what is there, or None."""

    async def get_digest(self, bucket: str, key: str, *, size_max: int) -> tuple[str, int]:
        """Return MD5 (hex) and size of what is there."""

    async def delete(self, bucket: str, key: str, *, version_id: str | None = None) -> None:
        """Delete the object, or one version of it."""


async def probe(target: Probed, bucket: str, prefix: str) -> ProbeFinding:
    """Find out by two PUTs to one fixed key under `prefix` what conditions are worth there.

    May be repeated after a failure at any point: an object left by an earlier probe does not mislead it. Any
    other object under that key is neither overwritten nor deleted. Only where conditions are ignored and HEAD is
    forbidden, nothing can be known of it beforehand.

    Raises:
        Failure: an answer that says nothing about conditions, as a refusal of every PUT; REJECTED if something
            else than a probe's object is there.
    """
    key = f"{prefix}{PROBE_KEY_NAME}"
    unseen: Failure | None = None
    there: ObjectFacts | None = None
    try:
        there = await target.head(bucket, key)
    except Failure as failure:
        # S3 answers 403 for what is missing to those who may not list the bucket, and no answer to a HEAD has a
        # body that says why; the PUT's will, and its condition still protects.
        if failure.kind in RETRIED:
            raise
        unseen = failure
    await _refuse_foreign(target, bucket, key, there)
    taken: list[PutReceipt] = []
    conditional: Literal["atomic", "ignored", "refused"] = "ignored"
    try:
        for _ in range(2):
            try:
                taken.append(await _put(target, bucket, key, IF_ABSENT))
            except PreconditionFailed:
                conditional = "atomic"
    except Failure as refusal:
        if refusal.kind is not FailureClass.REJECTED:
            raise
        if unseen is not None:
            raise (unseen if unseen.kind is FailureClass.FORBIDDEN else refusal) from refusal
        try:
            taken.append(await _put(target, bucket, key, UNCONDITIONAL))
        except Failure as failure:
            # Not the condition is refused, but the PUT: the first answer says why.
            raise refusal from failure
        conditional = "refused"
    ours = bool(taken)
    if not ours and unseen is None:
        there = await target.head(bucket, key)
        await _refuse_foreign(target, bucket, key, there)
        ours = there is not None
    return ProbeFinding(conditional, ours and await _delete(target, bucket, key, taken), key)


async def _refuse_foreign(target: Probed, bucket: str, key: str, there: ObjectFacts | None) -> None:
    """Let pass nothing at all, or a probe's object, known by its bytes.

    Raises:
        Failure: REJECTED if something else is there.
    """
    if there is None:
        return
    if there.size == len(BODY):
        # Under SSE-KMS an ETag is no digest of the bytes.
        if there.etag == _MD5.hexdigest():
            return
        if (await target.get_digest(bucket, key, size_max=len(BODY)))[0] == _MD5.hexdigest():
            return
    raise Failure(
        FailureClass.REJECTED,
        "HEAD",
        f"probe s3://{bucket}/{key}: expected nothing or what an earlier probe left, found another object of "
        f"{there.size} bytes; move it away or choose another prefix",
    )


async def _put(target: Probed, bucket: str, key: str, condition: Condition) -> PutReceipt:
    return await target.put(
        bucket, key, BODY, md5=_MD5.digest(), headers={"content-type": "text/plain"}, condition=condition
    )


async def _delete(target: Probed, bucket: str, key: str, taken: list[PutReceipt]) -> bool:
    """Delete what the probe wrote: where versions are kept each of them for good, else the object.

    Without the right to delete versions, a plain DELETE still takes the object out of sight.
    """
    versions = {receipt.version_id for receipt in taken} - {None, "null"}
    try:
        for version_id in versions:
            await target.delete(bucket, key, version_id=version_id)
    except Failure as failure:
        if failure.kind is not FailureClass.FORBIDDEN:
            raise
        versions = set()
    if versions:
        return True
    try:
        await target.delete(bucket, key)
    except Failure as failure:
        if failure.kind is not FailureClass.FORBIDDEN:
            raise
        return False
    return True
