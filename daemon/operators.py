"""Who acts, for the record; nothing is decided by it."""

from __future__ import annotations

import getpass
import os
import socket


def user_name() -> str:
    """Return the name of the user; its number where a container runs under one that has no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def operator() -> str:
    """Return the user and the host, as `name@host`."""
    return f"{user_name()}@{socket.gethostname()}"
