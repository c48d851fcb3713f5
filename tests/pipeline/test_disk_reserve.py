"""The reserve of the journal's disk: a hold before it is full, an end of it, an end of patience."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from daemon.causes import Cause
from daemon.controls import unhindered
from daemon.disk_reserve import (
    CHECK_SECONDS,
    DEFAULT_BYTES,
    HELD_SECONDS_MAX,
    DiskReserveReached,
    guard_disk,
    reserve_bytes,
)
from daemon.errors import ExitCode

MIB = 2**20
PLACE = Path("/journal")


class Disk:
    """A disk whose free bytes are what the test says."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, directory: Path) -> int:
        assert directory == PLACE
        return self.free


async def test_below_the_reserve_the_session_is_held_and_told_why(autojump_clock):
    disk, controls = Disk(10 * MIB), unhindered(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(guard_disk, PLACE, 10 * MIB, controls, free=disk))
        await trio.sleep(2 * CHECK_SECONDS)
        assert controls.open
        disk.free -= 1
        await trio.sleep(2 * CHECK_SECONDS)
        assert controls.held is not None
        assert controls.held.cause is Cause.DISK_RESERVE
        assert "9.99 MiB free on the journal's disk, expected at least" in controls.held.detail
        nursery.cancel_scope.cancel()


async def test_a_hold_ends_only_when_there_is_a_little_more_than_the_reserve(autojump_clock):
    disk, controls = Disk(0), unhindered(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(guard_disk, PLACE, 10 * MIB, controls, free=disk))
        await trio.sleep(CHECK_SECONDS)
        for free, is_open in ((10 * MIB, False), (11 * MIB - 1, False), (11 * MIB, True), (10 * MIB, True)):
            disk.free = free
            await trio.sleep(2 * CHECK_SECONDS)
            assert controls.open is is_open, free
        nursery.cancel_scope.cancel()


async def test_patience_ends_with_exit_code_7_after_a_day(autojump_clock):
    with pytest.raises(DiskReserveReached) as reached:
        await guard_disk(PLACE, MIB, unhindered(1), free=Disk(0))
    assert reached.value.exit_code is ExitCode.JOURNAL
    assert "for 1d00h" in reached.value.problem
    assert trio.current_time() == HELD_SECONDS_MAX


async def test_patience_begins_anew_with_every_hold(autojump_clock):
    disk, controls = Disk(0), unhindered(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(guard_disk, PLACE, MIB, controls, free=disk))
        for _ in range(3):
            await trio.sleep(HELD_SECONDS_MAX - 2 * CHECK_SECONDS)
            disk.free = 2 * MIB
            await trio.sleep(2 * CHECK_SECONDS)
            disk.free = 0
        nursery.cancel_scope.cancel()


async def test_a_reserve_of_nothing_never_holds(autojump_clock):
    controls = unhindered(1)
    with trio.move_on_after(HELD_SECONDS_MAX):
        await guard_disk(PLACE, 0, controls, free=Disk(0))
    assert controls.open


@pytest.mark.parametrize(
    ("configured", "disk", "expected"),
    [(None, 100 * MIB, 5 * MIB), (None, 2**50, DEFAULT_BYTES), (0, 2**50, 0), (7, 100, 7)],
)
def test_the_default_reserve_is_small_on_a_small_disk(configured, disk, expected):
    assert reserve_bytes(configured, disk) == expected
