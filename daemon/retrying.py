"""Decide what an error means for the key and for the migration; pure.

The adapter that met the error classifies it (`Failure`); `decide` alone says what follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from daemon.errors import ExitCode


class FailureClass(StrEnum):
    """What kind of thing went wrong, in words that status, events and metrics share."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    SERVER = "server"
    THROTTLED = "throttled"
    CONFLICT = "conflict"
    CLOCK_SKEW = "clock_skew"
    EXPIRED_CREDENTIALS = "expired_credentials"
    CORRUPTED = "corrupted"
    GARBLED = "garbled"
    REJECTED = "rejected"
    FOREIGN_OBJECT = "foreign_object"
    UNUSABLE_KEY = "unusable_key"
    METADATA_TOO_LARGE = "metadata_too_large"
    UNSUITABLE_VALUE = "unsuitable_value"
    PROCESS_DIED = "process_died"
    FORBIDDEN = "forbidden"
    NO_SUCH_BUCKET = "no_such_bucket"
    WRONG_REGION = "wrong_region"
    REDIRECTED = "redirected"


class Disposition(StrEnum):
    """What follows from a failure: the key again, the key set aside, or everything stopped."""

    RETRY = "retry"
    PARK = "park"
    HALT = "halt"


@dataclass(eq=False)
class Failure(Exception):  # noqa: N818 -- a classified answer, raised inside one attempt and decided upon outside
    """One failed attempt, classified.

    Attributes:
        kind: what went wrong.
        operation: "PUT", "HEAD", "GET", "LIST", "FETCH".
        message: one line without secrets or payload.
        answered: an answer arrived.
        http_status, code, request_id: of the answer, where there was one.
        keys: row and object keys that `message` quotes.
    """

    kind: FailureClass
    operation: str
    message: str
    answered: bool = True
    http_status: int | None = None
    code: str | None = None
    request_id: str | None = None
    keys: tuple[str, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether this answer says something about the key, and so uses up one of its attempts.

        Silence does not, nor does a 503 or 429: a storm of minutes must not park whatever it met. Both are
        bounded by how long the endpoint serves nobody.
        """
        return self.answered and self.kind is not FailureClass.THROTTLED


RETRIED = {
    FailureClass.TIMEOUT,
    FailureClass.CONNECTION,
    FailureClass.SERVER,
    FailureClass.THROTTLED,
    FailureClass.CONFLICT,
    FailureClass.CLOCK_SKEW,
    FailureClass.CORRUPTED,
    FailureClass.GARBLED,
}
"""Classes that may pass: the same attempt may succeed later."""
_HALTING = {
    FailureClass.FORBIDDEN: ExitCode.REFUSED,
    FailureClass.EXPIRED_CREDENTIALS: ExitCode.REFUSED,
    FailureClass.NO_SUCH_BUCKET: ExitCode.REFUSED,
    FailureClass.WRONG_REGION: ExitCode.USAGE,
    FailureClass.REDIRECTED: ExitCode.USAGE,
}

BACKOFF_FIRST_SECONDS = 0.1
"""First ceiling of the full-jitter backoff (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
BACKOFF_LAST_SECONDS = 20.0
"""Ceiling that the doubling stops at."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now: wait `delay` seconds and retry, park the key, or halt with `exit_code`."""

    disposition: Disposition
    delay: float = 0.0
    exit_code: ExitCode = ExitCode.FAILED


def backoff(attempt: int, jitter: float) -> float:
    """Return the seconds to wait after the `attempt`-th failure (from 1), full jitter.

    `jitter` is uniform in [0, 1); the result lies in [0, min(BACKOFF_LAST, BACKOFF_FIRST * 2**(attempt-1))).
    """
    ceiling = min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(attempt - 1, 30))
    return ceiling * jitter


def decide(  # noqa: PLR0911 -- a decision table reads best as one
    failure: Failure,
    *,
    answers: int,
    failures: int,
    max_attempts: int,
    silent_seconds: float,
    give_up_after: float,
    jitter: float,
    refreshed: bool,
) -> Decision:
    """Say what follows from `failure`.

    Args:
        failure: the attempt's classified end.
        answers: counted attempts of this key so far, this one included.
        failures: failed attempts of this key so far, this one included (sets the backoff).
        max_attempts: config `upload.max_attempts`.
        silent_seconds: how long the endpoint has served nobody.
        give_up_after: config `upload.give_up_after`, seconds.
        jitter: uniform in [0, 1).
        refreshed: credentials were refreshed since this key was first refused.
    """
    if failure.kind in {FailureClass.FORBIDDEN, FailureClass.EXPIRED_CREDENTIALS} and not refreshed:
        return Decision(Disposition.RETRY)
    if failure.kind is FailureClass.FORBIDDEN and failure.operation in {"HEAD", "GET"}:
        # The right to look is missing, not the right to write: only this key can't be compared.
        return Decision(Disposition.PARK)
    if failure.kind in _HALTING:
        return Decision(Disposition.HALT, exit_code=_HALTING[failure.kind])
    if failure.kind not in RETRIED:
        return Decision(Disposition.PARK)
    if not failure.counted:
        if silent_seconds >= give_up_after:
            return Decision(Disposition.HALT, exit_code=ExitCode.UNREACHABLE)
        return Decision(Disposition.RETRY, backoff(failures, jitter))
    if answers >= max_attempts:
        return Decision(Disposition.PARK)
    return Decision(Disposition.RETRY, backoff(failures, jitter))
