"""What can befall a request to the fake S3, as values; `FakeS3.script` lets it happen."""

from __future__ import annotations

from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Fault:
    """What happens to a request instead of, or beside, its normal course.

    Attributes:
        status, code, headers, body: answered without doing anything, if `status` is set.
        error: raised by the transport instead of an answer.
        after_commit: the request takes effect before `error` is raised: the response is lost.
        truncated: the normal answer's body breaks off.
        seconds: waited before anything else.
        late_seconds: the request takes effect this much later, after `error` has long been raised.
        flip: a bit of the body is flipped on its way to the server.
        drip: seconds between the pieces in which the answer's body arrives; a truncated one falls silent instead.
        again_seconds: the request takes effect once more, this much later.
    """

    status: int | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    error: type[httpx.TransportError] | None = None
    after_commit: bool = False
    truncated: bool = False
    seconds: float = 0.0
    late_seconds: float | None = None
    flip: bool = False
    drip: float = 0.0
    again_seconds: float | None = None


def answers(status: int, code: str | None = None, *, body: bytes | None = None, **headers: str) -> Fault:
    """Answer with `status` and an error document of `code` (or `body` as it is); nothing takes effect."""
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Fault(status=status, code=code, headers=named, body=body)


def slow_down() -> Fault:
    """503 SlowDown."""
    return answers(503, "SlowDown")


def loses_response(error: type[httpx.TransportError] = httpx.ReadError) -> Fault:
    """The request takes effect, the client never learns."""
    return Fault(error=error, after_commit=True)


def drops_request(error: type[httpx.TransportError] = httpx.ConnectError) -> Fault:
    """The request never arrives."""
    return Fault(error=error)


def lands_late(seconds: float) -> Fault:
    """The client times out now; the request takes effect `seconds` later."""
    return Fault(error=httpx.ReadTimeout, late_seconds=seconds)


def truncates() -> Fault:
    """The request takes effect; the answer's body breaks off after its first half."""
    return Fault(truncated=True)


def delays(seconds: float) -> Fault:
    """The normal course, `seconds` later."""
    return Fault(seconds=seconds)


def flips_bit() -> Fault:
    """One bit of the body changes on its way to the server."""
    return Fault(flip=True)


def drips(seconds: float) -> Fault:
    """The normal course; the answer's body comes in small pieces, `seconds` apart."""
    return Fault(drip=seconds)


def arrives_again(seconds: float) -> Fault:
    """The normal course; the same request takes effect once more, `seconds` later."""
    return Fault(again_seconds=seconds)
