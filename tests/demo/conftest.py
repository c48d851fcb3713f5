"""The demo as a user meets it: a process of its own, in an environment that would lead it astray."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2]
UNROUTABLE = "http://192.0.2.1:9"
"""TEST-NET-1 of RFC 5737: nothing answers there."""
LEFT_OUT = (
    *("test", "idlelib", "include", "lib2to3", "tkinter", "__pycache__"),
    *("moto", "cfnlint", "sympy", "mypy", "mypyc", "networkx", "pip", "setuptools", "graphql", "hypothesis"),
    *("aws_xray_sdk", "mpmath", "docker", "cryptography", "rclone*", "ruff"),
)
"""Most of the files of an environment for development, and nothing that the demo needs."""
HOSTILE = {
    "LANG": "C",
    "LC_ALL": "C",
    "PGHOST": "192.0.2.1",
    "PGPORT": "9",
    "PGUSER": "mallory",
    "PGPASSWORD": "wrong",
    "PGSERVICE": "nowhere",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c default_transaction_read_only=on",
    "AWS_PROFILE": "nowhere",
    "AWS_ACCESS_KEY_ID": "wrong",
    "AWS_SECRET_ACCESS_KEY": "wrong",
    "AWS_ENDPOINT_URL": UNROUTABLE,
    "AWS_CA_BUNDLE": "/nowhere",
    "HTTP_PROXY": UNROUTABLE,
    "https_proxy": UNROUTABLE,
    "ALL_PROXY": UNROUTABLE,
    "BACKFILL_CONFIG": "/nowhere",
    "BACKFILL_JOURNAL": "/nowhere",
    "BACKFILL_S3_BUCKET": "wrong",
}


@dataclass
class Installation:
    """A Python with everything in it and the program's source; `uid` None means as we are."""

    python: Path
    source: Path
    home: Path
    uid: int | None = None
    gid: int | None = None
    temporary: Path = field(init=False)

    def __post_init__(self) -> None:
        self.temporary = self.home / "tmp"
        self.temporary.mkdir()
        if self.uid is not None:
            for path in (self.temporary, self.home):
                os.chown(path, self.uid, self.gid or 0)
        # The servers' files of a root user go to TMPDIR only if another user can get there.
        private = self.uid is not None or os.geteuid() != 0
        for path in (self.home, self.temporary):
            path.chmod(0o700 if private else 0o711)

    def environment(self) -> dict[str, str]:
        return {**HOSTILE, **self.plain_environment(), "TMPDIR": str(self.temporary)}

    def plain_environment(self) -> dict[str, str]:
        """Return what a login shell of the user has, and what a Python that was moved finds its library by."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(self.python.parents[2] / "base" / "lib"),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-m", "daemon", *words],
            cwd=self.source,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="ascii",
            start_new_session=True,
            user=self.uid,
            group=self.gid,
            extra_groups=None if self.uid is None else [],
        )

    def processes(self) -> list[str]:
        """The command of every process that was started with our TMPDIR or below it."""
        mark = f"TMPDIR={self.temporary}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if mark in (entry / "environ").read_bytes():
                        found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
                except OSError:  # it ended while we looked, or is another user's
                    continue
        return found


@pytest.fixture
def ours() -> Iterator[Installation]:
    """The Python of these tests, as the user who runs them, with a temporary directory to itself."""
    with tempfile.TemporaryDirectory(prefix="backfill-tests-", dir="/tmp") as home:
        yield Installation(Path(sys.executable), SOURCE, Path(home))


@pytest.fixture(scope="module")
def unprivileged() -> Iterator[Installation]:
    """The same as `nobody` with a 0700 home if we are root, else as we are."""
    with tempfile.TemporaryDirectory(prefix="backfill-tests-", dir="/tmp") as directory:
        home = Path(directory) / "home"
        home.mkdir()
        if os.geteuid() != 0:
            yield Installation(Path(sys.executable), SOURCE, home)
            return
        Path(directory).chmod(0o755)
        nobody = pwd.getpwnam("nobody")
        python = _python_for_everybody(Path(directory))
        source = Path(directory) / "source"
        for package in ("daemon", "journal"):
            shutil.copytree(SOURCE / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
        for path in [source, *source.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield Installation(python, source, home, nobody.pw_uid, nobody.pw_gid)


def _python_for_everybody(directory: Path) -> Path:
    """Return our Python where everybody can run it: where it is, or hard links to it, which cost no space."""
    base = Path(sys.base_prefix).resolve()
    environment = Path(sys.prefix).resolve()
    if environment == base:
        return Path(sys.executable)
    program = Path(sys.executable).resolve()
    if not _enterable(program):
        _link(base, directory / "base", "site-packages")
        program = directory / "base" / program.relative_to(base)
    if _enterable(environment / "pyvenv.cfg") and program == Path(sys.executable).resolve():
        return Path(sys.executable)
    copy = directory / "venv"
    _link(environment, copy)
    # What is a link to the original must not be written through.
    for name in ("python", "python3", program.name):
        (copy / "bin" / name).unlink(missing_ok=True)
        (copy / "bin" / name).symlink_to(program)
    (copy / "pyvenv.cfg").unlink()
    (copy / "pyvenv.cfg").write_text(f"home = {program.parent}\ninclude-system-site-packages = false\n")
    return copy / "bin" / "python"


def _enterable(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.parents)


def _link(source: Path, target: Path, *left_out: str) -> None:
    def link(original: str, copy: str) -> str:
        try:
            os.link(original, copy)
        except OSError:  # another file system
            shutil.copy2(original, copy)
        return copy

    shutil.copytree(
        source, target, symlinks=True, copy_function=link, ignore=shutil.ignore_patterns(*LEFT_OUT, *left_out)
    )
