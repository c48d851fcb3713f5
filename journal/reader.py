"""Reading a journal without writing to it, whatever state it is in.

- A daemon works on it, or was killed: `mode=ro`, with SQLite's own shared memory; no transaction outlasts one
  short batch of queries, since an open one stops the daemon's checkpoints.
- It was closed cleanly: `mode=ro` where the directory is writable (SQLite makes its side files anew).
- It was closed cleanly and the directory is not writable: `immutable=1`, one batch at a time, and only while
  nobody holds the lock, there is no `-wal`, and the file's change counter is the same before and after.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar

from journal import histories, resuming, sampled_objects, schema, status
from journal.attempts import AttemptCounts, attempt_counts
from journal.connection import open_reader, opening, spill_into
from journal.errors import RESTORE_BACKUP, JournalCorrupt, JournalError, JournalMissing, JournalOutdated
from journal.events import StoredEvent, decode
from journal.filesystem import is_there
from journal.histories import ExpectedObject, KeyHistory, ObjectPage
from journal.lock import Owner, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from journal.resuming import Resumption
    from journal.status import MigrationStatus

__all__ = ["AttemptCounts", "ExpectedObject", "KeyHistory", "ObjectPage", "Owner", "Reader", "StoredEvent"]

T = TypeVar("T")

OF_ANOTHER_SHAPE = (LookupError, TypeError, AttributeError, ValueError, OverflowError, StopIteration)
"""What looking into data of another shape than expected raises."""
EVENTS_PER_PAGE = 200
"""Events read in one transaction: some 6 MB where every one is a full batch of outcomes."""
IMMUTABLE_TRIES = 3
"""How often an immutable read that something disturbed is tried again."""


class Stamp(NamedTuple):
    """What must not change while a file is read as immutable."""

    inode: int
    size: int
    modified_ns: int
    change_counter: bytes


class Reader:
    """A journal open for reading."""

    def __init__(self, path: Path, *, undisturbing: bool = False) -> None:
        self.path = path
        self._undisturbing = undisturbing
        self._connection: sqlite3.Connection | None = None
        self._header: int | None = None

    @classmethod
    def open(cls, path: Path, *, undisturbing: bool = False) -> Self:
        """Open a journal in whatever state it is.

        Args:
            path: the journal.
            undisturbing: leave no side files beside a journal that was closed cleanly and nobody holds.

        Raises:
            JournalMissing, JournalNewer, JournalOutdated, JournalCorrupt: as they say.
            JournalError: it can't be read as it is; the hint says what helps.
        """
        if not is_there(path):
            raise JournalMissing(
                f"read journal {path}: there is no such file",
                "`backfillctl run` makes it; check `migration.journal` or --journal",
            )
        reader = cls(path, undisturbing=undisturbing)
        try:
            reader.read(reader._check)
        except BaseException:
            reader.close()
            raise
        return reader

    def _check(self, connection: sqlite3.Connection) -> None:
        found = schema.check_version(connection, self.path, schema.SCHEMA_VERSION)
        if found < schema.SCHEMA_VERSION:
            raise JournalOutdated(
                f"read journal {self.path}: its schema version is {found}, this program's is {schema.SCHEMA_VERSION}",
                "any command that writes upgrades it, after a backup (`backfillctl journal rebuild`, or `run`)",
            )

    def close(self) -> None:
        """Close everything; harmless when repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._header is not None:
            os.close(self._header)
            self._header = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run one short batch of queries on one consistent state of the journal; return what it returns."""
        with opening(self.path):
            if self._connection is None and not self._undisturbing:
                self._connection = self._open_shared()
            if self._connection is not None:
                return _in_transaction(self._connection, query)
            for _ in range(IMMUTABLE_TRIES):
                before = self._stamp()
                if before is None:
                    self._connection = self._open_shared()
                    if self._connection is not None:
                        return _in_transaction(self._connection, query)
                    continue
                # A connection per batch: what an older one has cached may be history.
                connection = open_reader(self.path, immutable=True)
                try:
                    found = _in_transaction(connection, query)
                finally:
                    connection.close()
                if self._stamp() == before:
                    return found
        raise self._unreadable()

    def read_projected(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run queries on projections, as `read`, unless they say less than the log.

        A writer's transaction moves both, so they lag only while, or since, they are derived anew.

        Raises:
            JournalError: they do; or more than the log, whose end was cut off then.
            JournalCorrupt: an event's data can't be what was written.
        """

        def checked(connection: sqlite3.Connection) -> T:
            progress = connection.execute("SELECT projected_seq, name FROM progress").fetchone()
            head_seq = _head_seq(connection)
            if progress is not None and progress[0] > head_seq:
                raise JournalCorrupt(
                    f"read journal {self.path}: the log ends at event {head_seq}, its projections at event"
                    f" {progress[0]}: the end of the log was cut off",
                    f"look into what changed it; {RESTORE_BACKUP}, or `backfillctl journal rebuild` goes on from there",
                )
            if progress is None or progress[1] is None or progress[0] < head_seq:
                raise JournalError(
                    f"read journal {self.path}: its projections are being derived anew",
                    "wait until that has ended; if it was interrupted, run `backfillctl journal rebuild`",
                )
            try:
                return query(connection)
            except OF_ANOTHER_SHAPE as error:
                # The log's chain is not checked here, and notes are folded whatever they hold.
                raise JournalCorrupt(
                    f"read journal {self.path}: an event holds what no writer writes ({error!r})",
                    "run `backfillctl journal check`",
                ) from error

        return self.read(checked)

    @contextmanager
    def working_connection(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection with temporary tables of its own, for many short reads in a row.

        Raises:
            JournalError: the file was read as immutable and has changed meanwhile; start over.
        """
        with opening(self.path):
            before = None
            connection = self._open_shared()
            if connection is None:
                before = self._stamp()
                if before is None:
                    raise self._unreadable()
                connection = open_reader(self.path, immutable=True)
            try:
                if os.access(self.path.parent, os.W_OK):
                    spill_into(connection, self.path.parent)
                yield connection
            finally:
                connection.close()
            if before is not None and self._stamp() != before:
                raise self._unreadable()

    def _unreadable(self) -> JournalError:
        return JournalError(
            f"read journal {self.path}: its directory is not writable and the file is in use or half recovered",
            "run the command as the journal's owner",
        )

    def _open_shared(self) -> sqlite3.Connection | None:
        """Return a read-only connection that follows the WAL; None where SQLite can't make its side files."""
        connection = open_reader(self.path, immutable=False)
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}:
                return None
            raise
        except BaseException:
            connection.close()
            raise
        return connection

    def _stamp(self) -> Stamp | None:
        """Return what identifies the file's content; None where it must not be read as immutable."""
        wal = self.path.with_name(self.path.name + "-wal")
        if owner_of(self.path) is not None or wal.exists():
            return None
        # Opened once and kept: closing a descriptor would drop SQLite's locks of this process on the file.
        if self._header is None:
            try:
                self._header = os.open(self.path, os.O_RDONLY)
            except OSError as error:
                raise JournalError(
                    f"read journal {self.path}: {error.strerror}", "run the command as the journal's owner"
                ) from error
        header = os.pread(self._header, 100, 0)
        facts = self.path.stat()
        return Stamp(facts.st_ino, facts.st_size, facts.st_mtime_ns, header[24:28] + header[92:96])

    def owner(self) -> Owner | None:
        """Return who holds the journal now; None if no process does."""
        return owner_of(self.path)

    def status(self, *, now_us: int) -> MigrationStatus:
        """Return the state of the whole migration, from one consistent read.

        `now_us` is accepted so that every view takes the same clock; nothing in the status depends on it.

        Raises:
            JournalError: the projections are being derived anew; `explain` and `objects` raise it too.
        """
        del now_us
        owner = self.owner()
        return self.read_projected(lambda connection: status.migration_status(connection, owner))

    def resumption(self) -> Resumption:
        """Return what the next session would find to do, from one consistent read."""
        owner = self.owner()
        return self.read_projected(lambda connection: resuming.resumption(connection, owner))

    def attempts(self) -> tuple[AttemptCounts, ...]:
        """Return every class of failed attempts, of all sessions."""
        return self.read_projected(attempt_counts)

    def head_seq(self) -> int:
        """Return the newest event's seq."""
        return self.read(_head_seq)

    def events(
        self,
        *,
        kinds: Collection[str] | None = None,
        source: str | int | None = None,
        since_us: int | None = None,
        after_seq: int = 0,
        until_seq: int | None = None,
        limit: int | None = None,
    ) -> Iterator[StoredEvent]:
        """Yield events in the order of their seq, up to the newest at the time of the call.

        Args:
            kinds: only these; all if None.
            source: only of this source, by name or id.
            since_us: only events stamped at or after this time.
            after_seq: only later ones.
            until_seq: only up to this one.
            limit: most events to yield.

        Raises:
            JournalError: no source of this name.
        """
        head_seq = self.head_seq() if until_seq is None else until_seq
        identifier = self._source_id(source) if isinstance(source, str) else source
        wanted = None if kinds is None else [str(kind) for kind in kinds]
        left = limit
        while left is None or left > 0:
            size = EVENTS_PER_PAGE if left is None else min(EVENTS_PER_PAGE, left)
            rows = self.read(partial(_events_page, after_seq, head_seq, size, wanted, identifier, since_us))
            yield from (StoredEvent(*row[:5], decode(row[0], row[5])) for row in rows)
            if len(rows) < size:
                return
            after_seq = rows[-1][0]
            left = None if left is None else left - len(rows)

    def explain(self, key: str) -> list[KeyHistory]:
        """Return the life of a row key, once per time it was planned, over all sources; empty if it never was."""
        return self.read_projected(
            lambda connection: [
                histories.key_history(connection, ordinal)
                for ordinal in histories.ordinals_of(connection, key)
            ]
        )

    def row_keys(self, *, after: int = 0, limit: int = 20_000) -> list[tuple[int, str, int]]:
        """Return a page of the plan behind the ordinal `after`: ordinal, row key, source; empty behind the last."""
        return self.read_projected(
            lambda connection: histories.row_keys(connection, after=after, limit=limit)
        )

    def objects(self, *, after_seq: int = 0, limit: int = 20_000, until_seq: int | None = None) -> ObjectPage:
        """Return a page of what must be in the bucket: about `limit` objects, fewer where other keys lie between.

        Only keys whose outcome was recorded up to event `until_seq`, if that is given.
        """
        return self.read_projected(
            lambda connection: histories.expected_objects(
                connection,
                after_seq=after_seq,
                head_seq=_head_seq(connection) if until_seq is None else until_seq,
                limit=limit,
            )
        )

    def draw(self, *, seed: int, keys: int, until_seq: int, sources: Collection[int]) -> list[int]:
        """Return ordinals of a random sample of the objects; see `journal.sampled_objects.draw`."""
        return self.read_projected(
            lambda connection: sampled_objects.draw(
                connection, seed=seed, keys=keys, until_seq=until_seq, sources=sources
            )
        )

    def objects_of(self, ordinals: Sequence[int]) -> list[ExpectedObject]:
        """Return the objects of some stored and present keys."""
        return self.read_projected(lambda connection: sampled_objects.objects_of(connection, ordinals))

    def _source_id(self, name: str) -> int:
        row = self.read_projected(
            lambda connection: connection.execute("SELECT id FROM source WHERE name = ?", (name,)).fetchone()
        )
        if row is None:
            raise JournalError(f"read events of source {name}: the journal has no source of this name")
        return int(row[0])


def _in_transaction(connection: sqlite3.Connection, query: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _head_seq(connection: sqlite3.Connection) -> int:
    (head_seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM event").fetchone()
    return int(head_seq)


def _events_page(
    after_seq: int,
    head_seq: int,
    size: int,
    kinds: list[str] | None,
    source: int | None,
    since_us: int | None,
    connection: sqlite3.Connection,
) -> list[tuple[int, int, str, int, int | None, str]]:
    return connection.execute(
        "SELECT seq, ts, kind, version, source, data FROM event WHERE seq > :after AND seq <= :head"
        " AND (:kinds IS NULL OR kind IN (SELECT value FROM json_each(:kinds)))"
        " AND (:source IS NULL OR source = :source) AND (:since IS NULL OR ts >= :since) ORDER BY seq LIMIT :size",
        {
            "after": after_seq,
            "head": head_seq,
            "kinds": None if kinds is None else json.dumps(kinds),
            "source": source,
            "since": since_us,
            "size": size,
        },
    ).fetchall()
