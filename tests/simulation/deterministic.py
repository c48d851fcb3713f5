"""Run trio so that one seed is one run: virtual time, and scheduling drawn from the seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio
from trio._core import _run as internals
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


@contextmanager
def scheduling_by(seed: int) -> Iterator[None]:
    """Let trio draw the order of runnable tasks from `seed`, as it offers to Hypothesis under these private names."""
    before, state = internals._ALLOW_DETERMINISTIC_SCHEDULING, internals._r.getstate()
    internals._ALLOW_DETERMINISTIC_SCHEDULING = True
    internals._r.seed(seed)
    try:
        yield
    finally:
        internals._ALLOW_DETERMINISTIC_SCHEDULING = before
        internals._r.setstate(state)


def run(seed: int, main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` in virtual time; a sleep costs nothing."""
    with scheduling_by(seed):
        return trio.run(main, clock=MockClock(autojump_threshold=0))
