"""Find out whether a pooler in transaction mode sits between us and the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from daemon.describing import Session

PROBE_ROUNDS = 3
PROBE_SECONDS = 5.0


async def loses_settings(first: Session, second: Session) -> bool:
    """Let two sessions each set a mark of their own and look at it again.

    In session mode both find their own; in transaction mode one finds the other's or none, since a pooler
    prefers the backend used last. A pool of one backend in session mode never serves the second session: then
    nothing is lost either.
    """
    for round_number in range(PROBE_ROUNDS):
        marks = {session: f"{round_number} {id(session)}" for session in (first, second)}
        with trio.move_on_after(PROBE_SECONDS):
            for session, mark in marks.items():
                await session.value(
                    "SELECT set_config('backfillctl.mark', $1, false)", mark, operation="CONNECT"
                )
            for session, mark in marks.items():
                found = await session.value(
                    "SELECT current_setting('backfillctl.mark', true)", operation="CONNECT"
                )
                if found != mark:
                    return True
    return False
