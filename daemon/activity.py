"""What the tasks of a session are doing right now, counted."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from daemon.causes import Cause

if TYPE_CHECKING:
    from collections.abc import Iterator


class Activity:
    """Counts tasks by what they are at; whoever works or waits says so for that long.

    Attributes:
        doing: tasks at each cause now.
    """

    def __init__(self) -> None:
        self.doing: Counter[Cause] = Counter()

    @contextmanager
    def at(self, cause: Cause) -> Iterator[None]:
        """Count the calling task under `cause` while the block runs."""
        self.doing[cause] += 1
        try:
            yield
        finally:
            self.doing[cause] -= 1
