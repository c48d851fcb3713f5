"""What callers hand to the journal and get back: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from journal.lifecycle import KeyState, Outcome

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""What fits into an event."""


class PlannedRow(NamedTuple):
    """One row of a chunk to be sealed; a plain tuple of the same four serves too.

    Attributes:
        row_key: the key as the source writes it.
        created_at: microseconds since 1970-01-01 UTC, or None.
        size: bytes of the value when it was planned.
        supersedes: the ordinal of an earlier plan of the same key that this one replaces.
    """

    row_key: str
    created_at: int | None
    size: int
    supersedes: int | None = None


class Settled(NamedTuple):
    """A key's outcome.

    Attributes:
        size: bytes copied, found or compared; 0 for a vanished row.
        md5: 32 hex digits of the value's MD5; empty where the value was never read (skipped, vanished).
        etag: the object's ETag, only where it differs from `md5`.
        version_id: on a versioned bucket.
    """

    ordinal: int
    outcome: Outcome
    size: int
    md5: str = ""
    etag: str | None = None
    version_id: str | None = None


class AttemptFailed(NamedTuple):
    """One failed attempt of a key that stays in flight; `retried` says that another attempt follows."""

    ordinal: int
    operation: str
    failure: str
    message: str
    http_status: int | None = None
    code: str | None = None
    request_id: str | None = None
    milliseconds: float | None = None
    attempt: int = 1
    retried: bool = True


class Parked(NamedTuple):
    """A key given up until the operator requeues it; `failure` is the class, `message` one line."""

    ordinal: int
    failure: str
    message: str


class Revocation(StrEnum):
    """Why an outcome no longer holds."""

    REPAIR = "repair"
    """Its object was found wrong: the key waits to be driven again."""
    UNDO = "undo"
    """Its object is deleted on an operator's order: the key is parked until it is requeued."""


class ClaimedKey(NamedTuple):
    """A key to work on; `recoveries` tells how often a process died with it in flight."""

    ordinal: int
    row_key: str
    created_at: int | None
    size: int
    recoveries: int


def migration_id(name: str, created_us: int) -> str:
    """Return what names a migration everywhere: its name and the moment of its creation, which no two share."""
    return f"{name}/{created_us}"


@dataclass(frozen=True, slots=True)
class Claim:
    """Keys of one source taken to work on, on the record before it is returned.

    Attributes:
        alone: the one key has been recovered too often; nothing else is in flight beside it.
        replacing: ordinals whose earlier outcome was revoked: what is under their object key is not to be trusted,
            even where it looks right.
    """

    source: int
    keys: tuple[ClaimedKey, ...]
    alone: bool
    replacing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was in flight when the last session, or a process of this one, ended without saying so.

    Attributes:
        recovered: keys to drive again, before anything else.
        parked: keys that took their process with them once too often.
        from_session: the session that held them; None where nothing was in flight.
    """

    recovered: int
    parked: int
    from_session: int | None


@dataclass(frozen=True, slots=True)
class Known:
    """The newest plan of a row key.

    Attributes:
        size: bytes copied where settled, else bytes planned.
    """

    ordinal: int
    state: KeyState
    size: int
    created_at: int | None


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A source as the journal knows it; `identity` is its fingerprint."""

    id: int
    name: str
    identity: dict[str, Any]
    closed: bool = False
    closing_proof: str | None = None
    proven: bool = False


@dataclass(frozen=True, slots=True)
class OpenPass:
    """A planning pass that has begun and not ended.

    Attributes:
        number: 1 for the source's first pass.
        kind: "sweep" or "snapshot".
        rows: sealed so far.
    """

    number: int
    kind: str
    rows: int


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """Where the keys of a source stand.

    Attributes:
        stored: without the recovered ones.
        pending: off the frontier and to be driven first: recovered, released, requeued.
        unclaimed: sealed and not yet reached by the frontier (chunks of an open pass included).
        stored_bytes, present_bytes: bytes as copied (recovered ones included) or found equal.
        settled_bytes: bytes as planned, of settled keys.
        excluded: rows that the last finished pass left out, by reason.
        unusable: rows of the last finished pass whose key can't be an object key.
    """

    planned_rows: int = 0
    planned_bytes: int = 0
    stored: int = 0
    recovered: int = 0
    present: int = 0
    skipped: int = 0
    vanished: int = 0
    parked: int = 0
    in_flight: int = 0
    pending: int = 0
    unclaimed: int = 0
    stored_bytes: int = 0
    present_bytes: int = 0
    settled_bytes: int = 0
    excluded: dict[str, int] = field(default_factory=dict)
    unusable: int = 0

    @property
    def settled(self) -> int:
        """Keys that need nothing more."""
        return self.stored + self.recovered + self.present + self.skipped + self.vanished


@dataclass(frozen=True, slots=True)
class Statistics:
    """What this writer has done since it opened the journal.

    Attributes:
        head_seq: the newest event.
        commits: transactions committed by this object.
        in_flight: keys claimed without an outcome.
        open_claims: ranges of the plan with such keys.
    """

    head_seq: int
    commits: int
    in_flight: int
    open_claims: int
