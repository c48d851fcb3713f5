"""Compare what the journal says is in the bucket with what a listing shows; pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.objects import ListedObject

EXAMPLES_MAX = 20
"""Findings of one kind named on the screen; the journal has all of them."""


class Means(StrEnum):
    """What an object was told to be the right one by."""

    MD5 = "md5"
    SIZE = "size"


class FindingKind(StrEnum):
    """What can be wrong with a bucket."""

    MISSING = "missing"
    DIFFERING = "differing"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is not as it should be.

    Attributes:
        ordinal, row_key: None for an extra object.
        detail: expected and found; empty for a missing object.
    """

    kind: FindingKind
    source: str
    object_key: str
    ordinal: int | None = None
    row_key: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What a verification by listing found.

    Attributes:
        checked: stored and present keys compared with the listing, missing ones included.
        by_md5: found right by size and MD5.
        by_size: found right by size, and by an ETag that is no MD5 where one was recorded.
        missing, differing: objects, as named in `examples`.
        extra: objects that no planned row accounts for.
        unsettled: planned keys that were not checked, because their copy is not settled.
        skipped: keys that were not checked, because `existing = skip` left what was there uncompared.
        extra_fails: an extra object counts as a mismatch (`--no-extra`).
        examples: the first EXAMPLES_MAX findings of each kind.
        seconds: how long it took.
    """

    checked: int
    by_md5: int
    by_size: int
    missing: int
    differing: int
    extra: int
    unsettled: int
    skipped: int
    extra_fails: bool
    examples: tuple[Finding, ...]
    seconds: float

    @property
    def exit_code(self) -> ExitCode:
        """MISMATCH if anything is missing or differing, or extra where that counts; else DONE."""
        wrong = self.missing or self.differing or (self.extra_fails and self.extra)
        return ExitCode.MISMATCH if wrong else ExitCode.DONE


def compare(found: ListedObject, *, size: int, md5: str, etag: str | None) -> tuple[Means, str]:
    """Return what `found` could be compared by, and how it differs (empty if it does not).

    The listed ETag must be the one that the bucket answered when the key was settled. That one is an MD5 only
    if the journal recorded none beside the MD5; else (SSE-KMS, multipart uploads of others) equality proves
    that nobody has replaced the object since, and what it says of the content is its size.

    Args:
        found: as listed; its ETag may be empty where a server has none.
        size: bytes on record.
        md5: 32 hex digits on record; may be empty.
        etag: on record where it differs from `md5`, else None.
    """
    means = Means.MD5 if etag is None and md5 and found.etag else Means.SIZE
    if found.size != size:
        return means, f"{found.size} bytes, expected {size}"
    recorded = md5 if etag is None else etag
    if recorded and found.etag and found.etag.lower() != recorded.lower():
        what = "MD5" if means is Means.MD5 else "ETag"
        return means, f"{what} {found.etag}, expected {recorded}"
    return means, ""


def redacted(result: VerificationResult, show: Callable[[str], str]) -> VerificationResult:
    """Return `result` with the object keys of its examples as `show` shows them."""
    return replace(
        result,
        examples=tuple(replace(finding, object_key=show(finding.object_key)) for finding in result.examples),
    )
