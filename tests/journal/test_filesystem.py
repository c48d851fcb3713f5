from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from journal.errors import JournalOnNetworkFilesystem
from journal.filesystem import MOUNTINFO, filesystem_of, refuse_network_filesystem

if TYPE_CHECKING:
    from pathlib import Path

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /srv rw,relatime shared:9 master:2 - nfs4 server:/export rw,vers=4.2
31 30 8:2 / /srv/local rw - xfs /dev/sdb rw
32 22 0:41 / /with\040space rw - cifs //server/share rw
33 22 0:42 / /over rw - ext4 /dev/sdc rw
34 33 0:43 / /over rw - fuse.sshfs host:/ rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/backfill", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/deep/down", "nfs4"),
        ("/srv/local/x", "xfs"),
        ("/srvlocal", "ext4"),
        ("/with space/x", "cifs"),
        ("/over/x", "fuse.sshfs"),
    ],
)
def test_the_innermost_and_newest_mount_decides(path: str, kind: str) -> None:
    assert filesystem_of(path, MOUNTS) == kind


def test_lines_that_are_no_mounts_are_passed_over() -> None:
    assert filesystem_of("/x", "garbage\n1 2 3\n") is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "ceph"])
def test_a_journal_on_a_network_file_system_is_refused(tmp_path: Path, kind: str) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"22 1 8:1 / / rw - ext4 x rw\n23 22 0:40 / {tmp_path.resolve()} rw - {kind} x rw\n")
    with pytest.raises(JournalOnNetworkFilesystem, match=rf"\({kind}\)"):
        refuse_network_filesystem(tmp_path / "journal.db", mountinfo)


def test_a_link_into_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"23 22 0:40 / {(tmp_path / 'far').resolve()} rw - nfs4 x rw\n")
    with pytest.raises(JournalOnNetworkFilesystem):
        refuse_network_filesystem(tmp_path / "near" / "journal.db", mountinfo)


def test_the_file_system_of_the_tests_is_found_in_the_kernels_own_table(tmp_path: Path) -> None:
    assert filesystem_of(str(tmp_path.resolve()), MOUNTINFO.read_text()) is not None
