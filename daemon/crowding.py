"""Read many rows by key in smaller and smaller batches, where the server cancels large ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import TypeVar

import trio

from daemon.retrying import Failure, FailureClass, backoff

Asked = TypeVar("Asked")
Found = TypeVar("Found")

ALONE_ATTEMPTS_MAX = 3
"""How often the read of a single key is repeated after the server cancelled it."""
CROWDED = frozenset({FailureClass.TIMEOUT, FailureClass.CONFLICT})
"""Statements that the server cancels, by statement_timeout or for a conflict with recovery: shorter ones may pass."""


async def in_halves(
    asked: Sequence[Asked], read: Callable[[Sequence[Asked]], Awaitable[list[Found]]], *, random: Random
) -> list[Found]:
    """Return what `read` finds for all of `asked`; a batch that is cancelled is read in halves, down to single keys.

    Raises:
        Failure: from `read`, where smaller batches don't help.
    """
    found: list[Found] = []
    waiting = [(asked, 1)] if asked else []
    while waiting:
        batch, attempt = waiting.pop()
        try:
            found += await read(batch)
        except Failure as failure:
            if not (failure.answered and failure.kind in CROWDED):
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                waiting += [(batch[half:], 1), (batch[:half], 1)]
            elif attempt < ALONE_ATTEMPTS_MAX:
                await trio.sleep(backoff(attempt, random.random()))
                waiting.append((batch, attempt + 1))
            else:
                raise
    return found
