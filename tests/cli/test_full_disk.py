"""The journal's disk fills up: the daemon ends with exit 7, and goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from tests.cli.migrations import Migration, refused

DISK_BYTES = 6 << 20
ROOM_BYTES = 250_000
ROWS = 1500


@pytest.fixture
def disk(tmp_path: Path, migration: Migration) -> Iterator[Path]:
    """A file system of a few MB with the migration's journal on it."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(place)]
    mounted = (
        subprocess.run(command, capture_output=True, text=True, check=False) if os.geteuid() == 0 else None
    )
    if mounted is None or mounted.returncode != 0:
        pytest.skip(
            "NOT TESTED: a full disk under the journal: mounting a tmpfs needs root and CAP_SYS_ADMIN"
        )
    migration.changes["journal"] = "disk/journal.db"
    migration.database.sql(
        f"insert into attachments select 'k' || n, now() - interval '1 day', '' from generate_series(1, {ROWS}) n"
    )
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, leave: int) -> Path:
    """Leave so many bytes free; return the file to delete for more."""
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return ballast


def test_a_disk_that_fills_up_in_mid_copy_ends_with_7_and_the_run_goes_on_once_there_is_room(
    migration: Migration, disk: Path
) -> None:
    assert migration("plan").returncode == 0
    ballast = fill(disk, leave=ROOM_BYTES)
    message = refused(migration("run"), ExitCode.JOURNAL)
    assert "the disk is full" in message
    assert "free some space" in message
    assert migration("status").returncode == 0
    ballast.unlink()
    assert migration("journal check").returncode == 0
    assert migration("run", "--verify").returncode == 0
    assert migration("journal check").returncode == 0


@pytest.mark.parametrize(
    ("leave", "named"),
    [(0, "the disk is full"), (150_000, "the disk is full")],
)
def test_a_disk_that_is_full_at_the_start_ends_with_7_and_keeps_no_journal(
    migration: Migration, disk: Path, leave: int, named: str
) -> None:
    ballast = fill(disk, leave=leave)
    assert named in refused(migration("plan"), ExitCode.JOURNAL)
    assert {path.name for path in disk.iterdir()} == {"ballast", "journal.db.lock"}
    ballast.unlink()
    assert migration("plan").returncode == 0


def test_a_disk_that_fills_up_in_mid_planning_ends_with_7_and_planning_goes_on_once_there_is_room(
    migration: Migration, disk: Path
) -> None:
    ballast = fill(disk, leave=700_000)
    migration.database.sql(
        "insert into attachments select repeat('x', 200) || n, now() - interval '1 day', '' from generate_series(1, 3000) n"
    )
    assert "the disk is full" in refused(migration("plan"), ExitCode.JOURNAL)
    ballast.unlink()
    assert migration("plan").returncode == 0
    assert migration("journal check").returncode == 0
