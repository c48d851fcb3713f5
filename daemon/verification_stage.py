"""What a bucket listed, in a temporary SQLite file beside the journal; bounded memory, no network.

Listings can't be merged with a sorted plan: SeaweedFS lists in the order of its tree, not of bytes. So the
listing is staged under (scope, key), which also makes a page that a server repeats harmless, and every
expected object is looked up there. What nobody expected is left over.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Self

from daemon.objects import ListedObject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

STAGE_SUFFIX = ".verify"
LEFTOVER_PAGE = 1000
"""Leftover keys read at once."""

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA cache_size = -32768;
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
_LEFTOVER = """
SELECT key, size, etag FROM listed WHERE scope = ? AND key > ? AND NOT expected ORDER BY key LIMIT ?
"""


class ListingStage:
    """A temporary file of listed objects, by scope (a small integer: one bucket and prefix).

    The file holds nothing that a restart needs: a leftover of a killed process is removed, and the file goes
    when the context ends, however it ends. The caller holds the journal's lock, so nobody else uses it.
    """

    def __init__(self, journal: Path) -> None:
        self.path = journal.with_name(journal.name + STAGE_SUFFIX)
        self.path.unlink(missing_ok=True)
        # SQLite would create it with the umask's rights; O_EXCL also refuses a link planted meanwhile.
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._file = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._file.executescript(_SCHEMA)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)

    def add(self, scope: int, objects: Sequence[ListedObject]) -> None:
        """Stage one page; a key listed again replaces what was listed before."""
        rows = ((scope, _stored(item.key), item.size, item.etag) for item in objects)
        self._file.executemany(_ADD, rows)

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
        self._file.executemany(_MARK, ((scope, _stored(key)) for key in keys))

    def leftovers(self, scope: int) -> Iterator[list[ListedObject]]:
        """Yield pages of what was listed and never marked, in byte order of the key."""
        last = b""
        while rows := self._file.execute(_LEFTOVER, (scope, last, LEFTOVER_PAGE)).fetchall():
            last = rows[-1][0]
            yield [ListedObject(key.decode("utf-8", "surrogatepass"), size, etag) for key, size, etag in rows]


def _stored(key: str) -> bytes:
    """Return the key's bytes; other people's keys may hold what no SQLite TEXT can (NUL, half a surrogate)."""
    return key.encode("utf-8", "surrogatepass")
