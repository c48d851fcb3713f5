"""One writer per journal: a lock on a separate file, held for the writer's life.

An OFD lock belongs to an open file description: the kernel drops it when its process dies, however it dies, and
closing another descriptor of the same file does not drop it (a POSIX lock would go). It is on a file of its own
because SQLite locks the journal's. Readers only ask who holds it; they never lock.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.errors import JournalError, JournalFull, JournalLocked

if TYPE_CHECKING:
    from pathlib import Path

WAIT_SECONDS = 10.0
"""How long a start waits for a dying owner: a process killed with a commit on its way is gone well before."""
POLL_SECONDS = 0.05
"""How often the lock is tried meanwhile."""
CARD_BYTES_MAX = 4096
"""What is read of the lock file's text."""

_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of Linux: l_type, l_whence, l_start, l_len, l_pid (0 for OFD locks)."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a journal; for display only, nothing is decided by it.

    Attributes:
        pid: of the process as it saw itself; 0 where the lock file says nothing.
        since_us: microseconds since 1970-01-01 UTC, 0 where unknown.
    """

    pid: int
    host: str
    since_us: int

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}" if self.pid else "an unknown process"


def lock_path(journal: Path) -> Path:
    """Return the lock file of a journal."""
    return journal.with_name(journal.name + ".lock")


class Lock:
    """The exclusive lock of one journal; released by `release` or by the process's death."""

    def __init__(self, journal: Path, *, now_us: int, wait_seconds: float = WAIT_SECONDS) -> None:
        """Take the lock, waiting up to `wait_seconds`.

        Raises:
            JournalLocked: another process (or another part of this one) holds it.
            JournalFull: there is no room to say who holds it.
            JournalError: the lock file can't be opened.
        """
        if not hasattr(fcntl, "F_OFD_SETLK"):
            raise JournalError("lock the journal: this platform has no OFD locks", "run backfillctl on Linux")
        self.path = lock_path(journal)
        try:
            # Python opens close-on-exec: a child process must not keep the lock alive.
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise JournalError(
                f"lock journal {journal}: can't open {self.path}: {error.strerror}",
                "the journal's directory must exist and be writable for the user that runs backfillctl",
            ) from error
        try:
            self._take(journal, wait_seconds)
            self._sign(journal, now_us)
        except BaseException:
            os.close(self._descriptor)
            raise

    def _take(self, journal: Path, wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 0, 0))
            except (BlockingIOError, PermissionError) as error:
                if time.monotonic() >= deadline:
                    owner = read_card(self._descriptor)
                    raise JournalLocked(
                        f"open journal {journal} for writing: {owner} holds it (waited {wait_seconds:g} s)",
                        "stop that process first (SIGTERM drains it), or use a command that only reads",
                        owner=str(owner),
                    ) from error
                time.sleep(POLL_SECONDS)
            else:
                return

    def _sign(self, journal: Path, now_us: int) -> None:
        card = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since_us": now_us}).encode()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, card, 0)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise JournalError(
                    f"lock journal {journal}: can't write {self.path}: {error.strerror}",
                    "look at the disk that the journal lies on",
                ) from error
            raise JournalFull(
                f"lock journal {journal}: the disk is full", "free some space, then start again"
            ) from error

    def release(self) -> None:
        """Give the lock back; the file stays, since removing it would let two processes lock two files."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def read_card(descriptor: int) -> Owner:
    """Return what the lock file says of its holder."""
    try:
        card = json.loads(os.pread(descriptor, CARD_BYTES_MAX, 0))
        return Owner(int(card["pid"]), str(card["host"]), int(card["since_us"]))
    except (ValueError, KeyError, TypeError):
        return Owner(0, "unknown", 0)


def owner_of(journal: Path) -> Owner | None:
    """Return who holds the journal's lock now, without locking; None if nobody does.

    Raises:
        JournalError: the lock file is there and can't be read.
    """
    path = lock_path(journal)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalError(
            f"ask who holds journal {journal}: can't open {path}: {error.strerror}",
            "run the command as the journal's owner",
        ) from error
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, 0, 0, 0, 0))
        held = _FLOCK.unpack(answer)[0] != fcntl.F_UNLCK
        return read_card(descriptor) if held else None
    finally:
        os.close(descriptor)
