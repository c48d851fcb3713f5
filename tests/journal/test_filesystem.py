from __future__ import annotations

import os
from pathlib import Path

import pytest

from journal.errors import JournalError, JournalOnNetworkFilesystem
from journal.filesystem import MOUNTINFO, filesystem_of, is_there, refuse_network_filesystem

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


@pytest.mark.parametrize(
    ("point", "path"),
    [
        (r"/a\040b", "/a b"),
        (r"/a\011b", "/a\tb"),
        (r"/a\012b", "/a\nb"),
        (r"/a\134b", "/a\\b"),
        (r"/a\134040b", r"/a\040b"),
    ],
)
def test_a_mount_point_is_read_as_the_kernel_escapes_it(point: str, path: str) -> None:
    assert filesystem_of(path, f"1 0 8:1 / {point} rw - xfs /dev/sda rw\n") == "xfs"


def test_a_line_that_is_no_mount_hides_none_behind_it() -> None:
    mount = "1 0 8:1 / / rw - xfs /dev/sda rw"
    for line in ("garbage", "1 2 3 4 - nfs x rw", "1 0 8:1 / / rw", "1 0 8:1 / / rw - "):
        assert filesystem_of("/x", f"{line}\n{mount}\n") == "xfs"
    assert filesystem_of("/x", "1 0 8:1 / / - ext4 x rw\n") == "ext4"


def test_a_mount_elsewhere_holds_nothing() -> None:
    assert filesystem_of("/x", "1 0 8:1 / /y rw - xfs x rw\n") is None


def test_where_the_kernel_shows_no_mounts_any_place_will_do(tmp_path: Path) -> None:
    refuse_network_filesystem(tmp_path / "journal.db", tmp_path / "mountinfo")


def test_a_local_file_system_with_a_name_in_no_known_encoding_is_not_refused(tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(b"1 0 8:1 / /\xff rw - nfs x rw\n2 0 8:1 / / rw - ext4 x rw\n")
    refuse_network_filesystem(tmp_path / "journal.db", mountinfo)


def test_a_journal_is_there_if_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch()
    assert is_there(tmp_path / "journal.db")
    assert not is_there(tmp_path / "missing")
    assert not is_there(tmp_path / "journal.db" / "below a file")


def test_what_is_no_file_is_refused_for_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, "a directory"), (tmp_path / "pipe", "a special file")):
        with pytest.raises(JournalError, match=f"{path.name}: expected a file, found {kind}") as refused:
            is_there(path)
        assert "migration.journal" in refused.value.hint


@pytest.mark.parametrize(
    ("error", "told"),
    [(PermissionError(13, "Permission denied"), "permission denied"), (OSError("Odd"), "odd")],
)
def test_whether_a_journal_is_there_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def denied(_: Path) -> os.stat_result:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", denied)
        with pytest.raises(JournalError, match="look for journal") as refused:
            is_there(tmp_path / "journal.db")
    assert refused.value.problem.endswith(f"journal.db: {told}")
    assert "migration.journal" in refused.value.hint


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028"])
def test_no_character_of_a_name_but_those_that_the_kernel_escapes_ends_a_field_or_a_line(
    tmp_path: Path, odd: str
) -> None:
    place = tmp_path / f"a{odd}b"
    place.mkdir()
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_bytes(f"1 0 8:1 / {place.resolve()} rw - nfs4 far:/a{odd}b rw\n".encode())
    with pytest.raises(JournalOnNetworkFilesystem):
        refuse_network_filesystem(place / "journal.db", mountinfo)
