"""Keep room on the journal's disk: below the reserve nothing begins, and what runs is held until there is room again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import trio

from daemon import rendering_units as units
from daemon.causes import Cause
from daemon.controls import Controls, Hold
from daemon.errors import BackfillError, ExitCode

DEFAULT_BYTES = 256 * 2**20
"""The reserve where none is configured: two million short keys' worth of events, or one long night of others'."""
DEFAULT_FRACTION = 0.05
"""Of a small disk the default reserve takes no more than this."""
ROOM_FACTOR = 1.1
"""A hold ends at this much of the reserve: a disk at its edge must not hold and release all the time."""
CHECK_SECONDS = 5.0
"""Between two looks at the disk."""
HELD_SECONDS_MAX = 86_400.0
"""How long a session waits for room: somebody comes to work within a day."""


class DiskUsage(NamedTuple):
    """Bytes of a file system, as `shutil.disk_usage` names them."""

    total: int
    used: int
    free: int


class DiskReserveReached(BackfillError):  # noqa: N818 -- the name is the message
    """The journal's disk has less free than `migration.disk_reserve`."""

    exit_code = ExitCode.JOURNAL

    def __init__(self, subject: str, directory: Path, detail: str) -> None:
        super().__init__(
            f"{subject}: {detail}",
            f"free some space in {directory}, move the journal, or lower migration.disk_reserve",
        )


def reserve_bytes(configured: int | None, disk_bytes: int) -> int:
    """Return the reserve in bytes.

    Args:
        configured: `migration.disk_reserve`; None for the default, 0 for none.
        disk_bytes: the size of the file system.
    """
    return min(DEFAULT_BYTES, int(disk_bytes * DEFAULT_FRACTION)) if configured is None else configured


def reserve_of(directory: Path, configured: int | None) -> int:
    """Return the reserve for the disk that holds `directory`, in bytes.

    Raises:
        BackfillError: the disk can't be asked.
    """
    return reserve_bytes(configured, _usage(directory).total)


def free_bytes(directory: Path) -> int:
    """Return what the disk that holds `directory` has free for this user.

    Raises:
        BackfillError: the disk can't be asked.
    """
    return _usage(directory).free


def _usage(directory: Path) -> DiskUsage:
    try:
        return DiskUsage(*shutil.disk_usage(directory))
    except OSError as error:
        raise BackfillError(
            f"look at the journal's disk: {directory}: {(error.strerror or str(error)).lower()}",
            "the directory of migration.journal must exist and be readable",
        ) from error


def short_of(free: int, expected: int) -> str:
    """Say what is found and what is expected."""
    return f"{units.size(free)} free on the journal's disk, expected at least {units.size(expected)}"


def refuse_below(journal: Path, configured: int | None) -> None:
    """Refuse to begin where the journal's disk has less than the reserve; a directory that is missing is opening's to tell.

    Raises:
        DiskReserveReached: with both numbers.
    """
    directory = journal.parent
    if not directory.is_dir():
        return
    free, reserve = free_bytes(directory), reserve_of(directory, configured)
    if free < reserve:
        raise DiskReserveReached(f"open journal {journal}", directory, short_of(free, reserve))


async def guard_disk(
    directory: Path,
    reserve: int,
    controls: Controls,
    *,
    free: Callable[[Path], int] = free_bytes,
    check_seconds: float = CHECK_SECONDS,
) -> None:
    """Hold the session while the disk has less free than `reserve`, until cancelled.

    Args:
        directory: of the journal.
        reserve: bytes.
        controls: where the hold is put in force and taken back.
        free: returns the disk's free bytes.
        check_seconds: between two looks.

    Raises:
        DiskReserveReached: there was no room for HELD_SECONDS_MAX.
    """
    since: float | None = None
    while True:
        found = free(directory)
        expected = reserve if since is None else int(reserve * ROOM_FACTOR)
        if found < expected:
            now = trio.current_time()
            since = now if since is None else since
            detail = short_of(found, expected)
            if now - since >= HELD_SECONDS_MAX:
                waited = f"{detail}, for {units.duration(now - since)}"
                raise DiskReserveReached("wait for room", directory, waited)
            controls.hold(Hold(Cause.DISK_RESERVE, detail))
        elif since is not None:
            since = None
            controls.release(Cause.DISK_RESERVE)
        await trio.sleep(check_seconds)
