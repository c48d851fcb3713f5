"""What this process has measured since it began, for its metrics; cheap enough to be always on.

Histograms begin at zero in every process: the journal keeps totals, not how long each request took.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

OPERATIONS = ("PUT", "HEAD", "GET", "LIST", "DELETE", "FETCH")
"""What is timed: requests to S3 by their operation, and fetches of rows from PostgreSQL."""
REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds, from an object store in the same rack to `s3.io_timeout` by default."""
COMMIT_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Seconds, from an SSD with a write cache to a disk that is in trouble."""


class Histogram:
    """Durations in seconds, counted by upper bounds.

    Attributes:
        bounds: inclusive upper bounds, ascending; what is above the last is counted too.
        sum_seconds: of all that was observed.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.sum_seconds = 0.0
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_seconds += seconds

    def take(self) -> tuple[list[int], float]:
        """Return what was counted by class, and the sum of seconds, and begin at zero again."""
        taken = self._counts, self.sum_seconds
        self._counts, self.sum_seconds = [0] * len(taken[0]), 0.0
        return taken

    def add(self, counts: Sequence[int], sum_seconds: float) -> None:
        """Count what another histogram of the same bounds has counted (`take`)."""
        self._counts = [mine + other for mine, other in zip(self._counts, counts, strict=True)]
        self.sum_seconds += sum_seconds

    def by_bound(self) -> dict[str, int]:
        """Return how many lie in each class, by its upper bound as text, "+Inf" for what is above the last."""
        names = [f"{bound:g}" for bound in self.bounds] + ["+Inf"]
        return {name: count for name, count in zip(names, self._counts, strict=True) if count}

    def cumulative(self) -> list[int]:
        """Return how many were at most each bound, and last how many there were."""
        total = 0
        found = []
        for count in self._counts:
            total += count
            found.append(total)
        return found


class _Timed:
    """Puts how long its block takes into a histogram, unless the block fails."""

    __slots__ = ("_begun", "_histogram")

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def __enter__(self) -> None:
        self._begun = trio.current_time()

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure is None:
            self._histogram.observe(trio.current_time() - self._begun)


class Instruments:
    """The histograms of one process.

    Attributes:
        requests: by operation, each of OPERATIONS from the beginning.
        commits: of the journal's groups of outcomes.
    """

    def __init__(self) -> None:
        self.requests = {operation: Histogram(REQUEST_BOUNDS) for operation in OPERATIONS}
        self.commits = Histogram(COMMIT_BOUNDS)

    def request(self, operation: str) -> AbstractContextManager[None]:
        """Time the block, unless it fails: how often and why requests fail is on record."""
        return _Timed(self.requests[operation])

    def commit(self) -> AbstractContextManager[None]:
        """Time one commit of the journal, unless it fails."""
        return _Timed(self.commits)
