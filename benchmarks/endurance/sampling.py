"""What a daemon and its upload processes take at a moment, from /proc, and how far its journal is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from daemon.demo.processes import descendants
from journal.errors import JournalError
from journal.reader import Reader
from journal.sizes import sizes_of

if TYPE_CHECKING:
    from collections.abc import Sequence


class Usage(NamedTuple):
    """What one process takes, or several together; `rss` in bytes."""

    rss: int = 0
    fds: int = 0
    threads: int = 0


class Progress(NamedTuple):
    """Keys, as `status` counts them."""

    planned: int = 0
    settled: int = 0
    parked: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment.

    Attributes:
        at: seconds since the soak began.
        pid: the daemon's; 0 while none runs.
        phase: "calm", "faults" or "deaths".
        faults: those in force, or begun since the last sample.
        daemon: what the daemon's own process takes.
        uploaders: what all its upload processes take together.
        count: how many upload processes there are.
        is_copying: planning is done, and keys are being claimed.
    """

    at: float
    pid: int
    phase: str
    faults: tuple[str, ...]
    daemon: Usage
    uploaders: Usage
    count: int
    journal: int
    wal: int
    progress: Progress

    @property
    def is_copying(self) -> bool:
        return self.progress.settled > 0


def usage(pids: Sequence[int]) -> Usage:
    """Return what processes take together; those that have ended take nothing."""
    found = [_usage(pid) for pid in pids]
    return Usage(*map(sum, zip(*found, strict=True))) if found else Usage()


def _usage(pid: int) -> Usage:
    process = Path(f"/proc/{pid}")
    try:
        status = (process / "status").read_text(encoding="ascii", errors="replace")
        fds = sum(1 for _ in (process / "fd").iterdir())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return Usage()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    if "VmRSS" not in fields:  # a zombie
        return Usage()
    return Usage(int(fields["VmRSS"].split()[0]) * 1024, fds, int(fields["Threads"]))


def upload_processes(daemon: int) -> list[int]:
    """Return the pids of a daemon's upload processes."""
    found = []
    for pid in descendants(daemon):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"daemon.upload_process" in command:
            found.append(pid)
    return found


def progress(journal: Path) -> Progress:
    """Return how far the migration is; nothing where its journal can't be read at this moment."""
    try:
        with Reader.open(journal) as reader:
            sources = reader.status(now_us=time.time_ns() // 1000).sources
    except JournalError:
        return Progress()
    counts = [source.counts for source in sources]
    return Progress(
        sum(count.planned_rows for count in counts),
        sum(count.settled for count in counts),
        sum(count.parked for count in counts),
        sum(count.in_flight for count in counts),
    )


def sizes(journal: Path) -> tuple[int, int]:
    """Return the bytes of the journal's file and of its write-ahead log."""
    found = sizes_of(journal)
    return found.file, found.wal
