"""What a bucket listed, in an SQLite file beside the journal; bounded memory, no network.

A run of a verification that is taken up again finds it as its dead process left it: pages and the token of the next
one are committed together, and the write-ahead log keeps that whole through SIGKILL. Without syncs it is not whole
after a power cut: a file from before the machine's last boot is thrown away.

Listings can't be merged with a sorted plan: SeaweedFS lists in the order of its tree, not of bytes. So the
listing is staged under (scope, key), which also makes a page that a server repeats harmless, and every
expected object is looked up there. What nobody expected is left over.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from daemon.objects import ListedObject
from journal.errors import JournalError, JournalFull

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import TracebackType

STAGE_SUFFIX = ".verify"
LEFTOVER_PAGE = 1000
"""Leftover keys read at once."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux, random(4): another text after each boot."""
SIDE_FILES = ("-wal", "-shm", "")

_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -32768;
"""
_SCHEMA = """
CREATE TABLE made (run INTEGER NOT NULL, boot TEXT NOT NULL) STRICT;
CREATE TABLE scope (
    id INTEGER PRIMARY KEY,
    objects INTEGER NOT NULL,
    token TEXT,
    complete INTEGER NOT NULL
) STRICT;
CREATE TABLE listed (
    scope INTEGER NOT NULL,
    key BLOB NOT NULL,
    size INTEGER NOT NULL,
    etag TEXT NOT NULL,
    expected INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
"""
_ADD = "INSERT OR REPLACE INTO listed (scope, key, size, etag) VALUES (?, ?, ?, ?)"
_FIND = "SELECT size, etag FROM listed WHERE scope = ? AND key = ?"
_MARK = "UPDATE listed SET expected = 1 WHERE scope = ? AND key = ?"
_MARK_BEGINNING = "UPDATE listed SET expected = 1 WHERE scope = ? AND key >= ? AND key < ?"
_REACHED = "SELECT objects, token, complete FROM scope WHERE id = ?"
_REACH = """
INSERT INTO scope (id, objects, token, complete) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE
SET objects = objects + excluded.objects, token = excluded.token, complete = excluded.complete
"""
_LEFTOVER = """
SELECT key, size, etag FROM listed WHERE scope = ? AND key > ? AND NOT expected ORDER BY key LIMIT ?
"""


class ListingStage:
    """The listed objects of one run, by scope (a small integer: one bucket and prefix).

    The caller holds the journal's lock, so nobody else uses the file. It goes when the context ends, unless that
    ends by an error or a cancellation: then the run may be taken up again. What another run left is removed. Where
    the disk is full it goes too: it must not keep the journal from being written.

    Raises:
        JournalFull, JournalError: it can't be written.

    Attributes:
        kept: it holds what the same run had listed and marked before it was interrupted.
    """

    def __init__(self, journal: Path, run: int) -> None:
        self.path = journal.with_name(journal.name + STAGE_SUFFIX)
        made = (run, _boot())
        file = self._left(made)
        self.kept = file is not None
        if file is None:
            discard_listing(journal)
            # SQLite would create it with the umask's rights; O_EXCL also refuses a link planted meanwhile.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            with self._writing():
                file = self._connected()
            with _closed_on_failure(file), self._writing():
                file.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
                file.execute("INSERT INTO made (run, boot) VALUES (?, ?)", made)
        self._file = file
        self._journal = journal

    def _left(self, made: tuple[int, str]) -> sqlite3.Connection | None:
        """Return what the same run left behind since the machine was booted."""
        if not made[1] or not self.path.is_file() or self.path.is_symlink():
            return None
        try:
            file = self._connected()
        except sqlite3.DatabaseError:
            return None
        with _closed_on_failure(file):
            try:
                if file.execute("SELECT run, boot FROM made").fetchall() == [made]:
                    return file
            except sqlite3.DatabaseError:
                # Its creation was interrupted, or something else lies there.
                pass
        file.close()
        return None

    def _connected(self) -> sqlite3.Connection:
        file = sqlite3.connect(self.path, isolation_level=None)
        with _closed_on_failure(file):
            file.executescript(_PRAGMAS)
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None or issubclass(kind, JournalFull):
            discard_listing(self._journal)

    def reached(self, scope: int) -> tuple[int, str | None, bool]:
        """Return how many objects of a scope were listed, the token of the next page, and whether that is all."""
        row = self._file.execute(_REACHED, (scope,)).fetchone()
        return (0, None, False) if row is None else (row[0], row[1], bool(row[2]))

    def add(self, scope: int, objects: Sequence[ListedObject], *, token: str | None) -> None:
        """Stage one page and the token of the next, None after the last; a key listed again replaces the earlier."""
        rows = ((scope, _stored(item.key), item.size, item.etag) for item in objects)
        with self._writing(), self._file:
            self._file.execute("BEGIN")
            self._file.executemany(_ADD, rows)
            self._file.execute(_REACH, (scope, len(objects), token, token is None))

    def find(self, scope: int, keys: Iterable[str]) -> dict[str, ListedObject]:
        """Return those of `keys` that were listed."""
        found: dict[str, ListedObject] = {}
        for key in keys:
            row = self._file.execute(_FIND, (scope, _stored(key))).fetchone()
            if row is not None:
                found[key] = ListedObject(key, *row)
        return found

    def mark(self, scope: int, keys: Iterable[str]) -> None:
        """Note that `keys` belong to the migration: they are no leftovers."""
        with self._writing(), self._file:
            self._file.execute("BEGIN")
            self._file.executemany(_MARK, ((scope, _stored(key)) for key in keys))

    def mark_beginning(self, scope: int, beginning: str) -> None:
        """Note that every key with this beginning belongs to the migration."""
        stored = _stored(beginning)
        # No byte of UTF-8 is 0xFF.
        beyond = stored[:-1] + bytes([stored[-1] + 1])
        with self._writing():
            self._file.execute(_MARK_BEGINNING, (scope, stored, beyond))

    def leftovers(self, scope: int) -> Iterator[list[ListedObject]]:
        """Yield pages of what was listed and never marked, in byte order of the key."""
        last = b""
        while rows := self._file.execute(_LEFTOVER, (scope, last, LEFTOVER_PAGE)).fetchall():
            last = rows[-1][0]
            yield [ListedObject(key.decode("utf-8", "surrogatepass"), size, etag) for key, size, etag in rows]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            what = f"write what the bucket lists to {self.path}"
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
                raise JournalFull(
                    f"{what}: the disk is full",
                    "free some space beside the journal: 100 bytes for each object of the bucket, and its key's length",
                ) from error
            raise JournalError(
                f"{what}: {error}", "check the disk that the journal lies on, then verify again"
            ) from error


def discard_listing(journal: Path) -> None:
    """Remove what a verification of the journal at `journal` left, if anything."""
    path = journal.with_name(journal.name + STAGE_SUFFIX)
    for suffix in SIDE_FILES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        # Not Linux: nothing says that the file is from this boot, so it is never taken up.
        return ""


@contextmanager
def _closed_on_failure(file: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        file.close()
        raise


def _stored(key: str) -> bytes:
    """Return the key's bytes; other people's keys may hold what no SQLite TEXT can (NUL, half a surrogate)."""
    return key.encode("utf-8", "surrogatepass")
