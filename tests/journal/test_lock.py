from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journal.errors import JournalError, JournalLocked
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
