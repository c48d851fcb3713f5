"""Where a journal lies: whether there is one, and on which file system.

WAL's shared memory and OFD locks can't be trusted over a network.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from journal.errors import JournalError, JournalOnNetworkFilesystem

NETWORK_FILESYSTEMS: frozenset[str] = frozenset(
    {
        "9p",
        "acfs",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.ceph-fuse",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "pvfs2",
        "smb3",
        "smbfs",
        "virtiofs",
    }
)
"""Types, as the kernel names them in mountinfo, that are served by another machine (or by the host of this
one), where SQLite's documentation rules WAL out."""

MOUNTINFO = Path("/proc/self/mountinfo")


def is_there(path: Path) -> bool:
    """Say whether there is a file at `path`.

    Raises:
        JournalError: this user can't know, or something else than a file is there.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise JournalError(
            f"look for journal {path}: {(error.strerror or str(error)).lower()}",
            "the directory must be readable and writable for the user that runs backfillctl (migration.journal)",
        ) from error
    if not stat.S_ISREG(mode):
        raise JournalError(
            f"open journal {path}: expected a file, found {'a directory' if stat.S_ISDIR(mode) else 'a special file'}",
            "name the file itself in migration.journal or --journal",
        )
    return True


def filesystem_of(path: str, mountinfo: str) -> str | None:
    """Return the type of the file system that holds `path` (absolute, resolved); None if no mount matches.

    `mountinfo` is the text of /proc/self/mountinfo; of mounts on the same point the last one hides the others.
    """
    found: str | None = None
    longest = -1
    # The kernel escapes no other line end than this one.
    for line in mountinfo.split("\n"):
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not rest:
            continue
        point = _unescape(fields[4])
        inside = point in {"/", path} or path.startswith(point + "/")
        if inside and len(point) >= longest:
            found, longest = rest.split(" ")[0], len(point)
    return found


def _unescape(field: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def refuse_network_filesystem(path: Path, mountinfo: Path = MOUNTINFO) -> None:
    """Refuse a journal on a network file system; where the kernel shows no mountinfo, nothing is known.

    Raises:
        JournalOnNetworkFilesystem: the directory of `path` lies on one.
    """
    if not mountinfo.exists():
        return
    kind = filesystem_of(os.path.realpath(path.parent), os.fsdecode(mountinfo.read_bytes()))
    if kind in NETWORK_FILESYSTEMS:
        raise JournalOnNetworkFilesystem(
            f"open journal {path}: it lies on a network file system ({kind}), where SQLite's locks don't hold",
            "put the journal on a local disk (migration.journal)",
        )
