from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from journal.errors import JournalError, JournalFull, JournalLocked
from journal.lock import Lock, Owner, lock_path, owner_of
from journal.log import Journal
from tests.journal.journals import NOW_US, create, planned, reopen

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@contextmanager
def process(script: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in the repository's root; it is killed at the end, if it is still there."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def daemon(path: Path) -> str:
    """A script that holds the journal with a claim in flight, says so, and waits."""
    return f"""
        from pathlib import Path
        from journal.log import Journal
        journal = Journal.open(Path({str(path)!r}), now_us={NOW_US})
        journal.start_session(now_us={NOW_US}, facts={{}})
        journal.claim(1, limit=3, window=9, now_us={NOW_US})
        print("ready", flush=True)
        input()
    """


def test_a_second_writer_is_refused_and_told_who_holds_the_journal(tmp_path: Path) -> None:
    with create(tmp_path / "journal.db"), pytest.raises(JournalLocked) as caught:
        reopen(tmp_path / "journal.db")
    assert caught.value.owner == f"pid {os.getpid()} on {socket.gethostname()}"
    assert caught.value.owner in caught.value.problem


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    planned(path)[0].close()
    with process(daemon(path)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with pytest.raises(JournalLocked, match=f"pid {first.pid} on"):
            reopen(path)
        assert owner_of(path) == Owner(first.pid, socket.gethostname(), NOW_US)
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert owner_of(path) is None
        with reopen(path) as journal:
            assert journal.recover(now_us=NOW_US).recovered == 3


def test_a_start_waits_for_an_owner_that_is_just_ending(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    planned(path)[0].close()
    with process(daemon(path)) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        killer = threading.Timer(0.2, first.kill)
        killer.start()
        with Journal.open(path, now_us=NOW_US, wait_seconds=10) as journal:
            assert journal.in_flight == 3
        killer.join()


def test_the_lock_does_not_survive_in_a_child_that_is_executed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    lock = Lock(path, now_us=NOW_US)
    with process("print('ready', flush=True); input()") as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        lock.release()
        assert owner_of(path) is None
        Lock(path, now_us=NOW_US, wait_seconds=0).release()


def test_asking_for_the_owner_neither_locks_nor_frees(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    assert owner_of(path) is None
    lock = Lock(path, now_us=NOW_US)
    for _ in range(2):
        assert owner_of(path) == Owner(os.getpid(), socket.gethostname(), NOW_US)
    with pytest.raises(JournalLocked):
        Lock(path, now_us=NOW_US, wait_seconds=0)
    lock.release()
    lock.release()
    assert owner_of(path) is None


def test_a_lock_file_without_readable_text_still_locks(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    lock = Lock(path, now_us=NOW_US)
    lock_path(path).write_text("[]")
    assert owner_of(path) == Owner(0, "unknown", 0)
    with pytest.raises(JournalLocked, match="an unknown process holds it"):
        Lock(path, now_us=NOW_US, wait_seconds=0)
    lock.release()


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file or directory"):
        Lock(tmp_path / "missing" / "journal.db", now_us=NOW_US)


def test_a_lock_file_is_its_owners_alone_and_says_nothing_of_an_earlier_holder(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    lock = Lock(path, now_us=NOW_US)
    assert lock.path == tmp_path / "journal.db.lock"
    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    lock.release()
    lock.path.write_text("x" * 1000)
    lock = Lock(path, now_us=7)
    assert owner_of(path) == Owner(os.getpid(), socket.gethostname(), 7)
    lock.release()


@pytest.mark.parametrize(
    ("number", "expected", "told"),
    [
        (errno.ENOSPC, JournalFull, r"lock journal .*journal\.db: the disk is full"),
        (errno.EDQUOT, JournalFull, r"lock journal .*journal\.db: the disk is full"),
        (
            errno.EIO,
            JournalError,
            r"lock journal .*journal\.db: can't write .*journal\.db\.lock: Input/output error",
        ),
    ],
)
def test_a_lock_that_can_not_say_who_holds_it_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[JournalError], told: str
) -> None:
    def fails(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", fails)
        with pytest.raises(JournalError, match=told) as refused:
            Lock(tmp_path / "journal.db", now_us=NOW_US)
    assert type(refused.value) is expected
    Lock(tmp_path / "journal.db", now_us=NOW_US, wait_seconds=0).release()


def test_without_locks_that_outlast_other_descriptors_nothing_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(fcntl, "F_OFD_SETLK")
    with pytest.raises(JournalError, match="no OFD locks"):
        Lock(tmp_path / "journal.db", now_us=NOW_US)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_tried_until_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += 0.5

    time = SimpleNamespace(monotonic=lambda: clock[0], sleep=pause)
    monkeypatch.setattr("journal.lock.time", time)
    lock = Lock(tmp_path / "journal.db", now_us=NOW_US)
    with pytest.raises(JournalLocked, match=r"open journal .*journal\.db for .* holds it \(waited 2 s\)"):
        Lock(tmp_path / "journal.db", now_us=NOW_US, wait_seconds=2)
    assert pauses == [0.05] * 4
    lock.release()


def test_a_lock_file_that_can_not_be_read_is_told_with_who_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(JournalError, match=r"can't open .*journal\.db\.lock: Permission denied") as refused:
        owner_of(tmp_path / "journal.db")
    assert refused.value.hint == "run the command as the journal's owner"


@pytest.mark.parametrize("text", ["", "{}", '{"pid": 7}', '{"pid": 7, "host": "h"}', '{"pid": "x"}', "\x00"])
def test_a_card_that_tells_less_than_it_should_names_nobody(tmp_path: Path, text: str) -> None:
    lock = Lock(tmp_path / "journal.db", now_us=NOW_US)
    lock.path.write_text(text)
    assert owner_of(tmp_path / "journal.db") == Owner(0, "unknown", 0)
    lock.release()


def test_a_lock_that_is_released_twice_closes_nothing_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(descriptor: int) -> None:
        closed.append(descriptor)
        real(descriptor)

    closed: list[int] = []
    real = os.close
    lock = Lock(tmp_path / "journal.db", now_us=NOW_US)
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        lock.release()
        lock.release()
    assert len(closed) == 1
