"""The writer's core: one connection, one lock, transactions that append events and fold them.

Everything a transaction does is on disk or undone when it ends. What is kept in memory (seq, chain head, what
is in flight) follows only after COMMIT. After an error whose effect on the disk is unknown the log refuses every
later call: a new process reads the file anew.
"""

from __future__ import annotations

import ctypes
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from journal.connection import failed_in_midrun
from journal.entries import Statistics
from journal.errors import IllegalTransition, JournalCorrupt, JournalError, JournalFailed, JournalFull
from journal.events import CHAIN_START, DATA_CHARS_MAX, VERSION, Kind, StoredEvent, decode, encode, link
from journal.projections import Projector
from journal.schema import FIRST_PROGRESS, PROJECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from journal.lock import Lock

FOLD_EVENTS_MAX = 500
"""Events folded per transaction when projections lag: bounds memory and WAL (500 full batches are 250 k keys)."""

_abandoned: list[sqlite3.Connection] = []
"""Connections that failed: closing one would make SQLite checkpoint a file it could not write."""


def _abandon(connection: sqlite3.Connection) -> None:
    """Let nobody close a connection that failed, not even Python as it ends: hence one reference too many."""
    _abandoned.append(connection)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


class EventLog:
    """An open journal as a sequence of events; `Journal` adds what the events mean."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: Lock) -> None:
        self.path = path
        self._connection = connection
        self._lock = lock
        self._projector = Projector(connection)
        self._failure: JournalError | None = None
        self._closed = False
        self._commits = 0
        self._head_seq = 0
        self._chain = CHAIN_START
        self._next_head = 0
        self._next_chain = CHAIN_START

    def _read_head(self) -> None:
        row = self._connection.execute("SELECT seq, chain FROM event ORDER BY seq DESC LIMIT 1").fetchone()
        self._head_seq, self._chain = row or (0, CHAIN_START)

    def _load(self) -> None:
        """Read into memory what the projections say; called when opened and after each rollback."""
        self._projector.load()

    def _commit(self) -> None:
        """Issue COMMIT: the one place that does, so that a simulation can crash here."""
        self._connection.execute("COMMIT")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Append events in one transaction, committed on exit; the head in memory moves only then.

        Raises:
            JournalFull, JournalFailed: as `_writing`.
        """
        with self._writing():
            self._next_head, self._next_chain = self._head_seq, self._chain
            yield
            self._projector.mark_projected(self._next_head)
        self._head_seq, self._chain = self._next_head, self._next_chain

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Run the body as one transaction; see the module's text for what an error leaves.

        Raises:
            JournalFull: the disk is full; rolled back, the log stays usable.
            JournalFailed: now, or earlier: the log refuses every call.
        """
        self._check_usable()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._commit()
        except IllegalTransition:
            self._roll_back()
            raise
        except (JournalCorrupt, JournalFailed) as error:
            self._failure = error
            _abandon(self._connection)
            raise
        except sqlite3.Error as error:
            failure = failed_in_midrun(self.path, error)
            if isinstance(failure, JournalFull):
                self._roll_back()
            else:
                self._failure = failure
                _abandon(self._connection)
            raise failure from error
        except BaseException as error:
            self._failure = JournalFailed(
                f"write to journal {self.path}: an earlier transaction was interrupted ({error!r})",
                "start again",
            )
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        self._commits += 1

    def _roll_back(self) -> None:
        try:
            # A full disk may have ended the transaction already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._load()
        except sqlite3.Error as error:
            self._failure = failed_in_midrun(self.path, error)
            _abandon(self._connection)
            raise self._failure from error

    def _check_usable(self) -> None:
        if self._closed:
            raise IllegalTransition(f"use journal {self.path}: it is closed")
        if self._failure is not None:
            raise JournalFailed(
                f"use journal {self.path}: it failed before: {self._failure.problem}", "start again"
            ) from self._failure

    def _append(self, kind: Kind, data: Any, *, now_us: int, source: int | None = None) -> int:
        """Append one event inside the open transaction and fold it; return its seq."""
        text = encode(data)
        if len(text) > DATA_CHARS_MAX:
            raise IllegalTransition(
                f"record {kind.value}: its data has {len(text)} characters, the most is {DATA_CHARS_MAX}"
            )
        seq = self._next_head + 1
        self._next_chain = link(self._next_chain, seq, now_us, kind.value, VERSION, source, text)
        self._connection.execute(
            "INSERT INTO event (seq, ts, kind, version, source, data, chain) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (seq, now_us, kind.value, VERSION, source, text, self._next_chain),
        )
        self._next_head = seq
        self._projector.apply(StoredEvent(seq, now_us, kind.value, VERSION, source, data), text)
        return seq

    def _fold_forward(self) -> int:
        """Fold every event that the projections lag behind, in bounded transactions; return how many."""
        folded = 0
        while True:
            (projected,) = self._connection.execute("SELECT projected_seq FROM progress").fetchone()
            if projected >= self._head_seq:
                return folded
            with self._writing():
                for seq, ts_us, kind, version, source, text in self._connection.execute(
                    "SELECT seq, ts, kind, version, source, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?",
                    (projected, FOLD_EVENTS_MAX),
                ).fetchall():
                    event = StoredEvent(seq, ts_us, kind, version, source, decode(seq, text))
                    self._projector.apply(event, text)
                    folded += 1
                self._projector.mark_projected(seq)

    def _derive_anew(self) -> int:
        """Empty every projection, then fold the whole log; interrupted, the next opening goes on."""
        with self._writing():
            for table in PROJECTIONS:
                self._connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- our own table names
            self._connection.execute(FIRST_PROGRESS)
        self._projector.load()
        return self._fold_forward()

    def _row(self, statement: str, *parameters: Any) -> Any:
        self._check_usable()
        return self._connection.execute(statement, parameters).fetchone()

    def statistics(self) -> Statistics:
        """Return what this object has done and holds; no query."""
        return Statistics(
            head_seq=self._head_seq,
            commits=self._commits,
            in_flight=len(self._projector.in_flight),
            open_claims=len(self._projector.claims),
        )

    def close(self) -> None:
        """Checkpoint everything into the one file, close it and release the lock; harmless when repeated.

        After a failure the file is not touched any more, and the lock goes with the process.
        """
        if self._closed:
            return
        self._closed = True
        if any(connection is self._connection for connection in _abandoned):
            return
        try:
            if self._failure is None:
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        except sqlite3.Error as error:
            failure = failed_in_midrun(self.path, error)
            if isinstance(failure, JournalFull):
                self._let_go()
            else:
                _abandon(self._connection)
            raise failure from error
        self._let_go()

    def _let_go(self) -> None:
        self._connection.close()
        self._lock.release()
