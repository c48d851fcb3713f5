"""A password file that a service manager hands over, in a form that the driver accepts.

systemd 254 and newer keep credentials on a tmpfs and let the service's user in by an access list, which shows as
the group's bit: mode 0440. The driver, as libpq does, takes that for a file that others can read, and passes over it.
"""

from __future__ import annotations

import functools
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def granted_copy(path: str, env: Mapping[str, str]) -> str | None:
    """Return the path of a private copy in memory of a password file that is a credential; None if none is needed.

    Only below CREDENTIALS_DIRECTORY, which nobody but the service can enter, is such a bit no leak. The copy
    lives as long as the process.
    """
    directory = env.get("CREDENTIALS_DIRECTORY")
    if not directory or not path or not Path(path).is_relative_to(directory):
        return None
    try:
        mode = Path(path).stat().st_mode
        passed_over = stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO)
        return _copy(path) if passed_over else None
    except OSError:
        # The driver passes over what it can't read, and the server says that a password is missing.
        return None


@functools.cache
def _copy(path: str) -> str:
    content = Path(path).read_bytes()
    descriptor = os.memfd_create("pgpass")
    os.fchmod(descriptor, 0o400)
    os.write(descriptor, content)
    return f"/proc/self/fd/{descriptor}"
