"""Look at the place of the journal: directory, file system, free space, fsync, the journal already there."""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

from daemon.disk_reserve import free_bytes, reserve_of
from daemon.errors import BackfillError, ExitCode
from daemon.findings import Finding, Level, failure, ok, warning
from daemon.rendering_units import size
from journal.errors import JournalError
from journal.filesystem import is_there, refuse_network_filesystem
from journal.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FREE_BYTES_WARNED = 1 << 30
"""Below this a plan of some million rows may not fit: it takes 123 bytes per short key, and more while staged."""
FREE_BYTES_MIN = 64 << 20
"""Below this not even a small plan and the journal's WAL are sure to fit."""
FSYNC_SECONDS_WARNED = 0.1
"""Each group commit waits for one fsync; the recorder commits every 50 ms when it has something."""


def check_journal(path: Path, report: Callable[[Finding], None], *, disk_reserve: int | None = None) -> None:
    """Report what is found where the journal is, or will be; leaves nothing behind.

    `disk_reserve` is the key of that name; None for its default.
    """
    try:
        refuse_network_filesystem(path)
        _check_directory(path.parent, report, disk_reserve)
        if is_there(path):
            _check_existing(path, report)
        else:
            report(ok("journal", f"{path}: none yet, `plan` or `run` creates it"))
    except (BackfillError, JournalError) as error:
        report(failure("journal", error))


def _check_directory(directory: Path, report: Callable[[Finding], None], disk_reserve: int | None) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"backfillctl check\n")
            file.flush()
            began = time.monotonic()
            os.fsync(file.fileno())
            seconds = time.monotonic() - began
        free = free_bytes(directory)
        reserve = reserve_of(directory, disk_reserve)
    except OSError as error:
        problem = f"write in {directory}: {(error.strerror or str(error)).lower()}"
        hint = "the directory must exist and be writable for this user; change it or migration.journal"
        report(Finding(Level.FAILURE, "journal", problem, hint, ExitCode.JOURNAL))
        return
    text = f"{directory} has {size(free)} free"
    hint = "free some space, or move migration.journal"
    if free < reserve:
        problem = f"{text}, less than disk_reserve, {size(reserve)}"
        report(
            Finding(
                Level.FAILURE,
                "journal",
                problem,
                f"{hint}, or lower migration.disk_reserve",
                ExitCode.JOURNAL,
            )
        )
    elif free < FREE_BYTES_MIN:
        report(Finding(Level.FAILURE, "journal", text, hint, ExitCode.JOURNAL))
    elif free < FREE_BYTES_WARNED:
        report(warning("journal", text, hint))
    elif seconds > FSYNC_SECONDS_WARNED:
        slow = f"{text}, but an fsync took {seconds * 1000:.0f} ms"
        report(
            warning(
                "journal", slow, "put the journal on a faster disk: every group of outcomes waits for one"
            )
        )
    else:
        report(ok("journal", f"{text}, fsync takes {seconds * 1000:.1f} ms; disk_reserve is {size(reserve)}"))


def _check_existing(path: Path, report: Callable[[Finding], None]) -> None:
    with Reader.open(path) as reader:
        owner = reader.owner()
    report(ok("journal", f"{path}: in use by {owner}" if owner else f"{path}: there, no daemon runs"))
