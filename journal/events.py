"""Events: stable kinds with versions, canonical bytes, and the chain that links them.

An event says what happened, in the past tense. Kinds are strings that never change meaning; a change of the
data's shape raises the version, and the fold keeps reading every version ever written.
"""

from __future__ import annotations

import hashlib
import json
import sys
from array import array
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from journal.errors import JournalCorrupt

if TYPE_CHECKING:
    from collections.abc import Sequence


class Kind(StrEnum):
    """Every kind of event; the string is part of the file format."""

    MIGRATION_CREATED = "migration_created"
    CUTOFF_FIXED = "cutoff_fixed"
    SCHEMA_MIGRATED = "schema_migrated"
    SESSION_STARTED = "session_started"
    SESSION_ENDED = "session_ended"
    SOURCE_ADDED = "source_added"
    SERVER_ACCEPTED = "server_accepted"
    PASS_BEGUN = "pass_begun"  # noqa: S105 -- a planning pass
    CHUNK_SEALED = "chunk_sealed"
    SEGMENT_SEALED = "segment_sealed"
    PASS_ABANDONED = "pass_abandoned"  # noqa: S105
    SOURCE_CLOSED = "source_closed"
    SOURCE_REOPENED = "source_reopened"
    KEYS_CLAIMED = "keys_claimed"
    KEYS_RECLAIMED = "keys_reclaimed"
    OUTCOMES_RECORDED = "outcomes_recorded"
    ATTEMPT_FAILED = "attempt_failed"
    KEY_PARKED = "key_parked"
    KEYS_RECOVERED = "keys_recovered"
    KEYS_RELEASED = "keys_released"
    KEYS_REQUEUED = "keys_requeued"
    OUTCOMES_REVOKED = "outcomes_revoked"
    MIGRATION_COMPLETED = "migration_completed"
    PAUSED = "paused"
    RESUMED = "resumed"
    TUNABLES_SET = "tunables_set"
    THROTTLE_BEGAN = "throttle_began"
    THROTTLE_ENDED = "throttle_ended"
    PROGRESS_SAMPLED = "progress_sampled"
    # Notes: they have no effect on any key, and `Journal.note` writes them.
    SETTINGS_CHANGED = "settings_changed"
    SERVER_RECORDED = "server_recorded"
    PROBE_RECORDED = "probe_recorded"
    CONCURRENCY_CHANGED = "concurrency_changed"
    DRAIN_REQUESTED = "drain_requested"
    CANCELLED = "cancelled"
    HALTED = "halted"
    ENDPOINT_PROBED = "endpoint_probed"
    VERIFICATION_STARTED = "verification_started"
    VERIFICATION_PROGRESSED = "verification_progressed"
    VERIFICATION_FINISHED = "verification_finished"
    FINDING_RECORDED = "finding_recorded"
    UNDO_STARTED = "undo_started"
    OBJECTS_DELETED = "objects_deleted"
    UNDO_FINISHED = "undo_finished"
    ROWS_RESTORED = "rows_restored"
    ATTESTED = "attested"
    HOOK_RAN = "hook_ran"


NOTES: frozenset[Kind] = frozenset(
    {
        Kind.SETTINGS_CHANGED,
        Kind.SERVER_RECORDED,
        Kind.PROBE_RECORDED,
        Kind.CONCURRENCY_CHANGED,
        Kind.DRAIN_REQUESTED,
        Kind.CANCELLED,
        Kind.HALTED,
        Kind.ENDPOINT_PROBED,
        Kind.VERIFICATION_STARTED,
        Kind.VERIFICATION_PROGRESSED,
        Kind.VERIFICATION_FINISHED,
        Kind.FINDING_RECORDED,
        Kind.UNDO_STARTED,
        Kind.OBJECTS_DELETED,
        Kind.UNDO_FINISHED,
        Kind.ROWS_RESTORED,
        Kind.ATTESTED,
        Kind.HOOK_RAN,
    }
)
"""The kinds that `Journal.note` accepts."""

VERSION = 1
"""Version of every kind's data as written today."""

CHAIN_START = bytes(32)
"""What the first event's chain is computed over, in place of a predecessor."""

DATA_CHARS_MAX = 16 * 1024 * 1024
"""Largest data of one event: 2000 outcomes take 0.2 MB; far more is a caller's mistake, refused before SQLite
would (its limit is 1 GB)."""


class StoredEvent(NamedTuple):
    """One event as the log holds it.

    Attributes:
        seq: gapless from 1; the only order there is (`ts_us` is a wall clock and may step back).
        source: the source's id; None where the event concerns the whole migration.
        data: by kind; see DESIGN.md.
    """

    seq: int
    ts_us: int
    kind: str
    version: int
    source: int | None
    data: Any


def encode(data: Any) -> str:
    """Return `data` as the one JSON text that is stored and hashed."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def decode(seq: int, text: str) -> Any:
    """Return the data of event `seq`.

    Raises:
        JournalCorrupt: the text is not JSON that `encode` could have written.
    """
    try:
        data = _DECODER.decode(text)
        if "\\u" in text:
            encode(data).encode()  # an escape may stand for half a character, which no text has
    except (ValueError, RecursionError) as error:
        raise JournalCorrupt(
            f"read event {seq}: its data is not JSON ({error})", "run `backfillctl journal check`"
        ) from error
    return data


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def link(
    previous: bytes, seq: int, ts_us: int, kind: str, version: int, source: int | None, data: str
) -> bytes:
    """Return the chain value of an event: SHA-256 over its predecessor's and its own canonical bytes."""
    head = f"[{seq},{ts_us},{encode(kind)},{version},{'null' if source is None else source}]\n"
    return hashlib.sha256(previous + head.encode() + data.encode()).digest()


def chunk_digest(
    row_keys: Sequence[str],
    created_at: Sequence[int | None],
    sizes: Sequence[int],
    supersedes: Sequence[int | None],
) -> str:
    """Return the hash of a plan chunk, in hex: SHA-256 over its four columns, one after the other.

    Row keys are joined by NUL, as UTF-8. An integer column is a byte per row that tells NULL (1) from a value
    (0), then the values as little-endian 64-bit integers with 0 for NULL. That takes a quarter of the time that
    JSON would, for each of millions of keys, twice.

    Raises:
        ValueError, TypeError, OverflowError: a value is of another type or beyond 64 bits, or a key contains NUL.
    """
    joined = "\0".join(row_keys)
    if joined.count("\0") != max(len(row_keys) - 1, 0):
        raise ValueError("a row key contains NUL")
    digest = hashlib.sha256(joined.encode())
    for column in (created_at, sizes, supersedes):
        digest.update(bytes([value is None for value in column]) if None in column else bytes(len(column)))
        values = array("q", [0 if value is None else value for value in column])
        if sys.byteorder == "big":
            values.byteswap()
        digest.update(values.tobytes())
    return digest.hexdigest()
