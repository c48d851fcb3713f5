"""The journal's disk fails under the daemon: it says so once and ends; the next run goes on, and nothing is lost."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.counting_proxy import CountingProxy
from tests.faults.disks import Disk
from tests.faults.nth_call import tracer
from tests.faults.waiting import eventually
from tests.faults.watched import Watched, run_to_the_end
from tests.faults.worlds import PROBE, Daemon, World
from tests.s3_servers import fresh_prefix

ROWS = 12
CONCURRENCY = 4
FULL, BROKEN = 7, 1
"""Exit codes of README."""
WAL = "journal.db-wal"
RECORD = re.compile(r"^(pwrite64|fdatasync|ftruncate) .*/journal\.db(-wal)?$")
"""A call that changes the journal itself."""
SWEEP_STEPS = 4
"""How much wider the steps are than those of SIGKILLs: a sweep for each fault."""

needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64",
    reason="NOT TESTED: failing system calls: their numbers are those of x86-64",
)


@pytest.fixture
def watched(world: World) -> Watched:
    world.upload = {"concurrency": CONCURRENCY}
    world.fill(world.tables[0], ROWS)
    return Watched.of(world, concurrency=CONCURRENCY)


def told(daemon: Daemon) -> str:
    """The one error that the daemon has told; `exit_code` has seen that there is no traceback."""
    (problem,) = [line for line in daemon.output().splitlines() if line.startswith("error: ")]
    return problem


def run_with(
    world: World, fault: str, number: int, *, on: bool = False, call: str = "", target: str = ""
) -> tuple[int, str]:
    """Run the daemon with a fault from its call of that number; exit code, and the error that it told."""
    world.wrapper = tracer(log_of(world), at=number, fault=fault, on=on, call=call, target=target)
    with world.daemon() as daemon:
        code = daemon.exit_code()
        problem = told(daemon) if code else ""
    world.wrapper = []
    return code, problem


def log_of(world: World) -> Path:
    return world.directory / "calls.log"


def calls_of(world: World) -> list[str]:
    return log_of(world).read_text().splitlines()


def goes_on(watched: Watched) -> None:
    watched.check_death()
    run_to_the_end(watched)


@needs_x86
@pytest.mark.parametrize("on", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC"])
def test_an_error_of_any_call_that_writes_is_told_once_and_the_next_run_goes_on(
    watched: Watched, syscalls_step: int, fault: str, on: bool
) -> None:
    world = watched.world
    step = SWEEP_STEPS * syscalls_step
    number, points = 1 + step // 2, 0
    while True:
        world.new_journal()
        world.prefix = fresh_prefix()
        watched = Watched(world, CONCURRENCY, watched.rows)
        code, problem = run_with(world, fault, number, on=on)
        calls = calls_of(world)
        if len(calls) < number:
            assert code == 0
            break
        failed = calls[number - 1]
        if code:
            # What is synced or cut may be said to be full, which nobody expects: an I/O error.
            assert code == BROKEN or (fault == "ENOSPC" and code == FULL), (failed, problem)
            assert ("disk is full" in problem or "No space left" in problem) == (code == FULL), problem
        if RECORD.match(failed) and fault == "EIO":
            assert code == BROKEN
            assert not [call for call in calls[number:] if call.startswith("pwrite64") and RECORD.match(call)]
        goes_on(watched)
        number, points = number + step, points + 1
    sys.stdout.write(f"{points} points\n")


def fails_recording(
    world: World, proxy: CountingProxy, fault: str, call: str, number: int
) -> tuple[int, str]:
    """Let the disk fail while PUTs are on their way, from the given of its calls on; exit code, and what was told."""
    broken = world.directory / "broken"
    world.wrapper = tracer(log_of(world), at=number, fault=fault, on=True, target=WAL, call=call, once=broken)
    proxy.hold(lambda key: not key.endswith(PROBE))
    with world.daemon() as daemon:
        world.until_held(daemon, CONCURRENCY)
        seen = world.ledger().events
        broken.touch()
        proxy.release(late=True)
        code = daemon.exit_code()
        eventually(lambda: not proxy.waiting(), "the proxy lets go")
        proxy.exchanges()  # waits until what was let go has been answered
        problem = told(daemon)
    world.wrapper = []
    assert world.ledger().events[: len(seen)] == seen
    assert len(world.objects()) >= CONCURRENCY
    return code, problem


@needs_x86
@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("EIO", BROKEN, "SQLITE_IOERR_WRITE"),
        ("ENOSPC", FULL, "the disk is full"),
        ("short", FULL, "the disk is full"),
    ],
)
def test_outcomes_that_can_not_be_written_are_driven_again_and_found_to_be_ours(
    watched: Watched, proxy: CountingProxy, fault: str, code: int, words: str
) -> None:
    ended, problem = fails_recording(watched.world, proxy, fault, "pwrite64", 2)
    assert ended == code
    assert words in problem
    assert len(watched.world.ledger().in_flight) >= CONCURRENCY
    goes_on(watched)
    codes = [outcome.code for outcome in watched.world.ledger().outcomes.values()]
    assert codes.count("R") >= CONCURRENCY


@needs_x86
def test_a_commit_that_can_not_be_synced_ends_the_run_whether_it_is_there_or_not(
    watched: Watched, proxy: CountingProxy
) -> None:
    ended, problem = fails_recording(watched.world, proxy, "EIO", "fdatasync", 1)
    assert ended == BROKEN
    assert "SQLITE_IOERR_FSYNC" in problem
    assert "whether the last batch was committed is unknown" in problem
    goes_on(watched)


@needs_x86
def test_a_last_checkpoint_that_can_not_be_synced_is_not_tried_again_and_leaves_the_log_to_the_next_run(
    watched: Watched,
) -> None:
    world = watched.world
    code, problem = run_with(world, "EIO", 1, call="fdatasync", target="/journal.db")
    assert code == BROKEN
    assert "SQLITE_IOERR_FSYNC" in problem
    calls = calls_of(world)
    failed = calls.index(f"fdatasync {world.journal}")
    assert not [call for call in calls[failed + 1 :] if RECORD.match(call)]
    assert world.journal.with_name(WAL).stat().st_size
    goes_on(watched)


@needs_x86
def test_a_write_that_the_system_cuts_short_is_finished(watched: Watched) -> None:
    world = watched.world
    assert run_with(world, "short", 40, target=WAL) == (0, "")
    watched.check_end()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with Disk("ext4", tmp_path) as disk:
        yield disk


@pytest.mark.root
@pytest.mark.xdist_group("systemd")
@pytest.mark.parametrize("moment", ["session_started", "keys_claimed"])
def test_a_file_system_that_turns_read_only_in_mid_run_ends_it_and_it_goes_on_once_mounted_anew(
    watched: Watched, proxy: CountingProxy, disk: Disk, moment: str
) -> None:
    world = watched.world
    world.journal_directory = disk.place
    proxy.hold(lambda key: not key.endswith(PROBE))
    with world.daemon() as daemon:
        world.until_recorded(daemon, moment)
        disk.turn_read_only()
        proxy.release()
        assert daemon.exit_code() == BROKEN
        assert re.search(r"SQLITE_IOERR|disk I/O error|readonly|Read-only", told(daemon))
    eventually(lambda: not proxy.waiting(), "the proxy lets go")
    with world.daemon() as daemon:
        assert daemon.exit_code() == FULL, "a journal that can't be written is no journal to run with"
        assert "Read-only" in told(daemon)
    disk.boot()
    goes_on(watched)


@pytest.mark.parametrize("kilobytes", [64, 300])
def test_a_limit_on_the_size_of_files_ends_a_run_that_reaches_it(watched: Watched, kilobytes: int) -> None:
    world = watched.world
    # CPython ignores SIGXFSZ, so that the write fails with EFBIG.
    world.wrapper = ["/bin/bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "limited"]
    with world.daemon() as daemon:
        assert daemon.exit_code() == BROKEN
        assert "disk I/O error" in told(daemon)
    world.wrapper = []
    goes_on(watched)
