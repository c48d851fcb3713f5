"""A file system of its own, in an image behind a loop device: it can lose its power, or turn read-only under open files."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.faults.waiting import eventually

IMAGE_BYTES = 320 << 20
"""mkfs.xfs wants 300 MiB; the image is sparse."""
GOING_DOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, and XFS_IOC_GOINGDOWN: _IOR('X', 125, __u32)."""
NO_LOG_FLUSH = 2
"""Nothing more reaches the disk, not even what the file system's own journal holds in memory."""


class Disk:
    """Mounted while the block lasts; nothing of it stays behind, however the block ends."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.place = directory / "mounted"
        self._image = directory / "image"
        self._mounted = False

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip(
                f"NOT TESTED: a disk that fails under the journal ({self.kind}) needs root to mount one"
            )
        if shutil.which(f"mkfs.{self.kind}") is None:
            pytest.skip(
                f"NOT TESTED: power cuts under {self.kind}: mkfs.{self.kind} is missing (xfsprogs, e2fsprogs)"
            )
        self.place.mkdir()
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        force = "-F" if self.kind == "ext4" else "-f"
        _run(f"mkfs.{self.kind}", "-q", force, str(self._image))
        tried = self._mount()
        if tried.returncode != 0:
            pytest.skip(
                f"NOT TESTED: power cuts under {self.kind}: no loop device to mount ({tried.stderr.strip()})"
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._mounted:
            self.unmount()
        self._image.unlink()

    def _mount(self) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-o", "loop", str(self._image), str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self._mounted = done.returncode == 0
        return done

    def unmount(self) -> None:
        """Take it away; whoever used it must have ended."""

        def gone() -> bool:
            return (
                subprocess.run(["umount", str(self.place)], capture_output=True, check=False).returncode == 0
            )

        eventually(gone, f"umount {self.place}")
        self._mounted = False

    def cut_power(self) -> None:
        """Let nothing more reach the image; calls that would, fail from now on."""
        descriptor = os.open(self.place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, GOING_DOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def boot(self) -> None:
        """Mount again what had reached the image."""
        self.unmount()
        mounted = self._mount()
        assert mounted.returncode == 0, mounted.stderr

    def turn_read_only(self) -> None:
        """Do what ext4 does to itself after an error: no call writes any more, open files or not."""
        _run("mount", "-o", "remount,abort", str(self.place))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
