"""Unix sockets at paths: where a daemon listens, and how a path too long for the kernel is bound and reached.

A socket's address holds 107 bytes of path (sun_path, unix(7)). A longer path is addressed by a descriptor of its
directory, which leaves the name alone to fit.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ADDRESS_BYTES_MAX = 107
"""sun_path less its terminating NUL."""
MODE = 0o660
"""The group may connect: connecting takes the right to write."""
BACKLOG = 16
"""Connections that wait to be accepted; more are refused by the kernel until some are."""
ALONE_SECONDS = 2.0
"""How long another daemon that starts beside us is waited for; it needs milliseconds."""
_POLL_SECONDS = 0.02
NOBODY_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ECONNREFUSED, errno.ENAMETOOLONG, errno.ELOOP})
"""How connecting fails where no daemon listens."""
SERVICE_DIRECTORY = Path("/run/backfill")
"""Where systemd/backfill@.service has its runtime directories, one for each instance."""
_HINT = "name another path in control.socket, in a directory that the user running backfillctl may write"


def socket_path(configured: Path | None, journal: Path, env: Mapping[str, str]) -> Path:
    """Return where the daemon of `journal` listens: as configured, else systemd's directory, else beside the journal."""
    if configured is not None:
        return configured
    directory = env.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(directory) / "control.sock" if directory else beside(journal)


def beside(journal: Path) -> Path:
    """Return the socket's path where nothing else says where it is."""
    return journal.with_name(journal.name + ".sock")


def candidates(
    configured: Path | None, journal: Path, config: Path | None, env: Mapping[str, str]
) -> list[Path]:
    """Return where a client may find the daemon of `journal`, the likeliest first.

    `config` is the configuration's path: the service's instances are named after theirs.
    """
    found = [socket_path(configured, journal, env), beside(journal)]
    if config is not None:
        found.append(SERVICE_DIRECTORY / config.stem / "control.sock")
    return list(dict.fromkeys(found))


@contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """Yield a socket that listens at `path` with mode MODE; the file goes when the block ends.

    What a dead daemon has left there is replaced, a socket that answers never.

    Raises:
        ConfigError: another daemon listens there, something else is there, or nothing can be.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listening:
        try:
            with _address(path) as address, _alone_in(path.parent):
                _make_room(path, address)
                # Until the mode is set nobody else may connect, whatever the umask.
                os.fchmod(listening.fileno(), 0o600)
                listening.bind(address)
                made = path.stat(follow_symlinks=False)
                path.chmod(MODE)
                listening.listen(BACKLOG)
        except OSError as error:
            raise ConfigError([f"listen at {path}: {_reason(error)}"], _HINT) from error
        try:
            yield listening
        finally:
            _remove(path, made)


def connect(path: Path, *, timeout_seconds: float) -> socket.socket:
    """Return a connection to whoever listens at `path`.

    Raises:
        OSError: nobody does (`NOBODY_THERE`), or this user may not ask.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_seconds)
        with _address(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield an address that fits for `path`; its name alone must.

    Raises:
        OSError: the name does not fit either, or there is no such directory.
    """
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        address = f"/proc/self/fd/{descriptor}/{path.name}"
        if len(os.fsencode(address)) > ADDRESS_BYTES_MAX:
            raise OSError(errno.ENAMETOOLONG, f"the name {path.name} is too long for a socket")
        yield address
    finally:
        os.close(descriptor)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Let no two daemons look for what is left in `directory` and replace it at the same moment.

    Whoever may read the directory can lock it: that must not hold up a start for ever.

    Raises:
        BlockingIOError: somebody has had it locked for all of ALONE_SECONDS.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + ALONE_SECONDS
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise BlockingIOError(
                        error.errno, f"another process has locked the directory {directory}"
                    ) from error
                time.sleep(_POLL_SECONDS)
            else:
                break
        yield
    finally:
        os.close(descriptor)


def _make_room(path: Path, address: str) -> None:
    """Remove a dead daemon's socket; refuse anything else.

    Raises:
        ConfigError: as `bound`.
    """
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            [
                f"listen at {path}: found a file that is no socket; expected nothing, or a dead daemon's socket"
            ],
            _HINT,
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            # Its backlog is full: somebody listens.
            pass
    raise ConfigError(
        [f"listen at {path}: another daemon listens there; expected one socket for each migration"], _HINT
    )


def _remove(path: Path, made: os.stat_result) -> None:
    """Remove the socket's file, unless it is another by now, or can't be: a start replaces what is left."""
    # On a disk that failed or turned read-only this would hide the error that ended the daemon.
    with suppress(OSError):
        found = path.stat(follow_symlinks=False)
        if (found.st_dev, found.st_ino) == (made.st_dev, made.st_ino):
            path.unlink()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
