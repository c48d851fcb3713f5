"""First contact with an end: patient with an answer that may mend, short with silence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import trio

from daemon.budget import Silence
from daemon.errors import ExitCode
from daemon.halting import MigrationHalted, halted
from daemon.log_events import LogEvent, log_event
from daemon.retrying import RETRIED, Disposition, Failure, FailureClass, backoff, decide

T = TypeVar("T")

SILENCE_SECONDS_MAX = 10.0
"""An operator who mistyped a host wants to know now; a supervisor starts the process again anyway."""


async def first_contact(
    subject: str,
    attempt: Callable[[], Awaitable[T]],
    *,
    max_attempts: int,
    give_up_after: float,
    random: Random,
    patient: bool = False,
    refresh: Callable[[], Awaitable[None]] | None = None,
) -> T:
    """Return what `attempt` returns, tried again as the retry policy says.

    Args:
        subject: what is contacted, for messages.
        attempt: raises a classified Failure.
        max_attempts: answered attempts, at most.
        give_up_after: seconds for which pleas to slow down are heeded.
        random: source of jitter.
        patient: silence is borne as long as pleas are.
        refresh: fetches credentials anew, once, after a refusal; None where there is nothing to refresh.

    Raises:
        MigrationHalted: with the exit code that says why.
    """
    silence = Silence()
    answers = failures = 0
    refreshed = refresh is None
    while True:
        try:
            return await attempt()
        except Failure as failure:
            failures += 1
            answers += failure.counted
            if failure.counted:
                silence.broken()
            decision = decide(
                failure,
                answers=answers,
                failures=failures,
                max_attempts=max_attempts,
                silent_seconds=0.0 if failure.counted else silence.unanswered(trio.current_time()),
                # A plea to slow down is an answer, and may be waited out.
                give_up_after=give_up_after if failure.answered or patient else SILENCE_SECONDS_MAX,
                jitter=random.random(),
                refreshed=refreshed,
            )
            if decision.disposition is Disposition.HALT:
                raise halted(failure, decision.exit_code, subject=subject) from failure
            if decision.disposition is Disposition.PARK:
                raise MigrationHalted(
                    f"{subject}: gave up after {failures} attempts: {failure.message}",
                    "run `backfillctl check`",
                    ExitCode.UNREACHABLE if failure.kind in RETRIED else ExitCode.FAILED,
                    keys=failure.keys,
                ) from failure
            _tell(subject, failures, failure)
            if refresh is not None and failure.kind in {
                FailureClass.FORBIDDEN,
                FailureClass.EXPIRED_CREDENTIALS,
            }:
                await refresh()
                refreshed = True
            await trio.sleep(decision.delay)


async def outlasting(
    subject: str, attempt: Callable[[], Awaitable[T]], *, silence_seconds: float, random: Random
) -> T:
    """Return what `attempt` returns, tried again until it has failed for `silence_seconds`.

    Raises:
        Failure: of the attempt that was the last.
    """
    silence = Silence()
    failures = 0
    while True:
        try:
            return await attempt()
        except Failure as failure:
            if silence.unanswered(trio.current_time()) >= silence_seconds:
                raise
            failures += 1
            _tell(subject, failures, failure)
            await trio.sleep(backoff(failures, random.random()))


def _tell(subject: str, failures: int, failure: Failure) -> None:
    log_event(
        LogEvent.CONTACT_FAILED,
        f"{subject}: attempt {failures} failed: {failure.message}",
        keys=failure.keys,
        subject=subject,
        failures=failures,
        failure=failure.kind.value,
        http_status=failure.http_status,
        request_id=failure.request_id,
    )
