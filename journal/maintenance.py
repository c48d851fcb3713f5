"""Looking after the file: check, rebuild, export, backup. All but `rebuild` only read, also beside a daemon."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from journal import anchors, checking
from journal.connection import backup_into
from journal.errors import JournalError
from journal.log import Journal
from journal.reader import Reader

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path
    from typing import TextIO

EVENTS_PER_PAGE = 100
"""Events read in one transaction of an export."""
ROWS_PER_PAGE = 10_000
"""Planned rows read in one transaction of an export."""


def check(path: Path, manifest: Path | None = None) -> list[str]:
    """Check everything that can be checked without the source and the bucket; return the problems found.

    That is: SQLite's own structure (while no daemon runs), the guards, the gapless chain over all events, every
    plan chunk against its hash, and the projections against a second fold of all events into temporary tables
    beside the journal. Each transaction is short: a daemon may go on meanwhile.

    Args:
        path: the journal.
        manifest: of an earlier report: whether the newest event it tells of is still there, as it was. Nothing
            else finds a tail that was cut, or an older copy.

    Raises:
        ManifestUnfit: `manifest` is none.
        JournalMissing, JournalNewer, JournalOutdated, JournalCorrupt: it can't even be opened.
    """
    anchor = None if manifest is None else anchors.read_anchor(manifest)
    with Reader.open(path) as reader:
        found = checking.problems(reader)
        contradiction = None if anchor is None else anchors.anchor_problem(reader, anchor)
    return found if contradiction is None else [*found, contradiction]


def rebuild(path: Path) -> int:
    """Derive every projection anew from the log, in bounded transactions; return the events folded.

    Raises:
        JournalLocked: a daemon works on the journal.
        JournalCorrupt: the log contradicts itself.
    """
    return Journal.rebuild(path, now_us=time.time_ns() // 1000)


def backup(path: Path, destination: Path) -> None:
    """Copy the journal, as one consistent snapshot, to `destination`: a single file of mode 0600.

    A daemon may go on; its WAL grows while the copy is made.

    Raises:
        JournalError: the destination exists or can't be written.
    """
    if destination.exists():
        raise JournalError(f"back up journal {path} to {destination}: that file exists", "choose a new name")
    with Reader.open(path) as reader:
        reader.read(lambda connection: backup_into(connection, destination))


def export(path: Path, out: TextIO) -> None:
    """Write the whole log to `out` as JSON lines: every event, then every row of the plan.

    An event's line has type, seq, ts_us, kind, version, source, data and chain (hex); a planned row's has type,
    ordinal, row_key, created_at, size and supersedes. Both end at what was there when the export began.
    """
    with Reader.open(path) as reader:
        head_seq, highest = reader.read(_ends)
        after = 0
        while after < head_seq:
            events = reader.read(partial(_events, after, head_seq))
            for seq, ts_us, kind, version, source, data, chain in events:
                head = {"type": "event", "seq": seq, "ts_us": ts_us, "kind": kind, "version": version}
                text = json.dumps(head | {"source": source, "chain": chain.hex()})
                # The data goes out as it is stored: the chain can be computed again from these lines.
                out.write(f'{text[:-1]}, "data": {data}}}\n')
            after = events[-1][0]
        after = 0
        while after < highest:
            rows = reader.read(partial(_plan, after, highest))
            for row in rows:
                fields = zip(("ordinal", "row_key", "created_at", "size", "supersedes"), row, strict=True)
                out.write(json.dumps({"type": "planned", **dict(fields)}, ensure_ascii=False) + "\n")
            after = rows[-1][0]


def _ends(connection: sqlite3.Connection) -> tuple[int, int]:
    head_seq, highest = connection.execute(
        "SELECT (SELECT coalesce(max(seq), 0) FROM event), (SELECT coalesce(max(ordinal), 0) FROM plan)"
    ).fetchone()
    return head_seq, highest


def _events(after: int, head_seq: int, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT seq, ts, kind, version, source, data, chain FROM event WHERE seq > ? AND seq <= ?"
        " ORDER BY seq LIMIT ?",
        (after, head_seq, EVENTS_PER_PAGE),
    ).fetchall()


def _plan(after: int, highest: int, connection: sqlite3.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT ordinal, row_key, created_at, size, supersedes FROM plan WHERE ordinal > ? AND ordinal <= ?"
        " ORDER BY ordinal LIMIT ?",
        (after, highest, ROWS_PER_PAGE),
    ).fetchall()
