"""The journal's disk fills up: the daemon ends with exit 7, and goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import pytest
import trio

from daemon.causes import Cause
from daemon.controls import unhindered
from daemon.disk_reserve import guard_disk
from daemon.errors import ExitCode
from tests.cli.migrations import Migration, refused
from tests.faults.psql import Psql

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
    migration.sections["migration"] = 'disk_reserve = "0B"'
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


RESERVED = pytest.mark.parametrize(
    ("reserve", "leave"),
    [('disk_reserve = "1MiB"', 900_000), ("", DISK_BYTES // 20 - 50_000)],
    ids=["configured", "default"],
)


@RESERVED
@pytest.mark.parametrize("command", ["plan", "run"])
def test_nothing_begins_below_the_disk_reserve(
    migration: Migration, disk: Path, command: str, reserve: str, leave: int
) -> None:
    migration.sections["migration"] = reserve
    ballast = fill(disk, leave=leave)
    message = refused(migration(command), ExitCode.JOURNAL)
    assert "free on the journal's disk, expected at least" in message
    assert "migration.disk_reserve" in message
    assert {path.name for path in disk.iterdir()} == {"ballast"}
    ballast.unlink()
    assert migration(command).returncode == 0


def test_check_finds_a_disk_below_its_reserve(migration: Migration, disk: Path) -> None:
    migration.sections["migration"] = 'disk_reserve = "1MiB"'
    fill(disk, leave=900_000)
    done = migration("check")
    assert done.returncode == ExitCode.JOURNAL
    assert "less than disk_reserve, 1.00 MiB" in done.stdout


async def test_a_disk_that_fills_up_holds_what_runs_until_there_is_room(disk: Path) -> None:
    controls = unhindered(1)
    ballast: Path | None = None
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(guard_disk, disk, 2**20, controls, check_seconds=0.05))
            changed = controls.changed
            ballast = fill(disk, leave=900_000)
            await changed.wait()
            assert controls.held is not None
            assert controls.held.cause is Cause.DISK_RESERVE
            changed = controls.changed
            ballast.unlink()
            while controls.held is not None:
                await changed.wait()
                changed = controls.changed
            nursery.cancel_scope.cancel()


def test_a_run_is_held_while_its_disk_is_below_the_reserve_and_then_ends_well(
    migration: Migration, disk: Path
) -> None:
    migration.sections["migration"] = 'disk_reserve = "1MiB"'
    command = [sys.executable, "-m", "daemon", "run", "-c", str(migration.config())]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **migration.server.environment()}
    with Psql(migration.database.server) as psql:
        psql.run(f"\\c {migration.database.name}")
        psql.run("begin")
        psql.run("select pg_current_xact_id()")
        process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        with process:
            assert process.stderr is not None
            try:
                wait_for_line(process.stderr, "closing waits")
                ballast = fill(disk, leave=900_000)
                told = wait_for_line(process.stderr, "slowed down by disk reserve")
                assert "expected at least 1.00 MiB" in told
                ballast.unlink()
                wait_for_line(process.stderr, "no longer slowed down by disk reserve")
                psql.run("commit")
                _, rest = process.communicate(timeout=60)
            finally:
                process.kill()
    assert process.returncode == 0, rest


def wait_for_line(stream: IO[str], text: str) -> str:
    """Return the next line with `text` in it; the test's timeout is its deadline."""
    line = next((line for line in stream if text in line), None)
    assert line is not None, f"the process ended without saying {text!r}"
    return line
