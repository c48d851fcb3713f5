"""Find out what conditional PUTs are worth at an endpoint, before the first upload relies on them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import md5
from typing import TYPE_CHECKING, Literal, Protocol

from daemon.objects import IF_ABSENT, UNCONDITIONAL, Condition, PreconditionFailed, PutReceipt
from daemon.retrying import Failure, FailureClass

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE_KEY_NAME = ".backfill-probe"
"""The probe's object key is this under the source's prefix; verification passes it over."""
_BODY = b"backfillctl asks whether conditional writes work here; safe to delete\n"


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """What the endpoint makes of `If-None-Match: *`, and whether the probe could clean up.

    Attributes:
        conditional: "atomic" (a PUT was refused because something was there), "ignored" (it overwrote) or
            "refused" (the header itself is not accepted).
        deletable: the probe object could be deleted; if not, it remains under `key`.
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

    async def delete(self, bucket: str, key: str, *, version_id: str | None = None) -> None:
        """Delete the object, or one version of it."""


async def probe(target: Probed, bucket: str, prefix: str) -> ProbeFinding:
    """Find out by two PUTs to one fixed key under `prefix` what conditions are worth there.

    May be repeated after a failure at any point: an object left by an earlier probe does not mislead it.

    Raises:
        Failure: an answer that says nothing about conditions, as a refusal of every PUT.
    """
    key = f"{prefix}{PROBE_KEY_NAME}"
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
        try:
            taken.append(await _put(target, bucket, key, UNCONDITIONAL))
        except Failure as failure:
            # Not the condition is refused, but the PUT: the first answer says why.
            raise refusal from failure
        conditional = "refused"
    return ProbeFinding(conditional, await _delete(target, bucket, key, taken), key)


async def _put(target: Probed, bucket: str, key: str, condition: Condition) -> PutReceipt:
    digest = md5(_BODY, usedforsecurity=False).digest()
    return await target.put(
        bucket, key, _BODY, md5=digest, headers={"content-type": "text/plain"}, condition=condition
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
