"""The status of an earlier moment: the log folded up to there into temporary tables, as it was folded then.

The moment is the newest event, by seq, whose time stamp is not later than the time asked for: where the clock
stepped back, so that a time came twice, the later of the two counts. Nothing of the journal's own projections is
used, and nothing is written to it. The tables spill to files beside the journal, or to SQLite's usual place
where that directory can't be written, so memory does not grow with the number of keys.

What the log does not hold is who held the lock. A session that was open then is taken to have been alive if
anything of it was recorded later, or if the journal is held by somebody now and nothing was recorded since; so a
killed session is told as killed from its last event on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal import schema, status
from journal.events import Kind, StoredEvent, decode
from journal.lock import Owner
from journal.projections import Projector

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from journal.reader import Reader
    from journal.status import MigrationStatus

EVENTS_PER_PAGE = 200
"""Events read and folded in one transaction: a longer one would stop a daemon's checkpoints."""
CACHE_KIB = 64 * 1024
"""Page cache of the temporary tables: most of what is folded stays near the end of each."""

_SESSIONLESS = (
    Kind.KEYS_REQUEUED,
    Kind.PAUSED,
    Kind.RESUMED,
    Kind.TUNABLES_SET,
    Kind.SCHEMA_MIGRATED,
    Kind.SERVER_ACCEPTED,
    Kind.VERIFICATION_STARTED,
    Kind.FINDING_RECORDED,
    Kind.VERIFICATION_PROGRESSED,
    Kind.VERIFICATION_FINISHED,
    Kind.ENDPOINT_PROBED,
    Kind.OUTCOMES_REVOKED,
    Kind.UNDO_STARTED,
    Kind.OBJECTS_DELETED,
    Kind.UNDO_FINISHED,
    Kind.ROWS_RESTORED,
    Kind.ATTESTED,
)
"""Kinds that commands record while no session works too: no sign of its life."""


def status_as_of(
    reader: Reader, time_us: int, *, folded: Callable[[int, int], None] = lambda _done, _of: None
) -> MigrationStatus | None:
    """Return the status at `time_us`; None where the journal has no event as old as that.

    Its `head_seq` and `last_event_us` say which event it ends at.

    Args:
        reader: of the journal.
        time_us: microseconds since 1970-01-01 UTC.
        folded: told after each page how many events are folded, of how many.

    Raises:
        JournalCorrupt: the events contradict each other.
    """
    owner = reader.owner()
    with reader.working_connection() as connection:
        head_seq = _newest(connection, time_us)
        if head_seq is None:
            return None
        _fold(connection, head_seq, folded)
        connection.execute("BEGIN")
        try:
            return status.migration_status(connection, _owner(connection, head_seq, owner))
        finally:
            connection.execute("COMMIT")


def _newest(connection: sqlite3.Connection, time_us: int) -> int | None:
    row = connection.execute(
        "SELECT seq FROM event WHERE ts <= ? ORDER BY seq DESC LIMIT 1", (time_us,)
    ).fetchone()
    return None if row is None else int(row[0])


def _fold(connection: sqlite3.Connection, head_seq: int, folded: Callable[[int, int], None]) -> None:
    schema.create_temporary_projections(connection)
    connection.execute(f"PRAGMA temp.cache_size = -{CACHE_KIB}")
    projector = Projector(connection)
    done = 0
    while done < head_seq:
        connection.execute("BEGIN")
        try:
            for seq, ts_us, kind, version, source, text in connection.execute(
                "SELECT seq, ts, kind, version, source, data FROM event WHERE seq > ? AND seq <= ?"
                " ORDER BY seq LIMIT ?",
                (done, head_seq, EVENTS_PER_PAGE),
            ).fetchall():
                projector.apply(StoredEvent(seq, ts_us, kind, version, source, decode(seq, text)), text)
                done = seq
            projector.mark_projected(done)
        finally:
            connection.execute("COMMIT")
        folded(done, head_seq)


def _owner(connection: sqlite3.Connection, head_seq: int, owner: Owner | None) -> Owner | None:
    """Return the process of the session that was open at `head_seq`, if it lived; by what was recorded since."""
    started, ended = connection.execute("SELECT session_seq, session_ended_seq FROM progress").fetchone()
    if started is None or ended is not None:
        return None
    since = connection.execute(
        f"SELECT kind FROM event WHERE seq > ? AND kind NOT IN ({', '.join('?' * len(_SESSIONLESS))})"  # noqa: S608
        " ORDER BY seq LIMIT 1",
        (head_seq, *_SESSIONLESS),
    ).fetchone()
    ts_us, text = connection.execute("SELECT ts, data FROM event WHERE seq = ?", (started,)).fetchone()
    facts = decode(started, text)["facts"]
    if not status.works_in(owner, facts) if since is None else since[0] == Kind.SESSION_STARTED:
        return None
    return Owner(facts.get("pid", 0), facts.get("host", "an unknown host"), ts_us)
