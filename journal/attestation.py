"""What a journal can attest: every key counted anew, each source digested, and whether the file holds together.

Nothing here believes a counter: plan and outcomes are counted row by row.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from journal.anchors import Anchor, newest_anchor
from journal.connection import spill_into
from journal.standing_findings import StandingFinding, standing_findings
from journal.verification_runs import VerificationRun, verification_runs

if TYPE_CHECKING:
    from journal.reader import Reader

OBJECTS_PER_PAGE = 20_000
"""Objects read from the journal at once."""
PARKED_NAMED_MAX = 10_000
"""Parked keys that are told by name; more of them are counted only."""

_SCHEMA = "CREATE TABLE digested (source INTEGER NOT NULL, row_key BLOB NOT NULL, size INTEGER NOT NULL, md5 TEXT NOT NULL) STRICT"


@dataclass(frozen=True, slots=True)
class ParkedKey:
    """A key that was given up, and why."""

    row_key: str
    failure: str


@dataclass(frozen=True, slots=True)
class CountedSource:
    """One source, counted row by row.

    Attributes:
        planned: keys, each once, however often it was planned.
        stored, present, skipped, vanished: keys whose newest plan has this outcome; recovered ones are stored.
        unsettled: keys without an outcome that are not parked.
        parked: how many are; `parked_keys` names the first PARKED_NAMED_MAX.
        outcome_seq: the newest event with an outcome of it; 0 where there is none.
    """

    id: int
    name: str
    closed: bool
    closing_proof: str | None
    proven: bool
    planned: int
    stored: int
    present: int
    skipped: int
    vanished: int
    unsettled: int
    parked: int
    parked_keys: tuple[ParkedKey, ...]
    outcome_seq: int


@dataclass(frozen=True, slots=True)
class SourceDigest:
    """What a source has in the bucket, in one number.

    Attributes:
        objects, size: how many, and their bytes.
        sha256: over a line for each object, in byte order of the row key in UTF-8; see `digest_line`.
    """

    objects: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class JournalFacts:
    """What the journal attests; `anchor` is its newest event, which all of it speaks of."""

    anchor: Anchor
    completed: bool
    sources: tuple[CountedSource, ...]
    runs: tuple[VerificationRun, ...]
    findings: tuple[StandingFinding, ...] = ()


def journal_facts(reader: Reader) -> JournalFacts:
    """Count every key of every source, in one consistent read.

    Raises:
        JournalError: the journal can't be read, or contradicts itself.
    """
    return reader.read_projected(_facts)


def _facts(connection: sqlite3.Connection) -> JournalFacts:
    (completed,) = connection.execute("SELECT completed_seq FROM progress").fetchone()
    runs = tuple(verification_runs(connection))
    return JournalFacts(
        newest_anchor(connection),
        completed is not None,
        tuple(
            _counted(connection, *row)
            for row in connection.execute(
                "SELECT id, name, closed, closing_proof, proven FROM source ORDER BY id"
            ).fetchall()
        ),
        runs,
        standing_findings(connection, runs),
    )


def _counted(
    connection: sqlite3.Connection, identifier: int, name: str, closed: int, proof: str | None, proven: int
) -> CountedSource:
    ranges = connection.execute(
        "SELECT lo, hi FROM segment WHERE source = ? AND lo IS NOT NULL ORDER BY lo", (identifier,)
    ).fetchall()
    counts: dict[str, int] = {}
    outcome_seq = 0
    for lo, hi in ranges:
        for code, number, seq in connection.execute(
            "SELECT coalesce(o.code, CASE s.state WHEN 'parked' THEN 'parked' ELSE 'unsettled' END), count(*),"
            " coalesce(max(o.seq), 0) FROM plan p LEFT JOIN outcome o ON o.ordinal = p.ordinal"
            " LEFT JOIN straggler s ON s.ordinal = p.ordinal WHERE p.ordinal BETWEEN ? AND ?"
            " AND NOT EXISTS (SELECT 1 FROM plan n WHERE n.supersedes = p.ordinal) GROUP BY 1",
            (lo, hi),
        ):
            counts[code] = counts.get(code, 0) + number
            outcome_seq = max(outcome_seq, seq)
    parked = connection.execute(
        "SELECT p.row_key, s.failure FROM straggler s JOIN plan p ON p.ordinal = s.ordinal"
        " WHERE s.source = ? AND s.state = 'parked' AND NOT EXISTS (SELECT 1 FROM plan n WHERE n.supersedes = p.ordinal)"
        " ORDER BY s.ordinal LIMIT ?",
        (identifier, PARKED_NAMED_MAX),
    ).fetchall()
    return CountedSource(
        id=identifier,
        name=name,
        closed=bool(closed),
        closing_proof=proof,
        proven=bool(proven),
        planned=sum(counts.values()),
        stored=counts.get("S", 0) + counts.get("R", 0),
        present=counts.get("P", 0),
        skipped=counts.get("K", 0),
        vanished=counts.get("V", 0),
        unsettled=counts.get("unsettled", 0),
        parked=counts.get("parked", 0),
        parked_keys=tuple(ParkedKey(*row) for row in parked),
        outcome_seq=outcome_seq,
    )


def digest_line(row_key: str, size: int, md5: str) -> bytes:
    """Return what a source's digest takes of one object: a JSON array and a line feed, in UTF-8.

    `["key",123,"d41d8cd98f00b204e9800998ecf8427e"]`: no blanks, and nothing escaped that JSON does not demand.
    """
    return (json.dumps([row_key, size, md5], ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def source_digests(reader: Reader) -> dict[int, SourceDigest]:
    """Digest every object that each source has in the bucket, by source id.

    Sorted in a temporary file beside the journal, so memory does not grow with the number of keys.

    Raises:
        JournalError: the journal can't be read.
    """
    sources = reader.read_projected(
        lambda connection: [row[0] for row in connection.execute("SELECT id FROM source ORDER BY id")]
    )
    # The directory is private, and goes with all that is in it.
    with (
        tempfile.TemporaryDirectory(prefix=".attest-", dir=_directory(reader.path)) as directory,
        closing(sqlite3.connect(Path(directory, "sort"), isolation_level=None)) as file,
    ):
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            file.execute(f"PRAGMA {pragma}")
        spill_into(file, Path(directory))
        file.execute(_SCHEMA)
        after_seq: int | None = 0
        while after_seq is not None:
            page = reader.objects(after_seq=after_seq, limit=OBJECTS_PER_PAGE)
            file.execute("BEGIN")
            file.executemany(
                "INSERT INTO digested VALUES (?, ?, ?, ?)",
                ((row.source, row.row_key.encode(), row.size, row.md5) for row in page.objects),
            )
            file.execute("COMMIT")
            after_seq = page.next_after_seq
        return {source: _digest(file, source) for source in sources}


def _digest(file: sqlite3.Connection, source: int) -> SourceDigest:
    digest = hashlib.sha256()
    objects = total = 0
    for row_key, size, md5 in file.execute(
        "SELECT row_key, size, md5 FROM digested WHERE source = ? ORDER BY row_key", (source,)
    ):
        digest.update(digest_line(row_key.decode(), size, md5))
        objects += 1
        total += size
    return SourceDigest(objects, total, digest.hexdigest())


def _directory(journal: Path) -> Path | None:
    """Return where temporary files go: beside the journal, or to the system's place where that can't be written."""
    return journal.parent if os.access(journal.parent, os.W_OK) else None
