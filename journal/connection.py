"""Opening the journal's file through SQLite, and what its errors mean.

One read-write connection does every write and every checkpoint: SQLite before 3.51.3 can lose pages when a
second connection checkpoints while the first restarts the WAL. The file is never opened other than through
SQLite while a connection of this process may be open: closing any descriptor of it drops SQLite's own locks.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote

from journal.errors import RESTORE_BACKUP, JournalCorrupt, JournalError, JournalFailed, JournalFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BUSY_MILLISECONDS = 5000
"""How long SQLite waits where a reader that opens a killed journal holds it for the recovery of its index."""
CACHE_KIB = 16 * 1024
"""Page cache of the writer; bounds its memory whatever the journal's size."""
WAL_PAGES_MAX = 4000
"""Pages of 4 KiB in the WAL after which the writer checkpoints (SQLite's default is 1000)."""
WAL_BYTES_KEPT = 64 * 1024 * 1024
"""To what the WAL file is cut after a checkpoint."""

SIDE_FILES = ("-wal", "-shm", "-journal")
"""What SQLite appends to a database's name; whatever database has that name, it takes such a file for its own."""


class JournalConnection(sqlite3.Connection):
    """A connection whose statements raise JournalCorrupt where they come upon damage.

    SQLite finds it only as it reads a page: not at opening, but at any statement and any row of it.

    Attributes:
        in_midrun: what opening reads was found whole: from here on it is JournalFailed, since a file system that is gone
            reads like damage (seen under xfs), and only the next start can tell.
    """

    path: Path
    in_midrun = False

    def cursor(self, factory: object = None) -> _JournalCursor:  # type: ignore[override]
        """Return a cursor of the same kind, whatever is asked for."""
        del factory
        return super().cursor(_JournalCursor)

    def execute(self, statement: str, parameters: Any = (), /) -> _JournalCursor:
        """Run one statement."""
        return self.cursor().execute(statement, parameters)

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> _JournalCursor:
        """Run one statement with each of many sets of parameters."""
        return self.cursor().executemany(statement, parameters)


class _JournalCursor(sqlite3.Cursor):
    connection: JournalConnection

    def execute(self, statement: str, parameters: Any = (), /) -> Self:
        try:
            return super().execute(statement, parameters)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._refuse(error)

    def executemany(self, statement: str, parameters: Iterable[Any], /) -> Self:
        try:
            return super().executemany(statement, parameters)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._refuse(error)

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._refuse(error)

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._refuse(error)

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._refuse(error)

    def _refuse(self, error: sqlite3.Error | UnicodeDecodeError) -> NoReturn:
        if _is_damage(error):
            if self.connection.in_midrun:
                raise JournalFailed(
                    f"read journal {self.connection.path}: {error}",
                    "start again: a disk that fails reads like damage; `backfillctl journal check` tells",
                ) from error
            raise JournalCorrupt(
                f"read journal {self.connection.path}: {error}",
                f"run `backfillctl journal check`, or {RESTORE_BACKUP}",
            ) from error
        raise error


def _is_damage(error: sqlite3.Error | UnicodeDecodeError) -> bool:
    """Say whether it means that the file is not what was written."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Text that is no UTF-8 is refused by Python, without an error code: SQLite stores what it is given.
        return isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error)
    return code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def open_writer(path: Path) -> JournalConnection:
    """Return a read-write connection that has not touched the file yet; see `prepare_writer`."""
    return _connect(path, "mode=rw")


def prepare_writer(connection: sqlite3.Connection, path: Path) -> None:
    """Make a connection the journal's writer; the file is known to be a journal by now.

    Raises:
        JournalError: the file can't be put into WAL mode, without which a reader would stop the writer.
    """
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise JournalError(
            f"open journal {path}: expected journal mode wal, found {mode}",
            "put the journal on a local disk (migration.journal)",
        )
    for pragma in (
        "synchronous = FULL",
        "recursive_triggers = ON",
        "trusted_schema = OFF",
        "cell_size_check = ON",
        f"cache_size = -{CACHE_KIB}",
        f"wal_autocheckpoint = {WAL_PAGES_MAX}",
        f"journal_size_limit = {WAL_BYTES_KEPT}",
        "temp_store = FILE",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    spill_into(connection, path.parent)


def spill_into(connection: sqlite3.Connection, directory: Path) -> None:
    """Let SQLite's temporary files, as sorts of millions of keys need, go to `directory`: /tmp may be small.

    SQLITE_TMPDIR serves only before SQLite is loaded; the setting is global to the process, so it is changed
    only where it differs.
    """
    wanted = str(directory.resolve())
    if connection.execute("PRAGMA temp_store_directory").fetchone() != (wanted,):
        quoted = wanted.replace("'", "''")
        connection.execute(f"PRAGMA temp_store_directory = '{quoted}'")


def open_reader(path: Path, *, immutable: bool) -> sqlite3.Connection:
    """Return a connection that never writes to the journal (its temporary tables go to files beside it).

    Args:
        path: the journal.
        immutable: take no locks and ignore any WAL: only for a file that nobody can be writing to.
    """
    return _connect(path, "mode=ro&immutable=1" if immutable else "mode=ro")


def _connect(path: Path, flags: str) -> JournalConnection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?{flags}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        factory=JournalConnection,
    )
    connection.path = path
    try:
        for pragma in (f"busy_timeout = {BUSY_MILLISECONDS}", "trusted_schema = OFF", "temp_store = FILE"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection


def backup_into(connection: sqlite3.Connection, destination: Path) -> None:
    """Copy the journal as one consistent snapshot, through SQLite, to a file of mode 0600.

    The copy appears under its name only when it is whole; an existing file is replaced. On any error nothing
    is left of it.

    Raises:
        JournalFull, JournalError: the destination can't be written.
        sqlite3.DatabaseError: the journal itself is corrupt.
    """
    partial = destination.with_name(destination.name + ".partial")
    try:
        try:
            _copy(connection, partial)
            partial.replace(destination)
        except BaseException:
            remove_database(partial)
            raise
        sync_directory(destination)
    except OSError as error:
        raise JournalError(
            f"write the copy of the journal to {destination}: {error.strerror}", "choose another destination"
        ) from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise
        what = f"write the copy of the journal to {destination}"
        if code == sqlite3.SQLITE_FULL:
            raise JournalFull(
                f"{what}: the disk is full", "free some space, or choose another destination"
            ) from error
        raise JournalError(f"{what}: {error}", "choose another destination") from error


def _copy(connection: sqlite3.Connection, partial: Path) -> None:
    remove_database(partial)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    target = sqlite3.connect(f"file:{quote(str(partial))}?mode=rw", uri=True, isolation_level=None)
    try:
        # One step: in several, each commit of the daemon would start the copy over.
        connection.backup(target, pages=-1)
        # The copy is one file that opens anywhere, also where no WAL can be made beside it.
        target.execute("PRAGMA journal_mode = DELETE").fetchall()
    finally:
        target.close()


def remove_database(path: Path) -> None:
    """Delete a database with its side files, the database last: without it the others mean nothing."""
    for suffix in (*SIDE_FILES, ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make the name of `path` durable: without it a power cut can take a renamed file back."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Translate what SQLite raises while a journal is being opened or read."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translated(f"open journal {path}", error) from error


@contextmanager
def reading_back(path: Path, connection: sqlite3.Connection) -> Iterator[None]:
    """Tell damage from a mistake where what is read has not the shape of what was written.

    A flipped bit may leave a page readable and its rows without a value, or with one of another type.
    """
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        (found,) = connection.execute("PRAGMA main.quick_check(1)").fetchone()
        if found == "ok":
            raise
        raise JournalCorrupt(
            f"read journal {path}: {found}", f"run `backfillctl journal check`, or {RESTORE_BACKUP}"
        ) from error


def _translated(what: str, error: sqlite3.Error) -> JournalError:
    code = getattr(error, "sqlite_errorcode", None)
    primary = None if code is None else code & 0xFF
    if primary == sqlite3.SQLITE_FULL:
        return JournalFull(f"{what}: the disk is full", "free some space, then start again")
    if _is_damage(error):
        return JournalCorrupt(f"{what}: {error}", f"run `backfillctl journal check`, or {RESTORE_BACKUP}")
    if primary == sqlite3.SQLITE_IOERR:
        return JournalFailed(
            f"{what}: {error} ({getattr(error, 'sqlite_errorname', 'unknown')})",
            "see what the kernel says of the disk, then start again",
        )
    return JournalError(
        f"{what}: {error}",
        "check the owner and mode of the file and of its directory, and the disk they lie on",
    )


def failed_in_midrun(path: Path, error: sqlite3.Error) -> JournalError:
    """Return what a failed write means: a full disk is rolled back and known, all else leaves the commit unknown."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF == sqlite3.SQLITE_FULL:
        return JournalFull(
            f"write to journal {path}: the disk is full; nothing of this batch is recorded",
            "free some space, then start again: the run goes on where it stopped",
        )
    return JournalFailed(
        f"write to journal {path}: {error} ({getattr(error, 'sqlite_errorname', 'unknown')});"
        " whether the last batch was committed is unknown",
        "start again: the journal is read anew and unsettled keys are driven again",
    )
