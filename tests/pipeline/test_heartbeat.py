"""The heartbeat: what lets it beat, and what stops it."""

from __future__ import annotations

import os
import resource
import shutil
import socket
import sqlite3
import subprocess
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from daemon.heartbeat import EXTENSION_SECONDS, INTERVAL_SECONDS_MAX, Heartbeat, beating
from daemon.notify import Notifier
from daemon.recorder import Recorder
from daemon.runtime import JournalThread, Runtime
from journal.checkpoint import Order
from journal.log import Journal

WATCHDOG_SECONDS = 6.0
"""Ten datagrams wait at most (net.unix.max_dgram_qlen): no test here makes more of them before it reads."""
EXTENDED = f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1e6:.0f}"


@pytest.fixture
def manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bound:
        bound.bind(str(tmp_path / "notify"))
        yield bound


def heard(manager):
    messages = []
    while True:
        try:
            messages.append(manager.recv(4096).decode())
        except BlockingIOError:
            return messages


def heartbeat(manager, *, labour=lambda: None, watchdog_seconds=WATCHDOG_SECONDS):
    notifier = Notifier(manager.getsockname(), watchdog_seconds=watchdog_seconds)
    return Heartbeat(notifier, labour=labour, clock=trio.current_time)


async def for_seconds(beating, seconds):
    with trio.move_on_after(seconds):
        await beating.run()


async def test_it_beats_at_least_twice_as_often_as_the_watchdog_wants(autojump_clock, manager):
    beating = heartbeat(manager)
    assert beating.interval_seconds <= WATCHDOG_SECONDS / 2
    beating.started()
    await for_seconds(beating, WATCHDOG_SECONDS + 1)
    assert heard(manager) == ["READY=1", *["WATCHDOG=1"] * 4]


async def test_without_a_watchdog_its_age_still_tells(autojump_clock, manager):
    beating = heartbeat(manager, watchdog_seconds=None)
    await for_seconds(beating, 100.0)
    assert beating.age_seconds <= INTERVAL_SECONDS_MAX
    await trio.sleep(50.0)
    assert beating.age_seconds >= 50.0


async def test_before_the_start_is_over_it_extends_it(autojump_clock, manager):
    await for_seconds(heartbeat(manager), 1.0)
    assert heard(manager) == [EXTENDED]


async def test_a_passage_that_is_stuck_stops_it(autojump_clock, manager):
    beating = heartbeat(manager)
    with beating.through(trio.sleep_forever):
        await for_seconds(beating, 1000.0)
    assert heard(manager) == []
    assert beating.age_seconds == 1000.0


async def test_a_journal_call_that_gets_on_keeps_it_alive(autojump_clock, manager):
    beating = heartbeat(manager, labour=trio.current_time)
    with beating.through(trio.sleep_forever):
        await for_seconds(beating, 3 * WATCHDOG_SECONDS)
    assert beating.age_seconds <= beating.interval_seconds


@pytest.mark.parametrize("labour", [lambda: 17, lambda: None], ids=["stands still", "none"])
async def test_a_journal_call_that_hangs_does_not(labour, autojump_clock, manager):
    beating = heartbeat(manager, labour=labour)
    with beating.through(trio.sleep_forever):
        await for_seconds(beating, 100.0)
    assert beating.age_seconds == 100.0


async def test_once_the_passage_is_free_again_it_goes_on(autojump_clock, manager):
    beating = heartbeat(manager)
    stuck = trio.Lock()
    await stuck.acquire()

    async def passage():
        async with stuck:
            pass

    async with trio.open_nursery() as nursery:
        with beating.through(passage):
            nursery.start_soon(beating.run)
            await trio.sleep(500.0)
            assert beating.age_seconds == 500.0
            stuck.release()
            await wait_all_tasks_blocked()
            assert beating.age_seconds == 0.0
            nursery.cancel_scope.cancel()


async def test_after_the_block_it_passes_the_loop_alone(autojump_clock, manager):
    beating = heartbeat(manager)
    with beating.through(trio.sleep_forever):
        pass
    await for_seconds(beating, 3 * WATCHDOG_SECONDS)
    assert beating.age_seconds <= beating.interval_seconds


async def test_when_it_has_beaten_for_the_last_time_the_watchdog_is_told_that_this_is_the_end(manager):
    with pytest.raises(ExceptionGroup):
        async with beating(Notifier(manager.getsockname(), watchdog_seconds=WATCHDOG_SECONDS), lambda: None):
            raise ValueError
    assert heard(manager)[-1] == "STOPPING=1"


async def test_the_journals_thread_shows_the_labour_of_a_call_that_works():
    thread = JournalThread()
    enough = threading.Event()

    def work():
        while not enough.is_set():
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread, work)
        with trio.fail_after(30):
            while thread.labour() is None:
                await trio.lowlevel.checkpoint()
            before = thread.labour()
            while thread.labour() == before:
                await trio.lowlevel.checkpoint()
        enough.set()
    assert thread.labour() is None


async def test_the_journals_thread_shows_none_while_a_call_is_blocked():
    thread = JournalThread()
    blocked, enough = threading.Event(), threading.Event()

    def wait():
        blocked.set()
        enough.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread, wait)
        await trio.to_thread.run_sync(blocked.wait)
        before = thread.labour()
        # The kernel counts in ticks of 10 ms: many of them pass here, for this thread.
        busy_until = trio.current_time() + 0.1
        while trio.current_time() < busy_until:
            await trio.lowlevel.checkpoint()
        assert thread.labour() == before
        enough.set()


async def test_a_long_statement_of_the_journal_outlives_the_watchdog(manager, tmp_path):
    thread = JournalThread()
    beating = heartbeat(manager, labour=thread.labour, watchdog_seconds=0.3)
    journal = Journal.create(
        tmp_path / "journal.db", name="t", cutoff_us=1, order=Order.NEWEST_FIRST, now_us=1
    )
    recorder = Recorder(journal, Runtime(journal_runner=thread))
    lengthy = sqlite3.connect(":memory:", check_same_thread=False)
    counting = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"

    async def count_for_ever():
        with pytest.raises(sqlite3.OperationalError, match="interrupted"):
            await recorder.call(lambda _journal, _now: lengthy.execute(counting))

    beating.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count_for_ever)
        while thread.labour() is None:
            await trio.lowlevel.checkpoint()
        with beating.through(lambda: recorder.call(lambda _journal, _now: None)):
            nursery.start_soon(beating.run)
            messages = []
            with trio.fail_after(60):
                while messages.count("WATCHDOG=1") < 5:
                    await trio.lowlevel.checkpoint()
                    messages += heard(manager)
            assert thread.labour() is not None
            lengthy.interrupt()
            nursery.cancel_scope.cancel()
    lengthy.close()
    journal.close()


class Disk:
    """A file system of its own, which can be frozen: whoever writes to it then waits in the kernel."""

    def __init__(self, place):
        self.place = place
        self.frozen = False

    def freeze(self):
        subprocess.run(["fsfreeze", "--freeze", self.place], check=True)
        self.frozen = True

    def thaw(self):
        if self.frozen:
            subprocess.run(["fsfreeze", "--unfreeze", self.place], check=True)
        self.frozen = False


@pytest.fixture
def disk(tmp_path):
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 20)
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or shutil.which("fsfreeze") is None:
        pytest.skip("NOT TESTED: a sync that the disk blocks: freezing a file system needs root and ext4")
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True, check=False).returncode:
        pytest.skip("NOT TESTED: a sync that the disk blocks: mounting a file needs a loop device")
    disk = Disk(place)
    yield disk
    disk.thaw()
    subprocess.run(["umount", place], check=True)


@pytest.mark.root
async def test_a_sync_that_the_disk_blocks_stops_it_until_the_disk_is_back(manager, disk):
    thread = JournalThread()
    beating = heartbeat(manager, labour=thread.labour, watchdog_seconds=0.3)
    path = disk.place / "journal.db"
    with Journal.create(path, name="t", cutoff_us=1, order=Order.NEWEST_FIRST, now_us=1) as journal:
        recorder = Recorder(journal, Runtime(journal_runner=thread))

        async def commit():
            await recorder.call(lambda journal, now_us: journal.start_session(now_us=now_us, facts={}))

        beating.started()
        disk.freeze()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            with beating.through(lambda: recorder.call(lambda _journal, _now: None)):
                nursery.start_soon(beating.run)
                try:
                    # What the call did before it came to the disk was labour.
                    await trio.sleep(0.5)
                    heard(manager)
                    await trio.sleep(1.0)
                    assert heard(manager) == []
                finally:
                    disk.thaw()
                with trio.fail_after(60):
                    while "WATCHDOG=1" not in heard(manager):
                        await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()


async def test_a_process_without_a_descriptor_to_spare_knows_no_labour_and_goes_on():
    thread, end = JournalThread(), threading.Event()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thread, end.wait)
        with trio.fail_after(30):
            while thread.labour() is None:
                await trio.lowlevel.checkpoint()
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            found = thread.labour()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            end.set()
    assert found is None
