"""Hold a journal against the newest event that an earlier report wrote down.

A chain proves that nothing in the middle of the log was altered, not that its end is there: a log whose tail was
cut, or a copy from before, is a shorter, sound log, and whoever can write the file can compute a new chain. Only
something kept elsewhere tells: an anchor is the number and the chain value of an event, as `manifest.json` of a
report holds them. Where the chain is sound (`journal check`), one anchor that fits proves every event up to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from journal.entries import migration_id
from journal.errors import ManifestUnfit
from journal.events import decode

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from journal.reader import Reader

ANCHOR_PROBLEM = "anchor"
"""How what `anchor_problem` says begins."""
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
"""Largest manifest that is read: one takes a kilobyte or two."""
CHAIN_BYTES = 32
"""A chain value is a SHA-256."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """An event that was once a journal's newest.

    Attributes:
        head_seq: its number.
        chain: its chain value, in hex.
        migration_id: which migration's.
    """

    head_seq: int
    chain: str
    migration_id: str

    def document(self) -> dict[str, Any]:
        """Return it as the manifest of a report holds it, under "journal"."""
        return {"head_seq": self.head_seq, "chain": self.chain, "migration_id": self.migration_id}


def newest_anchor(connection: sqlite3.Connection) -> Anchor:
    """Return the anchor of the journal as it is now; for `Reader.read`."""
    seq, chain = connection.execute("SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1").fetchone()
    return Anchor(seq, chain.hex(), _migration_id(connection))


def anchor_at(connection: sqlite3.Connection, seq: int) -> Anchor:
    """Return the anchor that the journal had when event `seq`, which is in it, was its newest."""
    (chain,) = connection.execute("SELECT chain FROM event WHERE seq = ?", (seq,)).fetchone()
    return Anchor(seq, chain.hex(), _migration_id(connection))


def read_anchor(manifest: Path) -> Anchor:
    """Return the anchor that a report's manifest holds.

    Raises:
        ManifestUnfit: the file can't be read, or is no such manifest.
    """
    try:
        with manifest.open("rb") as file:
            text = file.read(MANIFEST_BYTES_MAX + 1)
    except OSError as error:
        raise _unfit(manifest, (error.strerror or str(error)).lower()) from error
    if len(text) > MANIFEST_BYTES_MAX:
        raise _unfit(manifest, f"it is larger than {MANIFEST_BYTES_MAX // 1024**2} MiB")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unfit(manifest, "it is not JSON") from error
    found = document.get("journal") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise _unfit(manifest, 'it has no object "journal"')
    seq, chain, identity = (found.get(field) for field in ("head_seq", "chain", "migration_id"))
    if isinstance(seq, bool) or not isinstance(seq, int) or not 1 <= seq < 2**63:
        raise _unfit(manifest, "journal.head_seq is not the number of an event")
    if not isinstance(chain, str) or not _is_chain(chain):
        raise _unfit(manifest, f"journal.chain is not {CHAIN_BYTES} bytes in hex")
    if not isinstance(identity, str):
        raise _unfit(manifest, "journal.migration_id is not text")
    return Anchor(seq, chain.lower(), identity)


def anchor_problem(reader: Reader, anchor: Anchor) -> str | None:
    """Say how the journal contradicts an earlier report of itself; None if it does not.

    That alone says nothing of the events before the anchor: `checking.problems` does.

    Raises:
        JournalCorrupt: the first event is not JSON.
    """
    return reader.read(lambda connection: _problem(connection, anchor))


def _problem(connection: sqlite3.Connection, anchor: Anchor) -> str | None:
    ours = _migration_id(connection)
    if ours != anchor.migration_id:
        return (
            f"{ANCHOR_PROBLEM}: the manifest is of migration {anchor.migration_id!r}, the journal of {ours!r}"
        )
    row = connection.execute("SELECT chain FROM event WHERE seq = ?", (anchor.head_seq,)).fetchone()
    if row is None:
        (head_seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
        if head_seq < anchor.head_seq:
            return (
                f"{ANCHOR_PROBLEM}: the log ends at event {head_seq}, before event {anchor.head_seq} of the manifest:"
                " its tail was cut, or it is an older copy"
            )
        return f"{ANCHOR_PROBLEM}: event {anchor.head_seq} of the manifest is not in the log"
    if bytes(row[0]).hex() != anchor.chain:
        return (
            f"{ANCHOR_PROBLEM}: event {anchor.head_seq} is another one than the manifest's: the log was altered at or"
            " before it, or went on from an older copy"
        )
    return None


def _migration_id(connection: sqlite3.Connection) -> str:
    """Return whose log it is, from its first event: projections may be anew or forged."""
    row = connection.execute("SELECT ts, data FROM event WHERE seq = 1").fetchone()
    if row is None:
        return ""
    created = decode(1, row[1])
    return migration_id(str(created.get("name")) if isinstance(created, dict) else "", row[0])


def _is_chain(text: str) -> bool:
    try:
        # fromhex passes over blanks, so the length is that of the text.
        return len(bytes.fromhex(text)) == CHAIN_BYTES and len(text) == 2 * CHAIN_BYTES
    except ValueError:
        return False


def _unfit(manifest: Path, problem: str) -> ManifestUnfit:
    return ManifestUnfit(
        f"read manifest {manifest}: {problem}", "name the manifest.json that `backfillctl report` wrote"
    )
