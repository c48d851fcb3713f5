"""The writer of one migration's journal, used by one thread at a time."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from journal import schema
from journal.checkpoint import Order
from journal.connection import (
    SIDE_FILES,
    backup_into,
    open_writer,
    opening,
    prepare_writer,
    reading_back,
    remove_database,
    sync_directory,
)
from journal.control_log import ControlLog
from journal.copy_log import CopyLog
from journal.entries import (
    AttemptFailed,
    Claim,
    ClaimedKey,
    Known,
    Parked,
    PlannedRow,
    Recovery,
    Settled,
    SourceCounts,
    migration_id,
)
from journal.errors import (
    RESTORE_BACKUP,
    IllegalTransition,
    JournalCorrupt,
    JournalError,
    JournalExists,
    JournalFailed,
    JournalMissing,
)
from journal.events import CHAIN_START, VERSION, Kind, StoredEvent, decode, encode, link
from journal.filesystem import is_there, refuse_network_filesystem
from journal.lock import WAIT_SECONDS, Lock
from journal.plan_log import PlanLog
from journal.projections import Projector
from journal.revocation_log import RevocationLog
from journal.stage_file import discard_stage

__all__ = [
    "AttemptFailed",
    "Claim",
    "ClaimedKey",
    "Journal",
    "Known",
    "Parked",
    "PlannedRow",
    "Recovery",
    "Settled",
]

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

TAIL_EVENTS = 64
"""Events whose chain is checked at every opening; `journal check` checks all."""


class Journal(PlanLog, CopyLog, ControlLog, RevocationLog):
    """The record of one migration: every method that writes is one transaction, committed when it returns.

    Attributes:
        path: the file; `-wal`, `-shm` and `.lock` lie beside it.
        name: the migration's name.
        order: its processing order.
        cutoff_us: rows with created_at before it are in scope; None until it is fixed.
    """

    name: str
    order: Order
    cutoff_us: int | None

    @classmethod
    def create(cls, path: Path, *, name: str, cutoff_us: int | None, order: Order, now_us: int) -> Self:
        """Make a new journal and open it; it appears under its name whole, or not at all.

        Raises:
            JournalExists: there is a file at `path`, or a side file of a journal that was there.
            JournalLocked, JournalOnNetworkFilesystem, JournalFull: as `open`.
        """
        refuse_network_filesystem(path)
        lock = Lock(path, now_us=now_us)
        try:
            _build(path, {"name": name, "order": order.value, "cutoff_us": cutoff_us}, now_us)
            return cls._opened(path, lock, now_us, schema.RELEASED)[0]
        except BaseException:
            lock.release()
            raise

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        now_us: int,
        wait_seconds: float = WAIT_SECONDS,
        history: schema.History = schema.RELEASED,
    ) -> Self:
        """Open a journal for writing: take its lock, upgrade an older schema, check guards and the chain's tail.

        Args:
            path: the journal's file.
            now_us: microseconds since 1970-01-01 UTC.
            wait_seconds: how long to wait for a dying owner.
            history: the schemas known; the program's own unless a test adds one.

        Raises:
            JournalMissing, JournalLocked, JournalNewer, JournalOnNetworkFilesystem: as they say.
            JournalCorrupt: the file contradicts itself.
        """
        lock = cls._locked(path, now_us, wait_seconds)
        try:
            return cls._opened(path, lock, now_us, history)[0]
        except BaseException:
            lock.release()
            raise

    @classmethod
    def rebuild(cls, path: Path, *, now_us: int) -> int:
        """Derive every projection anew from the log, whatever state they are in; return the events folded.

        Interrupted, it goes on at the next opening.

        Raises:
            JournalMissing, JournalLocked, JournalNewer, JournalOnNetworkFilesystem: as `open`.
            JournalCorrupt: the log itself contradicts itself; every projection is as it was.
        """
        lock = cls._locked(path, now_us, WAIT_SECONDS)
        try:
            journal, folded = cls._opened(path, lock, now_us, schema.RELEASED, anew=True)
            journal.close()
        except BaseException:
            lock.release()
            raise
        return folded

    @classmethod
    def _locked(cls, path: Path, now_us: int, wait_seconds: float) -> Lock:
        if not is_there(path):
            raise JournalMissing(
                f"open journal {path}: there is no such file",
                "`backfillctl run` makes it; check `migration.journal` or --journal",
            )
        refuse_network_filesystem(path)
        return Lock(path, now_us=now_us, wait_seconds=wait_seconds)

    @classmethod
    def _opened(
        cls, path: Path, lock: Lock, now_us: int, history: schema.History, *, anew: bool = False
    ) -> tuple[Self, int]:
        with opening(path):
            connection = open_writer(path)
        try:
            with opening(path), reading_back(path, connection):
                found = schema.check_version(connection, path, history.version)
                prepare_writer(connection, path)
                journal = cls(path, connection, lock)
                upgraded: dict[str, Any] | None = None
                if found < history.version:
                    copy, applied = schema.upgrade(
                        connection, path, found, history.migrations(), lambda to: backup_into(connection, to)
                    )
                    upgraded = {"from": found, "applied": applied, "backup": copy.name}
                schema.check_guards(connection, path)
                journal._read_head()
                journal._check_chain(whole=anew)
                if not anew:
                    journal._check_ends()
                    journal._load()
                folded = journal._derive_anew() if anew else journal._fold_forward()
                journal._read_migration()
            if upgraded is not None:
                with journal._transaction():
                    journal._append(Kind.SCHEMA_MIGRATED, upgraded, now_us=now_us)
        except BaseException:
            connection.close()
            raise
        connection.in_midrun = True
        return journal, folded

    def _check_chain(self, *, whole: bool) -> None:
        """Check that each event continues the chain: those of the tail, or all, and then also that all are JSON."""
        if self._head_seq == 0:
            raise JournalCorrupt(f"open journal {self.path}: its log is empty", RESTORE_BACKUP)
        after = 0 if whole else max(self._head_seq - TAIL_EVENTS, 0)
        before = self._row("SELECT chain FROM event WHERE seq = ?", after)
        previous: tuple[int, bytes] = (after, CHAIN_START if before is None else before[0])
        for seq, ts_us, kind, version, source, data, chain in self._connection.execute(
            "SELECT seq, ts, kind, version, source, data, chain FROM event WHERE seq > ? ORDER BY seq",
            (after,),
        ):
            if seq != previous[0] + 1 or chain != link(previous[1], seq, ts_us, kind, version, source, data):
                raise JournalCorrupt(
                    f"open journal {self.path}: event {seq} does not continue the chain of event {previous[0]}",
                    f"run `backfillctl journal check` to see how far the damage goes, or {RESTORE_BACKUP}",
                )
            if whole:
                decode(seq, data)
            previous = (seq, chain)

    def _check_ends(self) -> None:
        projected, planned = self._row("SELECT projected_seq, planned_hi FROM progress") or (-1, -1)
        (highest,) = self._row("SELECT coalesce(max(ordinal), 0) FROM plan")
        lost = projected < 0 or self._head_seq == 0 or projected > self._head_seq
        if lost or (projected == self._head_seq and planned != highest):
            raise JournalCorrupt(
                f"open journal {self.path}: the log ends at event {self._head_seq} and ordinal {highest},"
                f" the projections at event {projected} and ordinal {planned}",
                "run `backfillctl journal check`, then `backfillctl journal rebuild`",
            )

    def _read_migration(self) -> None:
        self._load()
        name, order, self.cutoff_us, self._session = self._connection.execute(
            "SELECT name, order_name, cutoff, session FROM progress"
        ).fetchone()
        try:
            self.name, self.order = name, Order(order)
            counts = self.counts()
            whole = self.sources.keys() == counts.keys() and all(map(_is_possible, counts.values()))
        except ValueError:
            whole = False
        if not whole:
            raise JournalCorrupt(
                f"open journal {self.path}: its projections hold what was never written",
                "run `backfillctl journal check`, then `backfillctl journal rebuild`",
            )
        self._order = self.order
        self._claiming_session = self._session
        self._unrecovered = self.in_flight > 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "failed" if self._failure else f"at event {self._head_seq}"
        return f"<Journal {self.path.name} {state}, {self.in_flight} in flight>"

    @property
    def migration_id(self) -> str:
        """The migration's name and the moment of its creation: no two migrations share both."""
        (created_us,) = self._row("SELECT created FROM progress")
        return migration_id(self.name, created_us)

    def set_cutoff(self, cutoff_us: int, *, now_us: int) -> None:
        """Fix the cutoff, once, where none was given at creation (the server's clock at first planning).

        Raises:
            IllegalTransition: it is fixed.
        """
        self._check_usable()
        if self.cutoff_us is not None:
            raise IllegalTransition(
                f"fix the cutoff of migration {self.name}: it is {self.cutoff_us} already"
            )
        with self._transaction():
            self._append(Kind.CUTOFF_FIXED, {"cutoff_us": cutoff_us}, now_us=now_us)
        self.cutoff_us = cutoff_us

    def start_session(self, *, now_us: int, facts: Mapping[str, Any]) -> int:
        """Record that a process begins to work, with its pid, host, version, user and settings; return its number.

        `facts` goes into the journal as it is: no secrets.
        """
        self._check_usable()
        session = self._session + 1
        with self._transaction():
            data = {"session": session, "facts": dict(facts)}
            self._append(Kind.SESSION_STARTED, data, now_us=now_us)
        self._session = session
        return session

    def end_session(self, *, now_us: int, reason: str, exit_code: int, message: str = "") -> None:
        """Record that the session ends, why, and what the process exits with."""
        with self._transaction():
            data = {"session": self._session, "reason": reason, "exit_code": exit_code, "message": message}
            self._append(Kind.SESSION_ENDED, data, now_us=now_us)

    def discard(self) -> bool:
        """Remove the journal and all beside it but its lock, if nothing was ever planned in it; say whether.

        For a migration that turned out not to be possible as configured: its identity must not bind the next try.
        """
        self._check_usable()
        if self._row("SELECT 1 FROM plan LIMIT 1") is not None:
            return False
        self._closed = True
        try:
            self._connection.close()
            discard_stage(self.path)
            remove_database(self.path)
            sync_directory(self.path)
        finally:
            self._lock.release()
        return True

    def backup(self, destination: Path) -> None:
        """Copy the journal, through the writer's own connection, to a file of its own."""
        self._check_usable()
        with opening(self.path):
            backup_into(self._connection, destination)


def _is_possible(counts: SourceCounts) -> bool:
    sizes = (counts.planned_bytes, counts.stored_bytes, counts.present_bytes, counts.settled_bytes)
    return 0 <= counts.settled <= counts.planned_rows and min(sizes) >= 0


def _build(path: Path, created: dict[str, Any], now_us: int) -> None:
    """Write the schema and the first event to a file beside `path`, then give it that name."""
    if path.exists():
        raise JournalExists(
            f"create journal {path}: there is a file already", "open it, or choose another migration.journal"
        )
    left = [path.name + suffix for suffix in SIDE_FILES if path.with_name(path.name + suffix).exists()]
    if left:
        # SQLite would replay another journal's -wal into the new file.
        raise JournalExists(
            f"create journal {path}: beside it there is {', '.join(left)}, left by a journal that was deleted or moved",
            "move them away too, or put that journal back",
        )
    partial = path.with_name(path.name + ".new")
    try:
        remove_database(partial)
        # The mode is fixed before SQLite opens the file; its WAL and shared memory take it over.
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        with opening(path):
            connection = open_writer(partial)
            try:
                prepare_writer(connection, partial)
                schema.migrate(connection, schema.journal_migrations())
                _first_event(connection, created, now_us)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            finally:
                connection.close()
        partial.rename(path)
        sync_directory(path)
    except OSError as error:
        what = f"create journal {path}: {error.strerror}"
        if error.errno == errno.EIO:
            raise JournalFailed(what, "see what the kernel says of the disk, then start again") from error
        raise JournalError(
            what, "the directory must exist and be writable for the user that runs backfillctl"
        ) from error
    except JournalError:
        # On a full disk what could not become a journal must not keep the room; on a broken one it may.
        with suppress(OSError):
            remove_database(partial)
        raise


def _first_event(connection: sqlite3.Connection, created: dict[str, Any], now_us: int) -> None:
    text = encode(created)
    kind = Kind.MIGRATION_CREATED.value
    event = StoredEvent(1, now_us, kind, VERSION, None, created)
    projector = Projector(connection)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO event (seq, ts, kind, version, source, data, chain) VALUES (1, ?, ?, ?, NULL, ?, ?)",
        (now_us, kind, VERSION, text, link(CHAIN_START, 1, now_us, kind, VERSION, None, text)),
    )
    projector.apply(event, text)
    projector.mark_projected(1)
    connection.execute("COMMIT")
