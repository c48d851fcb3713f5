"""Repeat a request to S3 for as long as that may help, for commands that work through many objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from daemon.budget import Silence
from daemon.halting import halted
from daemon.log_events import LogEvent, log_event
from daemon.retrying import Disposition, Failure, FailureClass, decide

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

T = TypeVar("T")

REFRESH_SECONDS = 60.0
"""Credentials are not fetched anew more often: a thousand locked objects are a thousand 403."""
_DENIED = frozenset({FailureClass.FORBIDDEN, FailureClass.EXPIRED_CREDENTIALS})


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """How failed requests are retried: `upload.max_attempts`, `upload.give_up_after` (s), and the jitter."""

    max_attempts: int
    give_up_after: float
    random: Random


class Requests:
    """The requests of one command; they share the silence of the endpoint and the credentials."""

    def __init__(self, policy: RequestPolicy, *, refresh: Callable[[], Awaitable[None]]) -> None:
        self._policy = policy
        self._refresh = refresh
        self._silence = Silence()
        self._refreshed_at: float | None = None
        self._refreshes = 0
        self._refreshing = trio.Lock()

    async def answer(self, request: Callable[[], Awaitable[T]], *, subject: str = "") -> T:
        """Return what a request brings; a refusal concerns one object, unless it was one to list.

        Args:
            request: raises a classified Failure.
            subject: what is asked, where the failure's own message does not say it.

        Raises:
            Failure: this object can't be had.
            MigrationHalted: none can.
        """
        answers = failures = 0
        refreshed = False
        while True:
            sent_after = self._refreshes
            try:
                found = await request()
            except Failure as failure:
                failures += 1
                answers += failure.counted
                if failure.counted:
                    self._silence.broken()
                # HEAD has no body that could name an expired token.
                denied = failure.kind in _DENIED or (
                    failure.operation == "HEAD" and failure.http_status == 400
                )
                if denied and not refreshed and await self._refreshed(sent_after):
                    refreshed = True
                    continue
                now = trio.current_time()
                decision = decide(
                    failure,
                    answers=answers,
                    failures=failures,
                    max_attempts=self._policy.max_attempts,
                    silent_seconds=0.0 if failure.counted else self._silence.unanswered(now),
                    give_up_after=self._policy.give_up_after,
                    jitter=self._policy.random.random(),
                    refreshed=True,
                )
                one_object = failure.kind is FailureClass.FORBIDDEN and failure.operation != "LIST"
                if one_object or decision.disposition is Disposition.PARK:
                    raise
                if decision.disposition is Disposition.HALT:
                    raise halted(failure, decision.exit_code, subject=subject) from failure
                log_event(
                    LogEvent.REQUEST_FAILED,
                    f"{failure.operation} failed, trying again: {failure.message}",
                    keys=failure.keys,
                    operation=failure.operation,
                    failure=failure.kind.value,
                    http_status=failure.http_status,
                    request_id=failure.request_id,
                )
                await trio.sleep(decision.delay)
            else:
                self._silence.broken()
                return found

    async def _refreshed(self, sent_after: int) -> bool:
        """Say whether a request that was refused has newer credentials to try, fetched for it where that is due.

        What was sent beside it is refused with it, and waits here for the same ones.

        Args:
            sent_after: how often credentials had been fetched anew when it was sent.
        """
        async with self._refreshing:
            if self._refreshes != sent_after:
                return True
            now = trio.current_time()
            if self._refreshed_at is not None and now - self._refreshed_at < REFRESH_SECONDS:
                return False
            self._refreshed_at = now
            await self._refresh()
            self._refreshes += 1
            return True
