"""The one place where these tests wait: for a condition, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.005
_NEVER = threading.Event()


def happens(look: Callable[[], object], *, within: float) -> bool:
    """Whether `look` returns something true within so many seconds."""
    deadline = time.monotonic() + within
    while not look():
        if time.monotonic() >= deadline:
            return False
        _NEVER.wait(POLL_SECONDS)
    return True


def eventually(look: Callable[[], object], what: str, *, seconds: float = 60.0) -> None:
    """Wait until `look` returns something true; fail after `seconds`."""
    assert happens(look, within=seconds), f"not within {seconds:g} s: {what}"
