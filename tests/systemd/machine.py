"""A real systemd as PID 1 of namespaces of its own, on a throw-away copy of this machine (see boot.sh)."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from daemon.demo.processes import ChildProcess, descendants
from tests.faults.waiting import eventually

BOOT = Path(__file__).with_name("boot.sh")
CGROUPS = [Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")]
"""Where the unified hierarchy is: beside the older ones, or alone."""
SHARE = Path("/mnt/share")
"""Where the machine's directory shows inside."""
COMMAND_SECONDS_MAX = 300.0
CLONE_NEWNET = 0x40000000
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """As a context manager: booted on entry, gone on exit with every process and file of it.

    Attributes:
        directory: on this side; SHARE inside.
    """

    def __enter__(self) -> Self:
        # /tmp as it stands: a path below the user's own would not be reachable for the machine's users.
        self.directory = Path(tempfile.mkdtemp(prefix="backfill-machine-", dir="/tmp"))
        self.directory.chmod(0o755)
        (self.directory / "console").touch()
        self._cgroup = next(one for one in CGROUPS if (one / "cgroup.procs").exists()) / self.directory.name
        self._cgroup.mkdir()
        try:
            self._outer = ChildProcess(
                [BOOT, self.directory, self._cgroup],
                log=self.directory / "boot.log",
                env={"PATH": PATH},
            )
            eventually(self._booted, "systemd is up")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._outer.kill()
        eventually(self._emptied, "every process of the machine is gone")
        shutil.rmtree(self.directory)

    def _booted(self) -> bool:
        assert self._outer.returncode is None, self._outer.log_tail()
        inner = [pid for pid in descendants(self._outer.pid) if _name_of(pid) == "systemd"]
        if not inner:
            return False
        self._init = inner[0]
        return self.run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}

    def _emptied(self) -> bool:
        """Remove the cgroups once the kernel has cleared away the processes."""
        for place, _below, _files in os.walk(self._cgroup, topdown=False):
            try:
                Path(place).rmdir()
            except OSError:
                return False
        return True

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, user: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside, as root or another user, to its end."""
        return self._run(["--all"], words, env or {}, user)

    def shell(self, line: str, *, cwd: str = "/") -> str:
        """Run a command line inside, but on this side's network: for what installs packages."""
        own = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        done = self._run(
            ["--mount", "--pid", "--cgroup", "--uts", "--ipc"], ["sh", "-ec", f"cd {cwd}; {line}"], own, None
        )
        assert done.returncode == 0, f"{line}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def _run(
        self,
        namespaces: list[str],
        words: tuple[str, ...] | list[str],
        env: Mapping[str, str],
        user: str | None,
    ) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []
        return subprocess.run(
            ["nsenter", f"--target={self._init}", *namespaces, "--", *become, *words],
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def must(self, *words: str) -> str:
        """Run a command inside that must succeed; return what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def path(self, inside: str) -> Path:
        """Return where a path of the machine is on this side."""
        return Path(f"/proc/{self._init}/root{inside}")

    def state_of(self, name: str) -> Path:
        """Return where the StateDirectory of backfill@NAME is on this side.

        Not below `path`: SQLite follows links itself, and out of the machine again.
        """
        return self.directory / "private" / "backfill" / name

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.must("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def log_of(self, unit: str) -> str:
        """Return what the journal has of a unit."""
        return self.must("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Signal a process of the machine by the pid it has there."""
        self.must("kill", f"-{number.name.removeprefix('SIG')}", str(pid))

    @contextmanager
    def network(self) -> Iterator[None]:
        """Put this thread, and every process and thread that it starts, on the machine's loopback."""
        with (
            Path("/proc/self/ns/net").open("rb") as own,
            Path(f"/proc/{self._init}/ns/net").open("rb") as other,
        ):
            _enter(other.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""
