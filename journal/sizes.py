"""What a journal takes of its disk, and what is left of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.connection import SIDE_FILES
from journal.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class JournalSizes:
    """Bytes of the journal's file, of its write-ahead log, and those that its disk has left for us."""

    file: int
    wal: int
    free: int


def sizes_of(path: Path) -> JournalSizes:
    """Return what the journal at `path` takes now; a file that is not there takes nothing.

    Raises:
        JournalError: this user can't know.
    """
    try:
        disk = os.statvfs(path.parent)
        return JournalSizes(
            _size(path), _size(path.with_name(path.name + SIDE_FILES[0])), disk.f_bavail * disk.f_frsize
        )
    except OSError as error:
        raise JournalError(
            f"measure journal {path}: {(error.strerror or str(error)).lower()}",
            "run the command as the journal's owner",
        ) from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
