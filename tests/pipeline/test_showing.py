"""What a session shows while it works: whatever keeps it from being read ends nothing."""

from __future__ import annotations

import logging
import random
import socket
from types import SimpleNamespace

import pytest
import trio

from daemon.drain import Drain
from daemon.ending import Ending
from daemon.log_events import LogEvent
from daemon.log_lines import Style
from daemon.logs import StderrLog
from daemon.notify import Notifier
from daemon.recorder import Recorder
from daemon.runtime import Runtime
from daemon.session import _show, _tell
from journal.checkpoint import Order
from journal.log import Journal

INTERVAL_SECONDS = 30


@pytest.fixture
def journal(tmp_path):
    with Journal.create(
        tmp_path / "journal.db", name="t", cutoff_us=1000, order=Order.NEWEST_FIRST, now_us=1
    ) as opened:
        yield opened


async def test_a_journal_that_cannot_be_read_is_told_to_the_service_manager_and_ends_nothing(
    journal, tmp_path, autojump_clock
):
    manager = trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    await manager.bind(str(tmp_path / "notify"))
    recorder = Recorder(journal, Runtime(random=random.Random(1)))
    aside = tmp_path / "aside"
    with manager:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_tell, Notifier(str(tmp_path / "notify")), recorder)
            assert b"STATUS=" in await manager.recv(4096)
            journal.path.rename(aside)
            assert b"there is no such file" in await manager.recv(4096)
            aside.rename(journal.path)
            while b"there is no such file" in await manager.recv(4096):
                pass
            nursery.cancel_scope.cancel()


async def test_progress_that_cannot_be_read_is_told_and_tried_again(
    journal, tmp_path, rig, caplog, autojump_clock
):
    rig.upload = {"checkpoint_interval_secs": INTERVAL_SECONDS}
    recorder = Recorder(journal, Runtime(random=random.Random(1)))
    shown = SimpleNamespace(scanned_rows={})
    journal.path.rename(tmp_path / "aside")
    caplog.set_level(logging.INFO, "daemon")
    with trio.move_on_after(1.5 * INTERVAL_SECONDS) as tried:
        await _show(rig.config, recorder, shown, Drain(), Ending(StderrLog(Style.JSON)))
    assert tried.cancelled_caught
    assert [one.told.event for one in caplog.records] == [LogEvent.PROGRESS_UNREAD] * 2
