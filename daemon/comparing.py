"""Compare what the journal says is in the bucket with what is found there; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.errors import ExitCode
from daemon.sampling import mismatch_bound
from journal.verification_runs import SampledKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from daemon.objects import ListedObject

EXAMPLES_MAX = 20
"""Findings of one kind named on the screen; the journal has all of them."""


class TierName(StrEnum):
    """The tiers, each proving more than the one before; the string is the one in events."""

    RECEIPTS = "receipts"
    LIST = "list"
    HEAD = "head"
    SOURCE = "source"
    CONTENT = "content"


class Means(StrEnum):
    """What a key was told to be right by."""

    MD5 = "md5"
    SHA256 = "sha256"
    SIZE = "size"
    RECEIPT = "receipt"


class FindingKind(StrEnum):
    """What a verification can find."""

    MISSING = "missing"
    """No object where the journal says one is."""
    DIFFERING = "differing"
    """An object of another size or digest than the journal's."""
    FOREIGN = "foreign"
    """An object that this migration did not write, where the journal says that it did."""
    EXTRA = "extra"
    """An object that no row accounts for."""
    UNREADABLE = "unreadable"
    """An object that can't be read now: in an archive class, or refused; neither right nor damaged."""
    ROW_CHANGED = "row_changed"
    """The row's bytes are no longer those that were copied; the object is what the journal says."""
    ROW_DELETED = "row_deleted"
    """The row, or its value, is gone; the object is what the journal says."""
    UNPLANNED = "unplanned"
    """A row in scope that the journal does not know."""
    RECEIPT = "receipt"
    """The journal contradicts itself."""


DAMAGE = frozenset({FindingKind.MISSING, FindingKind.DIFFERING, FindingKind.FOREIGN, FindingKind.RECEIPT})
"""What is wrong with a copy, or with its record."""
FAILING = DAMAGE | {FindingKind.ROW_CHANGED, FindingKind.UNPLANNED}
"""What is a mismatch: damage, and rows whose present bytes have no copy. An extra object is one if asked for."""
REPAIRABLE = frozenset(
    {FindingKind.MISSING, FindingKind.DIFFERING, FindingKind.FOREIGN, FindingKind.ROW_CHANGED}
)
"""What driving the key again may mend. No planning pass finds a row that has changed and kept its length."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        object_key: what the object is called, or would be; empty where it concerns none.
        ordinal, row_key: None where it concerns no planned key.
        detail: expected and found; empty for a missing object.
        number: how many it stands for; more than one are not named.
    """

    kind: FindingKind
    source: str
    object_key: str
    ordinal: int | None = None
    row_key: str | None = None
    detail: str = ""
    number: int = 1


class Examples:
    """The first EXAMPLES_MAX findings of each kind; one that is found again counts once."""

    def __init__(self) -> None:
        self._kept: dict[FindingKind, dict[tuple[str, str], Finding]] = {}

    def add(self, finding: Finding) -> None:
        """Keep a finding if there is room."""
        kept = self._kept.setdefault(finding.kind, {})
        if len(kept) < EXAMPLES_MAX:
            kept.setdefault((finding.source, finding.object_key or finding.detail), finding)

    def all(self) -> tuple[Finding, ...]:
        """Return them by kind."""
        return tuple(finding for kind in FindingKind for finding in self._kept.get(kind, {}).values())


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What one run found: one tier, over all keys or a sample.

    Attributes:
        run: its id in the journal.
        sample: None where it looked at every key.
        checked: stored and present keys that it looked at, wrong ones included.
        right: how many of them were right, by means.
        found: the others and whatever else was found, by kind.
        unsettled: planned keys that were not checked, because their copy is not settled.
        skipped: keys that were not checked, because `existing = skip` left what was there uncompared.
        extra_fails: an extra object counts as a mismatch (`--no-extra`).
        examples: the first EXAMPLES_MAX findings of each kind.
        seconds: how long it took, since it was begun or taken up again.
    """

    tier: str
    run: int = 0
    sample: SampledKeys | None = None
    checked: int = 0
    right: Mapping[Means, int] = field(default_factory=dict)
    found: Mapping[FindingKind, int] = field(default_factory=dict)
    unsettled: int = 0
    skipped: int = 0
    extra_fails: bool = False
    examples: tuple[Finding, ...] = ()
    seconds: float = 0.0

    @property
    def by_size(self) -> int:
        """How many keys were right by size, and by an ETag that is no MD5 where one was recorded."""
        return self.right.get(Means.SIZE, 0)

    @property
    def by_digest(self) -> int:
        """How many keys were right by size and digest."""
        return sum(self.right.values()) - self.by_size

    def number(self, kind: FindingKind) -> int:
        """Return how many findings of this kind there were."""
        return self.found.get(kind, 0)

    @property
    def exit_code(self) -> ExitCode:
        """MISMATCH if anything failing was found, or something extra where that counts; else DONE."""
        failing = FAILING | {FindingKind.EXTRA} if self.extra_fails else FAILING
        return ExitCode.MISMATCH if any(self.number(kind) for kind in failing) else ExitCode.DONE

    @property
    def blind(self) -> bool:
        """Whether it was to look at objects, and not one of them could be read."""
        return 0 < self.checked == self.number(FindingKind.UNREADABLE)

    @property
    def bound(self) -> float | None:
        """Below which share wrong keys lie, at `sampling.CONFIDENCE`; None for no sample, or one that proves nothing.

        Neither one with a mismatch does, nor one with a key that could not be read: what is left was not drawn at
        random, since the objects that are wrong may be the very ones that are refused.
        """
        if self.sample is None or self.exit_code or self.number(FindingKind.UNREADABLE):
            return None
        return mismatch_bound(self.checked, self.sample.of)


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


def exit_code_of(results: Sequence[VerificationResult]) -> ExitCode:
    """Return REFUSED if any run could read nothing, else MISMATCH if any found one, else DONE."""
    if any(result.blind for result in results):
        return ExitCode.REFUSED
    return max((result.exit_code for result in results), default=ExitCode.DONE)


def redacted(
    result: VerificationResult, show: Callable[[str], str], show_in: Callable[[str, Collection[str]], str]
) -> VerificationResult:
    """Return `result` with the keys of its examples as `show` shows them, in details (answers quote keys) too.

    Args:
        result: to be shown.
        show: one key.
        show_in: a text that may quote some keys.
    """
    return replace(
        result,
        examples=tuple(
            replace(
                finding,
                object_key=show(finding.object_key) if finding.object_key else "",
                row_key=None if finding.row_key is None else show(finding.row_key),
                detail=show_in(finding.detail, {finding.object_key, finding.row_key or ""}),
            )
            for finding in result.examples
        ),
    )
