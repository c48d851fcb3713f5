"""A bulkhead between a migration and what only shows or steers it: a defect there sinks that part alone."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from daemon.log_events import LogEvent, log_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def behind_bulkhead(part: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run `work`; whatever it fails with ends it alone, and is told in full.

    Only for what no row's way to its object depends on: everything else that fails unexpectedly ends the session.

    Args:
        part: names it for the operator.
        work: never ends by itself, or has done its share when it does.
    """
    try:
        await work()
    except Exception as error:  # noqa: BLE001 -- hides nothing: it is told with its traceback
        log_event(
            LogEvent.PART_FAILED,
            f"{part} failed and is gone until the next start, the migration goes on: {_word(error)}",
            part=part,
            traceback="".join(traceback.format_exception(error)),
        )


def _word(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
