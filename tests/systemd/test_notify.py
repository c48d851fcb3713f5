"""The datagrams that a service manager gets, and what becomes of them where there is none."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.notify import Notifier


class Manager:
    """A service manager's socket."""

    def __init__(self, place: str) -> None:
        self.address = place
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind("\0" + place[1:] if place.startswith("@") else place)

    def heard(self) -> list[str]:
        """Every message so far."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    abstract = f"@backfill-test-{secrets.token_hex(4)}"
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else abstract)
    yield manager
    manager.close()


def notifier(manager: Manager, **env: str) -> Notifier:
    return Notifier.from_environment({"NOTIFY_SOCKET": manager.address, **env}, pid=7)


def test_each_message_is_one_datagram(manager: Manager) -> None:
    speaker = notifier(manager)
    speaker.ready()
    speaker.status("cas 41.2 % · 812 obj/s")
    speaker.watchdog()
    speaker.extend(60.0)
    speaker.stopping()
    assert manager.heard() == [
        "READY=1",
        "STATUS=cas 41.2 % · 812 obj/s",
        "WATCHDOG=1",
        "EXTEND_TIMEOUT_USEC=60000000",
        "STOPPING=1",
    ]


def test_a_reload_says_when_it_began(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    notifier(manager).reloading()
    first, second = manager.heard()[0].split("\n")
    assert first == "RELOADING=1"
    assert before <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_status_can_forge_no_second_message(manager: Manager) -> None:
    notifier(manager).status("cas\nREADY=1")
    assert manager.heard() == ["STATUS=cas\\nREADY=1"]


@pytest.mark.parametrize(
    ("env", "seconds"),
    [
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_if_it_names_us_or_nobody(
    env: dict[str, str], seconds: float | None, manager: Manager
) -> None:
    assert notifier(manager, **env).watchdog_seconds == seconds


def test_where_nobody_listens_nothing_is_sent_and_no_watchdog_waits() -> None:
    speaker = Notifier.from_environment({"WATCHDOG_USEC": "2000000"}, pid=os.getpid())
    speaker.ready()
    assert not speaker.listening
    assert speaker.watchdog_seconds is None


def test_an_address_of_another_kind_is_told_and_nobody(caplog: pytest.LogCaptureFixture) -> None:
    assert not Notifier("vsock:2:1234").listening
    assert "NOTIFY_SOCKET" in caplog.text


def test_a_manager_that_is_gone_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    speaker = Notifier(str(tmp_path / "gone"))
    speaker.ready()
    speaker.watchdog()
    assert [record.getMessage() for record in caplog.records] == [
        "tell the service manager READY=1: No such file or directory"
    ]


def test_a_manager_that_reads_nothing_holds_us_up_for_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("daemon.notify.SEND_SECONDS_MAX", 0.01)
    manager = Manager(str(tmp_path / "full"))
    speaker = Notifier(manager.address)
    for _ in range(5000):
        speaker.watchdog()
        if caplog.records:
            break
    assert "timed out" in caplog.text
    manager.close()
