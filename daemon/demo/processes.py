"""Child processes that never outlive their parent: the servers of the demo and of the tests.

A child runs in a session of its own, so that a Ctrl-C in the terminal reaches it only through us, and on Linux
the kernel signals it when the thread that started it dies, so that even SIGKILL of the parent leaves nothing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

from daemon.errors import BackfillError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

STOP_GRACE_SECONDS = 5.0
"""How long each step of `ChildProcess.stop` waits before the next, harder one."""
LOG_TAIL_BYTES = 2000
"""How much of a child's output an error about it quotes."""
SERVER_PORTS = range(10_000, 32_768)
"""Below what Linux gives to clients and to whoever asks for any port (ip_local_port_range, from 32768; others follow RFC
6335, from 49152): hardly anybody takes the port of a server that is stopped before it is started again."""
PORTS_TRIED_MAX = 1000
"""Drawn for one answer."""

# Runs between fork and exec in place of preexec_fn, which Python 3.12 warns about in a process with threads.
# prctl option 1 is PR_SET_PDEATHSIG; a change of uid clears it, so it comes after. The parent may have died
# before the call: then nobody would be left to signal, hence the look at getppid. All imports come before the
# change of uid: the new user may not be able to read the interpreter's library.
_LAUNCHER = """
import ctypes, os, sys
parent, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
libc = ctypes.CDLL(None)
if uid >= 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    libc.prctl(1, death_signal)
    if os.getppid() != parent:
        os._exit(1)
os.execv(sys.argv[5], sys.argv[5:])
"""


def scrubbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without what could lead a server or client anywhere but loopback.

    Dropped: PG*, AWS_*, BACKFILL_*, every *_proxy in either case, and XDG_RUNTIME_DIR.
    """
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("PG", "AWS_", "BACKFILL_"))
        and not name.lower().endswith("_proxy")
        and name != "XDG_RUNTIME_DIR"
    }


def free_ports(count: int) -> list[int]:
    """Return `count` different TCP ports of 127.0.0.1 that nobody used a moment ago, for servers that may start again.

    Raises:
        BackfillError: `PORTS_TRIED_MAX` draws brought fewer.
    """
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in secrets.SystemRandom().sample(SERVER_PORTS, PORTS_TRIED_MAX):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
                try:
                    listener.bind(("127.0.0.1", port))
                except OSError:
                    continue
                stack.enter_context(listener.dup())
            ports.append(port)
            if len(ports) == count:
                return ports
    raise BackfillError(f"find {count} free ports of 127.0.0.1: found {len(ports)} in {PORTS_TRIED_MAX}")


def descendants(pid: int) -> list[int]:
    """Return the pids of every process below `pid`, parents before children."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _parents() -> list[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(
            ["/bin/ps", "-axo", "pid=,ppid="], check=True, capture_output=True, text=True
        )
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listing.stdout.splitlines())]
    pairs = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while we looked
                # "pid (name) state ppid": the name may itself hold spaces and parentheses.
                after_name = (entry / "stat").read_text(errors="replace").rpartition(")")[2]
                pairs.append((int(entry.name), int(after_name.split()[1])))
    return pairs


class ChildProcess:
    """A running child: output to a log file, stopped by pid, dead when its parent is.

    Start it from the main thread: the kernel's death signal follows the *thread* that started the child.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        """Start `arguments`; its first word is a path.

        Args:
            arguments: the command; secrets have no place in it.
            log: stdout and stderr are appended here.
            env: the child's whole environment.
            cwd: its working directory.
            user: uid and gid to run as (root only); None means as we are.
            death_signal: what the kernel sends it when we die (Linux).

        Raises:
            RuntimeError: not called from the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a child process can only be started from the main thread")
        self.name = Path(arguments[0]).name
        self.log = log
        uid, gid = user or (-1, -1)
        launcher = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            _LAUNCHER,
            *map(str, (os.getpid(), int(death_signal), uid, gid)),
        ]
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [*launcher, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                cwd=cwd,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """None while it runs, else its exit code, negative for a signal."""
        return self._popen.poll()

    def wait(self, timeout: float) -> int | None:
        """Wait up to `timeout` seconds for the child to end; return its exit code, None if it still runs."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def send(self, signal_number: signal.Signals) -> None:
        """Signal the child alone; nothing happens if it has ended."""
        self._popen.send_signal(signal_number)

    def signal_tree(self, signal_number: signal.Signals) -> None:
        """Signal the child and every process below it, by pid."""
        for pid in [self.pid, *descendants(self.pid)] if self.returncode is None else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def stop(self, *signals: signal.Signals) -> None:
        """Ask the child to end with each of `signals` (default SIGTERM) in turn, then SIGKILL it and all below.

        Returns when it has ended and is reaped. A frozen child is thawed first.
        """
        if self.returncode is None:
            self.signal_tree(signal.SIGCONT)
        for signal_number in signals or (signal.SIGTERM,):
            self.send(signal_number)
            if self.wait(STOP_GRACE_SECONDS) is not None:
                return
        self.kill()

    def kill(self) -> None:
        """SIGKILL the child and every process below it, and reap it."""
        self.signal_tree(signal.SIGKILL)
        self._popen.wait()

    def log_tail(self) -> str:
        """Return the end of what the child printed."""
        with self.log.open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            return output.read().decode(errors="replace").strip()

    def ended_early(self) -> BackfillError:
        """Return the error that says that the child ended although it was still needed."""
        return BackfillError(
            f"{self.name} ended with exit code {self.returncode}; it printed:\n{self.log_tail()}"
        )
