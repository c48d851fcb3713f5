"""Say what an undo may delete: only what the journal proves to be ours and is still that very object; pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from daemon.errors import ExitCode
from daemon.judging import MIGRATION_FIELD, migration_mark
from journal.lifecycle import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemon.objects import ObjectFacts
    from journal.created_objects import CreatedObject
    from journal.histories import ExpectedObject

EXAMPLES_MAX = 20
"""Objects left for one reason that are named on the screen; the log names all."""


class Step(StrEnum):
    """What an undo does about an object."""

    DELETE = "delete"
    GONE = "gone"
    LEAVE = "leave"


class Reason(StrEnum):
    """Why an object is left where it is; the values are those of `undo_finished`."""

    PRESENT = "present"
    """It was there before: the migration only found it equal."""
    REPLACED = "replaced"
    """Something else is there now."""
    FOREIGN = "foreign"
    """The same bytes, written by somebody else."""
    LOCKED = "locked"
    """Object lock keeps it."""
    REFUSED = "refused"
    """S3 refuses to delete it, or to show it."""
    FAILED = "failed"
    """It could not be looked at or deleted, however often that was tried."""


WORDS = {
    Reason.PRESENT: "present: there before this migration, which only found it equal",
    Reason.REPLACED: "replaced since: another object is under the key",
    Reason.FOREIGN: "of another migration, or of nobody that it tells",
    Reason.LOCKED: "kept by object lock (retention or legal hold)",
    Reason.REFUSED: "refused by S3: a missing right, or a lock that it does not show",
    Reason.FAILED: "not to be deleted, however often that was tried",
}
"""Each reason as the operator reads it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about one object, and why.

    Attributes:
        reason: None unless it is left.
        detail: expected and found; may be empty.
        version_id: the version to delete; None where the bucket has none.
    """

    step: Step
    reason: Reason | None = None
    detail: str = ""
    version_id: str | None = None


GONE = Verdict(Step.GONE)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which objects an operator means: all that every given restriction lets through.

    Attributes:
        sources: ids; None: all that the configuration names.
        row_keys: None: all.
        before_us: only objects whose outcome was recorded before this moment; None: all.
    """

    sources: frozenset[int]
    row_keys: frozenset[str] | None = None
    before_us: int | None = None

    def holds(self, created: CreatedObject) -> bool:
        """Say whether `created` is meant."""
        recorded = created.recorded
        return (
            recorded.source in self.sources
            and (self.row_keys is None or recorded.row_key in self.row_keys)
            and (self.before_us is None or created.outcome_us < self.before_us)
        )


def judge(  # noqa: PLR0911 -- a decision table reads best as one
    created: CreatedObject, found: ObjectFacts | None, *, migration_id: str, now_us: int
) -> Verdict:
    """Decide about one object by what HEAD shows under its key.

    It goes only if everything agrees: the outcome (stored or recovered), size, ETag (the MD5 where none was
    recorded), version id where one was recorded, and the migration's id in its metadata. A key that was undone
    already has no object of ours any more where another one is found.

    Args:
        created: from the journal.
        found: None if nothing is there.
        migration_id: this migration's.
        now_us: microseconds since 1970-01-01 UTC, to compare a retention with.
    """
    recorded = created.recorded
    if recorded.outcome not in {Outcome.STORED, Outcome.RECOVERED}:
        return Verdict(Step.LEAVE, Reason.PRESENT)
    if found is None:
        return GONE
    difference = _difference(recorded, found)
    foreign = found.metadata.get(MIGRATION_FIELD) != migration_mark(migration_id)
    if created.undone and (difference or foreign):
        # To delete a version twice is harmless, and it may lie under what is there now.
        return GONE if recorded.version_id is None else Verdict(Step.DELETE, version_id=recorded.version_id)
    if difference:
        return Verdict(Step.LEAVE, Reason.REPLACED, difference)
    if foreign:
        return Verdict(Step.LEAVE, Reason.FOREIGN, "it does not bear this migration's id")
    lock = _lock(found, now_us)
    if lock:
        return Verdict(Step.LEAVE, Reason.LOCKED, lock)
    return Verdict(Step.DELETE, version_id=found.version_id)


def _difference(recorded: ExpectedObject, found: ObjectFacts) -> str:
    etag = recorded.md5 if recorded.etag is None else recorded.etag
    if found.size != recorded.size:
        return f"{found.size} bytes, expected {recorded.size}"
    if not etag or found.etag.lower() != etag.lower():
        return f"ETag {found.etag or 'none'}, expected {etag or 'one on record'}"
    if recorded.version_id is not None and found.version_id != recorded.version_id:
        return f"version {found.version_id or 'none'}, expected {recorded.version_id}"
    return ""


def _lock(found: ObjectFacts, now_us: int) -> str:
    """Return what keeps an object, empty if nothing that can be seen does."""
    if found.legal_hold:
        return "legal hold"
    if found.retained_until is None:
        return ""
    try:
        until = datetime.fromisoformat(found.retained_until)
    except ValueError:
        return f"retained until {found.retained_until}"
    aware = until if until.tzinfo else until.replace(tzinfo=UTC)
    return f"retained until {found.retained_until}" if aware.timestamp() * 1e6 > now_us else ""


@dataclass(frozen=True, slots=True)
class LeftObject:
    """An object that an undo leaves, as an example for the screen."""

    source: str
    object_key: str
    reason: Reason
    detail: str


@dataclass
class SourceTally:
    """Objects of one source, by what becomes of them; `deleted_bytes` as the journal has their sizes."""

    deleted: int = 0
    deleted_bytes: int = 0
    gone: int = 0
    left: Counter[Reason] = field(default_factory=Counter)


@dataclass
class UndoTally:
    """What an undo has done, or would do.

    Attributes:
        sources: by name, in the configuration's order.
        examples: the first EXAMPLES_MAX objects left for each reason, those present apart.
    """

    sources: dict[str, SourceTally]
    examples: list[LeftObject] = field(default_factory=list)

    def delete(self, source: str, size: int) -> None:
        """Count an object that goes."""
        self.sources[source].deleted += 1
        self.sources[source].deleted_bytes += size

    def leave(self, left: LeftObject) -> None:
        """Count an object that stays."""
        if left.reason is not Reason.PRESENT and self.left(left.reason) < EXAMPLES_MAX:
            self.examples.append(left)
        self.sources[left.source].left[left.reason] += 1

    def left(self, *reasons: Reason) -> int:
        """Return how many objects stay for these reasons, over all sources."""
        return sum(each.left[reason] for each in self.sources.values() for reason in reasons)

    @property
    def deleted(self) -> int:
        """Objects that go."""
        return sum(each.deleted for each in self.sources.values())

    @property
    def deleted_bytes(self) -> int:
        """Their bytes."""
        return sum(each.deleted_bytes for each in self.sources.values())

    @property
    def gone(self) -> int:
        """Objects that were not there any more."""
        return sum(each.gone for each in self.sources.values())

    @property
    def exit_code(self) -> ExitCode:
        """MISMATCH if an object that the journal has as created is left; those found present are nobody's undo."""
        return ExitCode.MISMATCH if self.left(*(set(Reason) - {Reason.PRESENT})) else ExitCode.DONE


def total_left(tally: UndoTally, reasons: Iterable[Reason] = tuple(Reason)) -> dict[str, int]:
    """Return reason to number, only of those that there are."""
    return {reason.value: number for reason in reasons if (number := tally.left(reason))}
