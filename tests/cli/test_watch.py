"""`status --watch` in a real terminal, into a pipe, and whatever happens to the journal meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest

from daemon.commands.watching import watch as watch_until_left
from daemon.errors import ExitCode
from journal.errors import JournalError
from journal.log import Journal
from journal.status import MigrationStatus
from tests.cli.conftest import Invoke
from tests.journal.journals import NOW_US, abandon, planned, settle, take

DEADLINE_SECONDS = 60.0
ALTERNATE, NORMAL = b"\x1b[?1049h", b"\x1b[?1049l"
CURSOR_HIDDEN, CURSOR_SHOWN = b"\x1b[?25l", b"\x1b[?25h"


TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes the terminal the new session's own, so that what is typed there can be a signal: a fork would not do
beside the threads of a test run."""


class Watched:
    """`backfillctl status --watch` on a terminal of its own, and the screen that it draws there."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24, **env: str) -> None:
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.drawn = b""
        self._terminal, its_end = pty.openpty()
        self.resize(columns, lines)
        self.before = termios.tcgetattr(self._terminal)
        command = [sys.executable, "-m", "daemon", "status", "--watch", "--interval", "0.1", *arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-c", TAKE_TERMINAL, *command],
            stdin=its_end,
            stdout=its_end,
            stderr=its_end,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", **env},
        )
        os.close(its_end)

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def until(self, true: Callable[[str], bool]) -> str:
        """Read what is drawn until the screen is as expected; return it."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not true(self.text()):
            assert time.monotonic() < deadline, self.text()
            assert self._read(), f"the command has ended; its screen was\n{self.text()}"
        return self.text()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._terminal], [], [], 1.0)
        if not ready:
            return True
        try:
            piece = os.read(self._terminal, 65_536)
        except OSError:
            return False
        self.drawn += piece
        self._stream.feed(piece)
        return bool(piece)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def ended(self) -> int:
        """Wait for the command's end; return its exit code."""
        while self._read():
            pass
        found = self.process.wait()
        assert termios.tcgetattr(self._terminal) == self.before, "the terminal's modes are as they were"
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def watch(clean_env: None) -> Iterator[Callable[..., Watched]]:
    opened: list[Watched] = []

    def start(*arguments: str | Path, **options: int | str) -> Watched:
        opened.append(Watched(*map(str, arguments), **options))  # type: ignore[arg-type]
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def written(path: Path) -> Iterator[tuple[Journal, int]]:
    """A journal of ten keys, five of them in flight, that this process holds."""
    journal, source = planned(path)
    take(journal, source, 5)
    with journal:
        yield journal, source


def was_given_back(watched: Watched) -> bool:
    """Whether the alternate screen was left and the cursor shown again, each once and in this order."""
    order = [watched.drawn.find(mark) for mark in (ALTERNATE, CURSOR_HIDDEN)]
    ends = [watched.drawn.rfind(mark) for mark in (CURSOR_SHOWN, NORMAL)]
    return -1 not in order and min(ends) > max(order) and watched.drawn.count(ALTERNATE) == 1


def test_a_screen_follows_the_migration_and_q_leaves_it(
    watch: Callable[..., Watched], written: tuple[Journal, int], path: Path
) -> None:
    journal, _ = written
    watched = watch("--journal", path)
    text = watched.until(lambda text: "0 of 10 · in flight 5" in text)
    assert text.startswith("layer-cache: running")
    settle(journal, [1, 2, 3])
    watched.until(lambda text: "3 of 10 · in flight 2" in text and "30.0 %" in text)
    journal.pause(who="alice", now_us=NOW_US)
    watched.until(lambda text: text.startswith("layer-cache: paused") and "paused by alice" in text)
    watched.type(b"x q")
    assert watched.ended() == 0
    assert was_given_back(watched)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_terminal_is_given_back_by_every_signal_that_can_be_caught(
    watch: Callable[..., Watched], written: tuple[Journal, int], path: Path, number: signal.Signals
) -> None:
    watched = watch("--journal", path)
    watched.until(lambda text: "in flight 5" in text)
    if number is signal.SIGINT:
        watched.type(b"\x03")
    else:
        watched.process.send_signal(number)
    assert watched.ended() == 0
    assert was_given_back(watched)


def test_it_waits_for_the_journal_and_outlives_the_daemon(watch: Callable[..., Watched], path: Path) -> None:
    watched = watch("--journal", path, columns=200)
    text = watched.until(lambda text: "there is no such file" in text)
    assert "`backfillctl run` makes it" in text
    journal, source = planned(path)
    take(journal, source, 5)
    watched.until(lambda text: text.startswith("layer-cache: running"))
    abandon(journal)
    watched.until(lambda text: text.startswith("layer-cache: killed"))
    with Journal.open(path, now_us=NOW_US, wait_seconds=0) as again:
        again.start_session(now_us=NOW_US, facts={"pid": os.getpid()})
        again.recover(now_us=NOW_US)
        watched.until(lambda text: text.startswith("layer-cache: running"))
    watched.type(b"q")
    assert watched.ended() == 0


def test_a_terminal_that_changes_its_size_is_filled_anew(
    watch: Callable[..., Watched], written: tuple[Journal, int], path: Path
) -> None:
    watched = watch("--journal", path, columns=120, lines=30, COLUMNS="80", LINES="24")
    watched.until(lambda text: "0 of 10 · in flight 5 · parked 0" in text)
    watched.resize(40, 8)
    text = watched.until(lambda text: "in flight" not in text and "q leaves" in text)
    assert len(text.splitlines()) == 8
    watched.resize(120, 30)
    watched.until(lambda text: "0 of 10 · in flight 5 · parked 0" in text)


def test_a_terminal_that_can_draw_no_unicode_gets_ascii(
    watch: Callable[..., Watched], written: tuple[Journal, int], path: Path
) -> None:
    watched = watch("--journal", path, PYTHONIOENCODING="ascii:backslashreplace")
    text = watched.until(lambda text: "in flight 5" in text)
    assert "0 of 10 | in flight 5" in text
    assert text.isascii()


def test_a_dumb_terminal_gets_plain_text(
    watch: Callable[..., Watched], written: tuple[Journal, int], path: Path
) -> None:
    watched = watch("--journal", path, TERM="dumb")
    watched.until(lambda text: "excluded rows" in text)
    assert b"\x1b" not in watched.drawn


def piped(path: Path, *options: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "daemon",
        "status",
        "--watch",
        "--interval",
        "0.1",
        "--journal",
        str(path),
    ]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def test_a_pipe_gets_the_text_again_and_again_until_interrupted(
    clean_env: None, written: tuple[Journal, int], path: Path
) -> None:
    with piped(path) as process:
        assert process.stdout is not None
        told = 0
        for line in process.stdout:
            assert "\x1b" not in line
            told += line.startswith("layer-cache: running")
            if told == 3:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait() == 0


def test_programs_get_a_line_for_each_look(clean_env: None, written: tuple[Journal, int], path: Path) -> None:
    with piped(path, "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["totals"]["settled"] == 0
        settle(written[0], [1, 2])
        while json.loads(process.stdout.readline())["totals"]["settled"] != 2:
            pass
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait() == 0


def test_programs_are_told_of_trouble_once_and_then_of_its_end(clean_env: None, path: Path) -> None:
    with piped(path, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == (
            f"error: read journal {path}: there is no such file; trying again\n"
        )
        journal, _ = planned(path)
        with journal:
            assert json.loads(process.stdout.readline())["migration"] == "layer-cache"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert "there is no such file" not in process.stderr.read()
        assert process.wait() == 0


def test_what_has_passed_is_not_watched(invoke: Invoke, path: Path) -> None:
    found = invoke("status", "--journal", path, "--watch", "--as-of", "2h")
    assert found.exit_code == ExitCode.USAGE
    assert found.stderr == "error: status: found --watch and --as-of; expected one of them\n"


def test_trouble_that_stays_the_same_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter(["is damaged", "is damaged", "is damaged", "is locked", "is damaged"])

    def ask(_now: int) -> MigrationStatus:
        problem = next(looks, None)
        if problem is None:
            raise KeyboardInterrupt
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN, "a stopped process keeps the terminal"
        raise JournalError(f"the journal {problem}")

    watch_until_left(ask, interval_seconds=0, as_json=True)
    told = [line.split(";")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == [
        "error: the journal is damaged",
        "error: the journal is locked",
        "error: the journal is damaged",
    ]
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
